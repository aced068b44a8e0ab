"""Finding the program behind a name, and whether `scripts.allowed_commands` has it."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path, PurePath

from opsmap_agent.commands.refusals import NotStartedError, RejectedError
from opsmap_agent.configuration import Scripts
from opsmap_agent.rules.environment import own_path
from opsmap_agent.rules.program import CheckedFile
from opsmap_agent.rules.trusted import trusted_file


class AllowedPrograms:
    """`scripts.allowed_commands`. While nothing is listed, every program is allowed and none is looked at closer."""

    def __init__(self, scripts: Scripts) -> None:
        self._allowed = scripts.allowed_commands

    @property
    def are_restricted(self) -> bool:
        return bool(self._allowed)

    def find(self, name: str, search_path: str, *, is_other_user: bool = False) -> tuple[str, tuple[CheckedFile, ...]]:
        """The absolute path of an allowed program, and the file to compare before it is run.

        Raises:
            RejectedError: it is not listed, or somebody else could have changed it.
            NotStartedError: there is none that may be executed.
        """
        binary = find_program(name, search_path, is_other_user=is_other_user)
        if not self._allowed:
            return binary, ()
        if not self._is_listed(binary):
            raise RejectedError(f"{name!r} is not in scripts.allowed_commands")
        return binary, (_check(binary),)

    def _is_listed(self, binary: str) -> bool:
        """An entry allows one file: a path itself, a name the file that the agent's own PATH finds for it.

        Folders are compared after resolving links (/bin is often one to /usr/bin), files are not: with busybox
        every program is a link to the same file.
        """
        found = _canonical(binary)
        for entry in self._allowed:
            path = entry if entry.startswith("/") else shutil.which(entry, path=own_path())
            if path is not None and _canonical(path) == found:
                return True
        return False


def find_program(name: str, search_path: str, *, is_other_user: bool = False) -> str:
    """The absolute path of a program given by absolute path or bare name.

    Raises:
        NotStartedError: there is none that the agent, or with `is_other_user` anybody, may execute.
    """
    if "\0" in name or not name:
        raise NotStartedError("the program has no proper name")
    if name.startswith("/"):
        _check_executable(name, is_other_user=is_other_user)
        return os.path.normpath(name)
    if "/" in name:
        raise NotStartedError(f"{name!r} is neither an absolute path nor a bare name")
    found = shutil.which(name, path=search_path)
    if found is None or not found.startswith("/"):
        raise NotStartedError(f"no program {name!r} on PATH ({search_path})")
    return found


def shebang(head: bytes) -> list[str]:
    """The words of a script's first line, interpreter and options; none without such a line."""
    first_line = head.partition(b"\n")[0]
    return os.fsdecode(first_line[2:]).split() if first_line.startswith(b"#!") else []


def _check(binary: str) -> CheckedFile:
    """A link (/bin/sh, /etc/alternatives/java) is checked where it stands and where it leads."""
    link, target = _canonical(binary), Path(os.path.realpath(binary))
    with trusted_file(target, base=target.parent) as (_, status):
        checked = CheckedFile.of(binary, status)
    if link != target:
        _check_places_of_links(link)
    return checked


def _check_places_of_links(link: Path) -> None:
    """Every link on the way stands in a folder that only root or the agent's user may write to."""
    for _ in range(40):
        if not link.is_symlink():
            return
        status = link.parent.stat()
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise RejectedError(f"the link {link} stands in a folder that others may write to")
        link = _canonical(str(link.parent / link.readlink()))
    raise RejectedError(f"too many links behind {link}")


def _check_executable(path: str, *, is_other_user: bool) -> None:
    try:
        mode = Path(path).stat().st_mode
    except PermissionError:
        if is_other_user:  # Only the other user can tell.
            return
        raise NotStartedError(f"permission denied: {path} cannot be reached") from None
    except OSError as error:
        raise NotStartedError(f"the program {path} does not exist ({error.strerror})") from None
    if stat.S_ISDIR(mode):
        raise NotStartedError(f"{path} is a folder, not a program")
    if not (mode & 0o111 if is_other_user else os.access(path, os.X_OK)):
        raise NotStartedError(f"permission denied: {path} is not executable")
    _check_interpreter(Path(path))


def _check_interpreter(script: Path) -> None:
    """A script whose interpreter is missing fails in exec with "no such file", as if it were missing itself."""
    try:
        with script.open("rb") as file:
            words = shebang(file.readline(256))
    except OSError:
        return  # Executable but not readable: a binary as good as any.
    if words and not os.access(words[0], os.X_OK):
        raise NotStartedError(f"the interpreter {words[0]} that {script} asks for does not exist")


def _canonical(path: str) -> Path:
    normal = PurePath(os.path.normpath(path))
    return Path(os.path.realpath(normal.parent)) / normal.name
