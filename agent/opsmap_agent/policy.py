"""What this host lets the backend run: from a command to the program that will be started, or a clear refusal.

Everything here looks at the file system and may block; callers run it in a thread.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from opsmap_agent.configuration import Configuration
from opsmap_agent.refusals import NotStartedError, RejectedError
from opsmap_protocol.specs import ExecuteCommand, ScriptCommand, ServiceControlCommand

_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TZ")
"""All that a command inherits from the agent's environment; the rest may hold secrets."""

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SERVICE_NAME = re.compile(r"[A-Za-z0-9_.@:\\][A-Za-z0-9_.@:\\-]{0,254}", re.ASCII)
_INTERPRETER_BY_SUFFIX = {".sh": "sh", ".bash": "bash", ".py": "python3", ".pl": "perl"}
_READS_STDIN_WITH = {
    "sh": "-s",
    "bash": "-s",
    "dash": "-s",
    "ksh": "-s",
    "zsh": "-s",
    "python3": "-",
    "perl": "-",
}

Runnable = ExecuteCommand | ScriptCommand | ServiceControlCommand


@dataclass(frozen=True, slots=True)
class Program:
    """What to start: `argv[0]` is an absolute path.

    `script` is the text of an inline script, to be written to `script_path` first; if `is_script_stdin`, the
    interpreter reads it from there as its standard input.
    """

    argv: list[str]
    env: dict[str, str]
    working_dir: str = "/"
    script: str | None = None
    script_path: Path | None = None
    is_script_stdin: bool = False
    run_as_user: str | None = None

    def write_script(self) -> None:
        if self.script is None or self.script_path is None:
            return
        self.script_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.script_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o700)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(self.script)

    def remove_script(self) -> None:
        if self.script_path is not None:
            shutil.rmtree(self.script_path.parent, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Request:
    """The part that execute and script have in common."""

    env: dict[str, str]
    working_dir: str
    run_as_user: str | None
    search_path: str


class Policy:
    """The rules of one configuration."""

    def __init__(self, configuration: Configuration) -> None:
        self._scripts = configuration.scripts
        self._identity = configuration.identity
        self._is_service_control_on = configuration.native_commands.service_control

    def resolve(self, spec: Runnable, folder: Path) -> Program:
        """The program behind a command. `folder` is where the text of an inline script may be written.

        Raises:
            RejectedError: the configuration forbids it; the message names the key that decides.
            NotStartedError: it could not begin on this host.
        """
        if isinstance(spec, ServiceControlCommand):
            return self._resolve_service_control(spec)
        if not self._scripts.enabled:
            raise RejectedError("this agent runs no scripts and programs: scripts.enabled is false")
        request = self._common(spec)
        if isinstance(spec, ExecuteCommand):
            binary = self._find_allowed(spec.path, request)
            return self._as_user([binary, *spec.args], request)
        return self._resolve_script(spec, request, folder)

    def _common(self, spec: ExecuteCommand | ScriptCommand) -> _Request:
        texts = [*spec.args, *spec.env, *spec.env.values(), spec.working_dir or ""]
        if any("\0" in text for text in texts) or any("=" in name or not name for name in spec.env):
            raise RejectedError("an argument, variable or folder holds a NUL, or a variable has no proper name")
        env = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        env.setdefault("PATH", _DEFAULT_PATH)
        env.update(spec.env)
        user = self._check_user(spec.run_as_user)
        folder = spec.working_dir or "/"
        if not folder.startswith("/"):
            raise NotStartedError(f"the working directory {folder!r} is not an absolute path")
        if not Path(folder).is_dir():
            raise NotStartedError(f"the working directory {folder} does not exist")
        if user is None and not os.access(folder, os.X_OK):
            raise NotStartedError(f"permission denied: the working directory {folder} cannot be entered")
        return _Request(spec.env | {"PATH": env["PATH"]} if user else env, folder, user, env["PATH"])

    def _check_user(self, user: str | None) -> str | None:
        """The user to switch to; None for the agent's own."""
        if user is None or user == pwd.getpwuid(os.geteuid()).pw_name:
            return None
        if user not in self._identity.allowed_runas_users:
            raise RejectedError(f"running as {user!r} is not allowed by identity.allowed_runas_users")
        try:
            pwd.getpwnam(user)
        except KeyError:
            raise NotStartedError(f"the user {user!r} does not exist on this host") from None
        return user

    def _find_allowed(self, name: str, request: _Request) -> str:
        binary = find_program(name, request.search_path, is_other_user=request.run_as_user is not None)
        if self._scripts.allowed_commands and not self._is_listed(binary):
            raise RejectedError(f"{name!r} is not in scripts.allowed_commands")
        return binary

    def _is_listed(self, binary: str) -> bool:
        """An entry allows one file: a path itself, a name the file that the agent's own PATH finds for it.

        Folders are compared after resolving links (/bin is often one to /usr/bin), files are not: with busybox
        every program is a link to the same file.
        """
        found = _canonical(binary)
        for entry in self._scripts.allowed_commands:
            path = entry if entry.startswith("/") else shutil.which(entry, path=_own_path())
            if path is not None and _canonical(path) == found:
                return True
        return False

    def _resolve_script(self, spec: ScriptCommand, request: _Request, folder: Path) -> Program:
        if (spec.content is None) == (spec.path is None):
            raise RejectedError("a script is given either as content or as path")
        if spec.path is not None:
            script = self._allowed_script(spec.path)
            return self._as_user([*self._runner(spec, script, request), *spec.args], request)
        content = spec.content or ""
        interpreter = self._inline_interpreter(spec, content, request)
        path = folder / "script"
        if request.run_as_user is None:
            return self._as_user([*interpreter, str(path), *spec.args], request, content, path)
        # The other user cannot look into the agent's folder, and should not: the text goes in by stdin.
        flag = _READS_STDIN_WITH.get(PurePath(interpreter[-1]).name)
        if flag is None:
            raise RejectedError(
                f"an inline script for {interpreter[-1]} cannot run as another user; "
                "put it in a file under scripts.allowed_paths"
            )
        return self._as_user([*interpreter, flag, *spec.args], request, content, path)

    def _allowed_script(self, given: str) -> Path:
        if not given.startswith("/"):
            raise RejectedError(f"the script {given!r} is not an absolute path")
        # Links are resolved first and the result is what runs: a link inside must not lead outside.
        script = Path(given).resolve()
        if not any(script.is_relative_to(allowed.resolve()) for allowed in self._scripts.allowed_paths):
            raise RejectedError(f"the script {given} is outside of scripts.allowed_paths")
        extensions = self._scripts.allowed_extensions
        if extensions and script.suffix not in extensions:
            raise RejectedError(f"the extension of {given} is not in scripts.allowed_extensions")
        if not script.is_file():
            raise NotStartedError(f"the script {given} does not exist")
        return script

    def _runner(self, spec: ScriptCommand, script: Path, request: _Request) -> list[str]:
        if spec.interpreter is not None:
            return [self._find_allowed(spec.interpreter, request), str(script)]
        if os.access(script, os.X_OK):
            _check_shebang(script)
            return [str(script)]
        interpreter = _INTERPRETER_BY_SUFFIX.get(script.suffix)
        if interpreter is None:
            raise NotStartedError(f"permission denied: {script} is not executable")
        return [find_program(interpreter, request.search_path), str(script)]

    def _inline_interpreter(self, spec: ScriptCommand, content: str, request: _Request) -> list[str]:
        if spec.interpreter is not None:
            return [self._find_allowed(spec.interpreter, request)]
        first_line = content.partition("\n")[0]
        words = first_line[2:].split() if first_line.startswith("#!") else ["sh"]
        if words and PurePath(words[0]).name == "env":
            words = words[1:]
        if not words or words[0].startswith("-"):
            raise NotStartedError(f"the first line of the script names no interpreter: {first_line[:80]!r}")
        return [self._find_allowed(words[0], request), *words[1:]]

    def service_query(self, name: str, fields: Iterable[str]) -> Program:
        """The program that asks systemd about a service.

        Raises:
            RejectedError: that is not the name of a service.
            NotStartedError: this host has no systemctl.
        """
        return _systemctl("show", name, f"--property={','.join(fields)}")

    def _resolve_service_control(self, spec: ServiceControlCommand) -> Program:
        if not self._is_service_control_on:
            raise RejectedError("service control is switched off: native_commands.service_control is false")
        return _systemctl(spec.action, spec.service_name)

    def _as_user(
        self, argv: list[str], request: _Request, script: str | None = None, script_path: Path | None = None
    ) -> Program:
        user = request.run_as_user
        if user is not None:
            argv = [*_sudo(user, request.env), *argv]
        return Program(
            argv,
            request.env,
            request.working_dir,
            script=script,
            script_path=script_path,
            is_script_stdin=script is not None and user is not None,
            run_as_user=user,
        )


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


def _check_executable(path: str, *, is_other_user: bool) -> None:
    try:
        mode = Path(path).stat().st_mode
    except PermissionError:
        if is_other_user:  # Only sudo can tell.
            return
        raise NotStartedError(f"permission denied: {path} cannot be reached") from None
    except OSError as error:
        raise NotStartedError(f"the program {path} does not exist ({error.strerror})") from None
    if stat.S_ISDIR(mode):
        raise NotStartedError(f"{path} is a folder, not a program")
    if not (mode & 0o111 if is_other_user else os.access(path, os.X_OK)):
        raise NotStartedError(f"permission denied: {path} is not executable")
    _check_shebang(Path(path))


def _check_shebang(script: Path) -> None:
    """A script whose interpreter is missing fails in exec with "no such file", as if it were missing itself."""
    try:
        with script.open("rb") as file:
            line = file.readline(256)
    except OSError:
        return  # Executable but not readable: a binary as good as any.
    words = os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []
    if words and not os.access(words[0], os.X_OK):
        raise NotStartedError(f"the interpreter {words[0]} that {script} asks for does not exist")


def _systemctl(verb: str, service: str, *options: str) -> Program:
    if not _SERVICE_NAME.fullmatch(service):
        raise RejectedError(f"{service[:80]!r} is not the name of a service")
    path = _own_path()
    return Program([find_program("systemctl", path), verb, *options, service], {"PATH": path})


def _sudo(user: str, env: dict[str, str]) -> list[str]:
    sudo = shutil.which("sudo", path=_own_path())
    if sudo is None:
        raise NotStartedError(f"running as {user!r} needs sudo, which is not installed")
    # Names only: values on a command line would show in every process list.
    kept = [f"--preserve-env={','.join(sorted(set(env) - {'PATH'}))}"] if set(env) - {"PATH"} else []
    return [sudo, "-n", "-u", user, *kept, "--"]


def _canonical(path: str) -> Path:
    normal = Path(os.path.normpath(path))
    return normal.parent.resolve() / normal.name


def _own_path() -> str:
    return os.environ.get("PATH", _DEFAULT_PATH)
