"""Native commands, one module a topic. Importing the package fills the registry."""

from opsmap_agent.native import files, job_logs, network, processes, services, system
from opsmap_agent.native.registry import NativeCommandError, NativeContext, native_names, run_native

__all__ = [
    "NativeCommandError",
    "NativeContext",
    "files",
    "job_logs",
    "native_names",
    "network",
    "processes",
    "run_native",
    "services",
    "system",
]
