"""What this host lets the backend run: from a command to the program that will be started, or a clear refusal.

Everything here looks at the file system and may block; callers run it in a thread.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from opsmap_agent.commands.refusals import NotStartedError, RejectedError
from opsmap_agent.configuration import Configuration
from opsmap_agent.host.systemd import survivable_unit
from opsmap_agent.rules.environment import environment, own_path, refuse_loader_variables
from opsmap_agent.rules.limits import limiting
from opsmap_agent.rules.program import Program
from opsmap_agent.rules.programs import AllowedPrograms, find_program
from opsmap_agent.rules.runas import OtherUsers
from opsmap_agent.rules.scripts import AllowedScripts
from opsmap_protocol.specs import ExecuteCommand, ScriptCommand, ServiceControlCommand

Runnable = ExecuteCommand | ScriptCommand | ServiceControlCommand


class Policy:
    """The rules of one configuration."""

    def __init__(self, configuration: Configuration) -> None:
        self._scripts = configuration.scripts
        self._is_service_control_on = configuration.native_commands.service_control
        self._programs = AllowedPrograms(configuration.scripts)
        self._script_files = AllowedScripts(configuration.scripts, self._programs)
        self._others = OtherUsers(configuration.identity, configuration.scripts.limits)

    def resolve(self, spec: Runnable) -> Program:
        """The program behind a command.

        Raises:
            RejectedError: the configuration forbids it; the message names the key that decides.
            NotStartedError: it could not begin on this host.
        """
        if isinstance(spec, ServiceControlCommand):
            return self._resolve_service_control(spec)
        if not self._scripts.enabled:
            raise RejectedError("this agent runs no scripts and programs: scripts.enabled is false")
        user = self._others.check(spec.run_as_user)
        env = self._environment(spec, user)
        folder = _working_directory(spec.working_dir, is_other_user=user is not None)
        if isinstance(spec, ExecuteCommand):
            binary, checked = self._programs.find(spec.path, env["PATH"], is_other_user=user is not None)
            program = Program([binary, *spec.args], env, folder, checked=checked)
        else:
            way = self._script_files.resolve(spec, env["PATH"])
            program = Program(way.argv, env, folder, way.input, way.checked)
        if user is not None:
            return self._others.switch(program, user)
        return dataclasses.replace(program, argv=[*limiting(self._scripts.limits), *program.argv])

    def _environment(self, spec: ExecuteCommand | ScriptCommand, user: str | None) -> dict[str, str]:
        texts = [*spec.args, *spec.env, *spec.env.values(), spec.working_dir or ""]
        if any("\0" in text for text in texts) or any("=" in name or not name for name in spec.env):
            raise RejectedError("an argument, variable or folder holds a NUL, or a variable has no proper name")
        if user is not None:
            refuse_loader_variables(spec.env, "for another user")
        if self._programs.are_restricted:
            refuse_loader_variables(spec.env, "because scripts.allowed_commands restricts what may run")
        return environment(spec.env, is_other_user=user is not None)

    def _resolve_service_control(self, spec: ServiceControlCommand) -> Program:
        if not self._is_service_control_on:
            raise RejectedError("service control is switched off: native_commands.service_control is false")
        return _systemctl(spec.action, survivable_unit(spec.service_name))


def _working_directory(given: str | None, *, is_other_user: bool) -> str:
    folder = given or "/"
    if not folder.startswith("/"):
        raise NotStartedError(f"the working directory {folder!r} is not an absolute path")
    try:
        is_folder = Path(folder).is_dir()
    except PermissionError:
        is_folder = is_other_user  # Only the other user can tell.
    if not is_folder:
        raise NotStartedError(f"the working directory {folder} does not exist")
    if not is_other_user and not os.access(folder, os.X_OK):
        raise NotStartedError(f"permission denied: the working directory {folder} cannot be entered")
    return folder


def _systemctl(verb: str, unit: str) -> Program:
    path = own_path()
    return Program([find_program("systemctl", path), verb, unit], {"PATH": path})
