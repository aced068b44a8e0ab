"""Running as another user: who may be, and the one command that sudo lets the agent use for it.

sudo is the gate, by one fixed rule (packaging/sudoers.d/opsmap-agent): the agent may start `run-as`, and nothing else,
as a member of the group opsmap-runas, and nobody else. `identity` of the configuration narrows that down. Without the
rule, or the helper, a command is refused before anything begins.
"""

from __future__ import annotations

import dataclasses
import grp
import json
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

from opsmap_agent.commands.refusals import NotStartedError, RejectedError
from opsmap_agent.configuration import ProcessLimits, RunAs
from opsmap_agent.rules.environment import DEFAULT_PATH
from opsmap_agent.rules.limits import wanted_limits
from opsmap_agent.rules.program import Program

HELPER = "/usr/lib/opsmap-agent/run-as"
_SUDO_PATH = "/usr/bin:/usr/sbin:/bin:/sbin:/usr/local/bin"
_ASKED_EVERY_S = 60.0
_SUDO_TIMEOUT_S = 10.0


class OtherUsers:
    def __init__(self, identity: RunAs, limits: ProcessLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._identity = identity
        self._limits = limits
        self._clock = clock
        self._granted: dict[str, float] = {}
        """Until when sudo need not be asked again about a user."""

    def check(self, user: str | None) -> str | None:
        """The user to switch to; None for the agent's own.

        Raises:
            RejectedError: the agent's configuration does not allow it.
            NotStartedError: there is no such user.
        """
        if user is None or user == pwd.getpwuid(os.geteuid()).pw_name:
            return None
        if user not in self._identity.allowed_runas_users and not self._is_in_allowed_group(user):
            raise RejectedError(
                f"running as {user[:80]!r} is not allowed by identity.allowed_runas_users or allowed_runas_groups"
            )
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            raise NotStartedError(f"the user {user!r} does not exist on this host") from None
        if entry.pw_uid == 0:
            raise RejectedError(f"{user!r} is root: nothing runs as root, whatever the configuration says")
        return user

    def switch(self, program: Program, user: str) -> Program:
        """The same program, to be started as `user`.

        The variables and the script travel by the standard input: on a command line every process list would show
        them. The command line itself stays readable, also for sudo's log.

        Raises:
            NotStartedError: sudo, its rule for the agent, or the helper is not there.
        """
        sudo = self._granted_by_sudo(user)
        order = {
            "env": program.env,
            "working_dir": program.working_dir,
            "limits": wanted_limits(self._limits),
            "nice": self._limits.nice,
            "checked": [dataclasses.astuple(file) for file in program.checked],
            "has_input": program.input is not None,
        }
        return dataclasses.replace(
            program,
            argv=[*_as_user(sudo, user), "run", *program.argv],
            env={"PATH": DEFAULT_PATH},
            working_dir="/",
            input=json.dumps(order).encode("ascii") + b"\n" + (program.input or b""),
            checked=(),
            run_as_user=user,
        )

    def _is_in_allowed_group(self, user: str) -> bool:
        if not self._identity.allowed_runas_groups:
            return False
        try:
            groups = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
        except KeyError:
            return False
        return any(_group_id(name) in groups for name in self._identity.allowed_runas_groups)

    def _granted_by_sudo(self, user: str) -> str:
        """The path of sudo, once that has said yes to the helper for this user."""
        sudo = shutil.which("sudo", path=_SUDO_PATH)
        if sudo is None:
            raise NotStartedError(f"running as {user!r} needs sudo, which is not installed")
        if not os.access(HELPER, os.X_OK):
            raise NotStartedError(f"running as {user!r} needs {HELPER}, which is not installed")
        if self._granted.get(user, float("-inf")) <= self._clock():
            _ask_sudo(sudo, user)
            self._granted[user] = self._clock() + _ASKED_EVERY_S
        return sudo


def signal_group_of(user: str, group: int, number: signal.Signals) -> bool:
    """Signals the processes of a group that are that user's. Blocking. Whether it was done.

    The agent itself may not; the kernel lets it end only the sudo that leads such a group, which would leave the
    command behind without anybody to tell of its end.
    """
    sudo = shutil.which("sudo", path=_SUDO_PATH)
    if sudo is None:
        return False
    name = number.name.removeprefix("SIG")
    argv = [*_as_user(sudo, user), "signal", name, str(group)]
    try:
        answer = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SUDO_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def _as_user(sudo: str, user: str) -> list[str]:
    return [sudo, "-n", "-u", user, "--", HELPER]


def _ask_sudo(sudo: str, user: str) -> None:
    """Raises NotStartedError if sudo would not start the helper, or would ask for a password."""
    try:
        answer = subprocess.run(
            [sudo, "-n", "-l", "-u", user, "--", HELPER, "run", "/bin/true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SUDO_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotStartedError(f"running as {user!r}: sudo gives no answer ({error})") from None
    if answer.returncode != 0:
        reason = answer.stderr.decode("utf-8", "replace").strip().splitlines()
        raise NotStartedError(
            f"sudo does not let the agent run commands as {user!r}: is that user in the group opsmap-runas, and the "
            f"rule of the package in /etc/sudoers.d? ({reason[0][:200] if reason else 'sudo gave no reason'})"
        )


def _group_id(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
