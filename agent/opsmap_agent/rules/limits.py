"""Resource limits of what commands start: `scripts.limits`, set by prlimit(1) and nice(1) between fork and exec."""

from __future__ import annotations

import resource
import shutil

from opsmap_agent.commands.refusals import NotStartedError
from opsmap_agent.configuration import ProcessLimits
from opsmap_agent.rules.environment import DEFAULT_PATH, own_path

_MIB = 1024 * 1024


def wanted_limits(limits: ProcessLimits) -> dict[str, int]:
    """By the names of prlimit's options; memory in bytes, CPU time in seconds. Limits that are off are not there."""
    wanted = {
        "as": limits.max_memory_mb * _MIB,
        "nproc": limits.max_processes,
        "nofile": limits.max_open_files,
        "cpu": limits.max_cpu_secs,
    }
    return {name: value for name, value in wanted.items() if value}


def limiting(limits: ProcessLimits) -> list[str]:
    """The words to put before a command line, each an absolute path or an option; none if nothing is limited.

    Raises:
        NotStartedError: this host lacks the tool.
    """
    words = []
    if wanted := wanted_limits(limits):
        words += [_tool("prlimit"), *(f"--{name}={_within_ours(name, value)}" for name, value in wanted.items())]
    if limits.nice:
        words += [_tool("nice"), "-n", str(limits.nice)]
    return words


def _within_ours(name: str, value: int) -> int:
    """Nobody but root may have more than the agent itself."""
    most = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
    return value if most == resource.RLIM_INFINITY else min(value, most)


def _tool(name: str) -> str:
    found = shutil.which(name, path=f"{DEFAULT_PATH}:{own_path()}")
    if found is None:
        raise NotStartedError(f"scripts.limits needs {name} (util-linux or coreutils), which is not installed")
    return found
