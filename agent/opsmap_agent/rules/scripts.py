"""Scripts: which files may run, how each is opened so that what is checked is what runs, and by which interpreter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from opsmap_agent.commands.refusals import NotStartedError, RejectedError
from opsmap_agent.configuration import Scripts
from opsmap_agent.rules import interpreters
from opsmap_agent.rules.environment import own_path
from opsmap_agent.rules.program import CheckedFile
from opsmap_agent.rules.programs import AllowedPrograms, find_program, shebang
from opsmap_agent.rules.trusted import trusted_file
from opsmap_protocol.specs import ScriptCommand

_MAX_SCRIPT_BYTES = 8 * 1024 * 1024
_INTERPRETER_BY_SUFFIX = {".sh": "sh", ".bash": "bash", ".py": "python3", ".pl": "perl"}
_INLINE_NAME = "inline-script"
"""What an inline script finds in $0: it is no file."""

_EXECUTABLE = 0o111


@dataclass(frozen=True, slots=True)
class Invocation:
    """How to run a script: see the fields of the same name in `Program`."""

    argv: list[str]
    input: bytes | None = None
    checked: tuple[CheckedFile, ...] = ()


@dataclass(frozen=True, slots=True)
class _ScriptFile:
    path: str
    status: os.stat_result
    text: bytes
    """None of it for a program that is not text."""


class AllowedScripts:
    """`scripts.allowed_paths` and `scripts.allowed_extensions`."""

    def __init__(self, scripts: Scripts, programs: AllowedPrograms) -> None:
        self._scripts = scripts
        self._programs = programs

    def resolve(self, spec: ScriptCommand, search_path: str) -> Invocation:
        """The way to run a script, given as a file of this host or as its text.

        Raises:
            RejectedError: it may not run.
            NotStartedError: it cannot.
        """
        if (spec.content is None) == (spec.path is None):
            raise RejectedError("a script is given either as content or as path")
        if spec.path is not None:
            return self._resolve_file(spec, self._open(spec.path), search_path)
        text = (spec.content or "").encode("utf-8", "surrogateescape")
        words = [spec.interpreter] if spec.interpreter is not None else _asked_interpreter(text) or ["sh"]
        binary, checked = self._programs.find(words[0], search_path)
        argv, given = interpreters.carry([binary, *words[1:]], _INLINE_NAME, spec.args, text)
        return Invocation(argv, given, checked)

    def _resolve_file(self, spec: ScriptCommand, file: _ScriptFile, search_path: str) -> Invocation:
        by_path = CheckedFile.of(file.path, file.status)
        is_executable = bool(file.status.st_mode & _EXECUTABLE)
        if spec.interpreter is not None:
            binary, checked = self._programs.find(spec.interpreter, search_path)
            interpreter = [binary]
        elif is_executable and file.text.startswith(b"\x7fELF"):
            return Invocation([file.path, *spec.args], checked=(by_path,))
        else:
            interpreter, checked = self._own_interpreter(file, search_path, is_executable=is_executable), ()
        if interpreters.asks_for_its_path(interpreter, file.text):
            return Invocation([*interpreter, file.path, *spec.args], checked=(*checked, by_path))
        argv, given = interpreters.carry(interpreter, file.path, spec.args, file.text)
        return Invocation(argv, given, checked)

    def _own_interpreter(self, file: _ScriptFile, search_path: str, *, is_executable: bool) -> list[str]:
        """By its first line if it is executable, as the kernel does; else by its extension."""
        suffix = PurePath(file.path).suffix
        if is_executable:
            words = _asked_interpreter(file.text) or [_INTERPRETER_BY_SUFFIX.get(suffix, "sh")]
            if words[0].startswith("/") and not os.access(words[0], os.X_OK):
                raise NotStartedError(f"the interpreter {words[0]} that {file.path} asks for does not exist")
        elif suffix in _INTERPRETER_BY_SUFFIX:
            words = [_INTERPRETER_BY_SUFFIX[suffix]]
        else:
            raise NotStartedError(f"permission denied: {file.path} is not executable")
        # Where programs are restricted, a PATH that came with the command must not choose the interpreter.
        path = own_path() if self._programs.are_restricted else search_path
        return [find_program(words[0], path), *words[1:]]

    def _open(self, given: str) -> _ScriptFile:
        if not given.startswith("/") or "\0" in given:
            raise RejectedError(f"the script {given[:200]!r} is not an absolute path")
        base, path = self._place(PurePath(given))
        extensions = self._scripts.allowed_extensions
        if extensions and path.suffix not in extensions:
            raise RejectedError(f"the extension of {given} is not in scripts.allowed_extensions")
        with trusted_file(path, base=base) as (descriptor, status):
            return _ScriptFile(str(path), status, _read(descriptor, path))

    def _place(self, given: PurePath) -> tuple[PurePath, PurePath]:
        """The allowed folder that a script is in, and its path in it; links to that folder itself are resolved."""
        if ".." in given.parts:
            raise RejectedError(f"the script {given} has '..' in its path: it may lead out of scripts.allowed_paths")
        for allowed in self._allowed_places():
            for name in allowed:
                if given.is_relative_to(name) and given != name:
                    base = allowed[-1]
                    return base, base / given.relative_to(name)
        raise RejectedError(f"the script {given} is outside of scripts.allowed_paths")

    def _allowed_places(self) -> Iterator[tuple[PurePath, PurePath]]:
        """Each allowed folder as it is written, and where it really is."""
        for allowed in self._scripts.allowed_paths:
            yield allowed, PurePath(os.path.realpath(allowed))


def _read(descriptor: int, path: PurePath) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        head = file.read(4)
        if head == b"\x7fELF":
            return head
        text = head + file.read(_MAX_SCRIPT_BYTES)
    if len(text) > _MAX_SCRIPT_BYTES:
        raise RejectedError(f"the script {path} is larger than {_MAX_SCRIPT_BYTES // 1024**2} MiB")
    return text


def _asked_interpreter(text: bytes) -> list[str]:
    """The interpreter that the first line names, with its options; nothing without such a line.

    Raises:
        NotStartedError: there is such a line, and it names none.
    """
    if not text.startswith(b"#!"):
        return []
    words = shebang(text[:4096])
    if words and PurePath(words[0]).name == "env":
        words = words[2:] if words[1:2] == ["-S"] else words[1:]
    if not words or words[0].startswith("-"):
        raise NotStartedError(f"the first line of the script names no interpreter: {os.fsdecode(text[:80])!r}")
    return words
