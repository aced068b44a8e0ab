#!/usr/lib/opsmap-agent/bin/python3 -IS
"""Runs one command of the OpsMap agent as the user whom sudo has changed to. Installed as /usr/lib/opsmap-agent/run-as.

    run-as run PROGRAM [ARGUMENT...]    becomes that program; the order and its input come by the standard input
    run-as signal TERM|KILL GROUP       signals those processes of a process group that are this user's

It has no rights of its own: sudo has taken them away before it begins, by the rule in sudoers.d/opsmap-agent. What it
adds is that the command begins clean: with exactly the variables of the order, no descriptor but the usual three, and
its resource limits.

The order is one line of JSON: env, working_dir, limits (of setrlimit, by name), nice, checked (path, device, inode and
change time of files that must still be what they were), has_input. What follows that line is the command's own
standard input. It does not import anything of the agent, which this user may not be able to read.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

_MAX_ORDER_BYTES = 4 * 1024 * 1024
_CANNOT_RUN, _NOT_FOUND = 126, 127


def main(arguments: list[str]) -> int:
    if 0 in (os.getuid(), os.geteuid()):
        return _complain("it does not run as root")
    if len(arguments) == 3 and arguments[0] == "signal":
        return _signal(arguments[1], arguments[2])
    if len(arguments) >= 2 and arguments[0] == "run" and arguments[1].startswith("/"):
        _run(arguments[1:])
    return _complain("usage: run-as run /PROGRAM [ARGUMENT...] | run-as signal TERM|KILL GROUP")


def _run(argv: list[str]) -> NoReturn:
    try:
        order, given = _read_order()
        for path, device, inode, changed_ns in order["checked"]:
            status = Path(path).stat()
            if (status.st_dev, status.st_ino, status.st_ctime_ns) != (device, inode, changed_ns):
                sys.exit(_complain(f"{path} was replaced after it was checked"))
        os.chdir(order["working_dir"])
        _become_input(given if order["has_input"] else None)
        _limit(order["limits"], order["nice"])
        os.closerange(3, 1024)
        # What Python ignores would stay ignored in the program.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.execve(argv[0], argv, {**_own_variables(), **order["env"]})  # noqa: S606  just that is wanted
    except FileNotFoundError as error:
        sys.exit(_complain(f"{error.filename or argv[0]}: {error.strerror}", _NOT_FOUND))
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(_complain(f"{argv[0]} cannot be started: {error}"))


def _read_order() -> tuple[dict[str, Any], bytes]:
    with os.fdopen(0, "rb", closefd=False) as stdin:
        line = stdin.readline(_MAX_ORDER_BYTES)
        return json.loads(line), stdin.read()


def _own_variables() -> dict[str, str]:
    user = pwd.getpwuid(os.getuid())
    return {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name, "SHELL": user.pw_shell or "/bin/sh"}


def _limit(limits: dict[str, int], nice: int) -> None:
    for name, value in limits.items():
        kind = getattr(resource, "RLIMIT_" + name.upper())
        most = resource.getrlimit(kind)[1]
        wanted = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (wanted, wanted))
    if nice:
        os.nice(nice)


def _become_input(given: bytes | None) -> None:
    if given is None:
        descriptor = os.open(os.devnull, os.O_RDONLY)
    else:
        descriptor = os.memfd_create("opsmap-input", os.MFD_ALLOW_SEALING)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(given)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        os.lseek(descriptor, 0, os.SEEK_SET)
    os.dup2(descriptor, 0)


def _signal(name: str, group: str) -> int:
    numbers = {"TERM": signal.SIGTERM, "KILL": signal.SIGKILL}
    if name not in numbers or not group.isdigit() or int(group) <= 1:
        return _complain("it signals TERM or KILL to one process group")
    try:
        os.killpg(int(group), numbers[name])
    except ProcessLookupError:
        return 0
    except PermissionError:
        return _complain(f"no process of group {group} belongs to this user")
    return 0


def _complain(reason: str, code: int = _CANNOT_RUN) -> int:
    print("run-as: " + reason, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
