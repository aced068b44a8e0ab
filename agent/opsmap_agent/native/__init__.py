"""Native commands, one module a topic. Importing the package fills the registry."""

from opsmap_agent.native import discovery, files, folders, job_logs, network, process_kill, processes, services, system
from opsmap_agent.native.registry import (
    NativeCommand,
    NativeCommandError,
    NativeContext,
    Natives,
    native,
    native_commands,
    only_looks,
)

__all__ = [
    "NativeCommand",
    "NativeCommandError",
    "NativeContext",
    "Natives",
    "discovery",
    "files",
    "folders",
    "job_logs",
    "native",
    "native_commands",
    "network",
    "only_looks",
    "process_kill",
    "processes",
    "services",
    "system",
]
