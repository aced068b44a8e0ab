"""What a command is: the four kinds of SPEC 4.5 and the two execution modes of SPEC 4.1."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from opsmap_protocol.checks import CompletionCheck
from opsmap_protocol.enums import ServiceAction


@dataclass(frozen=True, slots=True)
class NativeCommand:
    """A function of the agent itself; no process is started."""

    type: ClassVar[str] = "native"
    name: str
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScriptCommand:
    """A script, given as text (`content`) or as a file on the host (`path`); exactly one of the two."""

    type: ClassVar[str] = "script"
    content: str | None = None
    path: str | None = None
    interpreter: str | None = None
    args: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    working_dir: str | None = None
    run_as_user: str | None = None


@dataclass(frozen=True, slots=True)
class ExecuteCommand:
    """A program and its arguments. Never goes through a shell."""

    type: ClassVar[str] = "execute"
    path: str
    args: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    working_dir: str | None = None
    run_as_user: str | None = None
    detached: bool = True


@dataclass(frozen=True, slots=True)
class ServiceControlCommand:
    type: ClassVar[str] = "service_control"
    service_name: str
    action: ServiceAction


CommandSpec = NativeCommand | ScriptCommand | ExecuteCommand | ServiceControlCommand


@dataclass(frozen=True, slots=True)
class SyncMode:
    """The answer is the result; the agent gives up after `timeout_ms`."""

    type: ClassVar[str] = "sync"
    timeout_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class AsyncMode:
    """Launched detached; `completion_check` decides when it is done. Without a check, exit code 0 decides."""

    type: ClassVar[str] = "async"
    completion_check: CompletionCheck | None = None
    poll_interval_ms: int = 2_000
    max_wait_ms: int = 300_000


ExecutionMode = SyncMode | AsyncMode
