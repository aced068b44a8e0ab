"""Questions an agent can answer about its host: completion checks (SPEC 4.2) and health checks (SPEC 5.3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from opsmap_protocol.enums import ServiceState

CHECK_TIMEOUT_S = 10.0
"""A completion check answers within this time or counts as failed (SPEC 4.2)."""


@dataclass(frozen=True, slots=True)
class ProcessRunning:
    type: ClassVar[str] = "process_running"
    process_name: str
    listening_port: int | None = None


@dataclass(frozen=True, slots=True)
class ProcessStopped:
    type: ClassVar[str] = "process_stopped"
    process_name: str


@dataclass(frozen=True, slots=True)
class ServiceStatusIs:
    type: ClassVar[str] = "service_status"
    service_name: str
    expected_status: ServiceState


@dataclass(frozen=True, slots=True)
class HttpHealthy:
    type: ClassVar[str] = "http_healthy"
    url: str
    expected_status: int = 200
    body_contains: str | None = None


@dataclass(frozen=True, slots=True)
class FileExists:
    type: ClassVar[str] = "file_exists"
    path: str
    should_exist: bool = True


@dataclass(frozen=True, slots=True)
class PortOpen:
    type: ClassVar[str] = "port_open"
    port: int
    host: str = "localhost"
    should_be_open: bool = True


@dataclass(frozen=True, slots=True)
class CustomCommand:
    type: ClassVar[str] = "custom_command"
    command: str
    args: list[str] = field(default_factory=list)
    expected_exit_code: int = 0


@dataclass(frozen=True, slots=True)
class AllOf:
    type: ClassVar[str] = "all"
    checks: list[CompletionCheck]


@dataclass(frozen=True, slots=True)
class AnyOf:
    type: ClassVar[str] = "any"
    checks: list[CompletionCheck]


CompletionCheck = (
    ProcessRunning
    | ProcessStopped
    | ServiceStatusIs
    | HttpHealthy
    | FileExists
    | PortOpen
    | CustomCommand
    | AllOf
    | AnyOf
)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The answer to a completion check. `details` of `all` and `any` hold the `sub_checks`."""

    check_type: str
    passed: bool
    details: dict[str, Any]
    checked_at: datetime


@dataclass(frozen=True, slots=True)
class HttpProbe:
    type: ClassVar[str] = "http"
    url: str
    expected_status: int = 200
    body_contains: str | None = None


@dataclass(frozen=True, slots=True)
class TcpProbe:
    type: ClassVar[str] = "tcp"
    port: int
    host: str = "localhost"


@dataclass(frozen=True, slots=True)
class ProcessProbe:
    type: ClassVar[str] = "process"
    process_name: str


@dataclass(frozen=True, slots=True)
class ServiceProbe:
    type: ClassVar[str] = "service"
    service_name: str


@dataclass(frozen=True, slots=True)
class CommandProbe:
    type: ClassVar[str] = "command"
    command: str
    args: list[str] = field(default_factory=list)
    expected_exit_code: int = 0


@dataclass(frozen=True, slots=True)
class FileProbe:
    type: ClassVar[str] = "file"
    path: str
    should_exist: bool = True


Probe = HttpProbe | TcpProbe | ProcessProbe | ServiceProbe | CommandProbe | FileProbe


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A probe that the agent repeats. `check_id` is the backend's; agents only echo it."""

    check_id: str
    probe: Probe
    interval_ms: int = 30_000
    timeout_ms: int = 10_000
    failure_threshold: int = 3
