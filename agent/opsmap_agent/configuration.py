"""The keys of `agent.yaml`, with their defaults and limits.

Keys are those of the reference, so that its example loads unchanged. Accepted and validated, but without
effect yet: `discovery`, `metrics`, `buffer.enabled`, `buffer.max_size_mb`, `buffer.buffer_events`,
`watchdog.enabled`, `watchdog.timeout_secs`, `tls.max_version`, `identity.allowed_runas_groups`, and the
switches of native commands that this version does not have.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from opsmap_daemon.backoff import Reconnect
from opsmap_daemon.configuration import at_least, between, listen_address, not_empty, setting, websocket_url
from opsmap_daemon.logs import Logging
from opsmap_daemon.tls import TlsVersion

_AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}", re.ASCII)
MAX_OUTPUT_BYTES = 1024 * 1024
"""More output than this would not fit a frame of the protocol."""


def _agent_id(value: str) -> str | None:
    is_fine = value == "" or _AGENT_ID.fullmatch(value)
    return None if is_fine else "letters, digits, '.', '_' and '-', at most 127"


@dataclass(frozen=True)
class AgentSection:
    """`id` is the one in the certificate; empty means just that, anything else must agree with it."""

    id: str = setting("", rule=_agent_id)
    labels: dict[str, str] = field(default_factory=dict)
    version: str | None = None
    """For people reading the file; the agent reports the version it is."""


@dataclass(frozen=True)
class Network:
    """Where connections to the gateway leave from, on hosts with several addresses."""

    bind_interface: str | None = None
    bind_address: str | None = None
    bind_port: int = setting(0, rule=between(0, 65535))

    def __post_init__(self) -> None:
        if self.bind_interface and self.bind_address:
            raise ValueError("bind_interface and bind_address exclude each other")


MAX_SESSIONS = 2


@dataclass(frozen=True)
class Gateway:
    """`sessions`, an addition to the keys of the reference: with how many of the URLs to be connected at once.

    With 1 the URLs are tried in their order. With 2 they are equals, and each agent has its own order of them, so that
    the gateways share the load.
    """

    url: str = setting(rule=websocket_url)
    fallback_urls: list[str] = setting(default_factory=list, rule=websocket_url)  # noqa: RUF009  it makes a field
    sessions: int = setting(MAX_SESSIONS, rule=between(1, MAX_SESSIONS))
    reconnect: Reconnect = field(default_factory=Reconnect)
    heartbeat_interval_secs: float = setting(30.0, rule=between(0.1, 3600))
    heartbeat_timeout_secs: float = setting(10.0, rule=between(0.1, 3600))


@dataclass(frozen=True)
class Tls:
    """`ca_file` holds the Gateway CA, which the servers it connects to are verified by.

    `backend_ca_file`, an addition to the keys of the reference, holds the Backend CA: nothing is run that a key below
    it did not sign. The agent's own key (Ed25519) also signs what it reports.
    """

    cert_file: Path
    key_file: Path
    ca_file: Path
    backend_ca_file: Path = Path("/etc/opsmap/certs/backend-ca.crt")
    root_ca_file: Path | None = None
    """The root, written by `enroll`, also an addition: new authorities from the backend count only below it. Without
    it the other two files change by hand alone."""
    verify_server: bool = True
    verify_hostname: bool = True
    min_version: TlsVersion = "1.2"
    max_version: TlsVersion | None = None

    def __post_init__(self) -> None:
        if not self.verify_server:
            raise ValueError("verify_server cannot be switched off: an agent obeys whoever it is connected to")


@dataclass(frozen=True)
class NativeCommands:
    os_info: bool = True
    disk_space: bool = True
    memory_usage: bool = True
    cpu_load: bool = True
    uptime: bool = True
    network_interfaces: bool = True
    port_check: bool = True
    http_check: bool = True
    dns_lookup: bool = True
    process_list: bool = True
    """Also switches `process_find`."""
    process_info: bool = True
    service_status: bool = True
    service_control: bool = True
    file_exists: bool = True
    file_read: bool = True
    file_checksum: bool = True
    file_stat: bool = True
    discover_services: bool = True
    discover_processes: bool = True
    discover_ports: bool = True
    discover_docker: bool = True
    discover_kubernetes: bool = True


@dataclass(frozen=True)
class ProcessLimits:
    """Resource limits (setrlimit) of every process that a command starts; 0 leaves a limit as the agent has it."""

    max_memory_mb: int = setting(0, rule=at_least(0))
    max_processes: int = setting(0, rule=at_least(0))
    max_open_files: int = setting(0, rule=at_least(0))
    max_cpu_secs: int = setting(0, rule=at_least(0))
    nice: int = setting(0, rule=between(0, 19))


@dataclass(frozen=True)
class Scripts:
    """What may be executed. `enabled: false` leaves only native commands and service control.

    A script outside of `allowed_paths` is refused; none listed means no script files at all. An empty
    `allowed_extensions` or `allowed_commands` does not restrict.
    """

    enabled: bool = True
    allowed_paths: list[Path] = field(default_factory=list)
    allowed_extensions: list[str] = field(default_factory=lambda: [".sh", ".bash", ".py", ".pl"])
    allowed_commands: list[str] = setting(default_factory=list, rule=not_empty)  # noqa: RUF009  it makes a field
    default_timeout_secs: int = setting(300, rule=at_least(1))
    """For a sync command that brings no timeout of its own."""
    max_timeout_secs: int = setting(3600, rule=at_least(1))
    max_output_bytes: int = setting(MAX_OUTPUT_BYTES, rule=between(1024, MAX_OUTPUT_BYTES))
    limits: ProcessLimits = field(default_factory=ProcessLimits)
    """An addition to the keys of the reference."""


@dataclass(frozen=True)
class RunAs:
    """`run_as` is looked at when the agent starts: running as somebody else is a warning in the log."""

    run_as: str | None = None
    allowed_runas_users: list[str] = field(default_factory=list)
    allowed_runas_groups: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DetachedExecution:
    """`log_dir` holds one folder a job; folders of ended jobs are removed after `log_retention_days`."""

    log_dir: Path = Path("/var/log/opsmap/detached")
    log_retention_days: int = setting(7, rule=at_least(1))
    cleanup_interval_hours: float = setting(24.0, rule=at_least(0.01))
    max_jobs: int = setting(1_000, rule=between(1, 10_000))
    """How many detached processes may be alive at once. This key and the next are additions to the reference."""
    max_log_mb: int = setting(100, rule=at_least(1))
    """The newest so much of each log is kept; what is older goes while the process runs on."""


@dataclass(frozen=True)
class Checks:
    """Where health checks, completion checks and native commands may connect to; an addition to the reference.

    Hosts as names (`*` and `?`), addresses or networks. Empty: anywhere but where clouds keep the credentials of their
    machines (link-local addresses and their like), which only an entry of their own allows.
    """

    allowed_hosts: list[str] = setting(default_factory=list, rule=not_empty)  # noqa: RUF009  it makes a field


@dataclass(frozen=True)
class Buffer:
    """`path` holds the journal. It cannot be switched off: it is what makes a command run once."""

    enabled: bool = True
    path: Path = Path("/var/lib/opsmap/buffer")
    max_size_mb: int = setting(100, rule=at_least(1))
    buffer_events: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DiscoverKinds:
    services: bool = True
    processes: bool = True
    ports: bool = True
    docker: bool = True
    filesystems: bool = True


@dataclass(frozen=True)
class Discovery:
    on_startup: bool = True
    periodic_interval_secs: int = setting(3600, rule=at_least(1))
    discover: DiscoverKinds = field(default_factory=DiscoverKinds)


@dataclass(frozen=True)
class Watchdog:
    """`pid_file` is written at start and removed at an orderly end."""

    enabled: bool = True
    timeout_secs: int = setting(60, rule=at_least(1))
    pid_file: Path | None = None


@dataclass(frozen=True)
class Metrics:
    enabled: bool = False
    bind: str = setting("127.0.0.1:9100", rule=listen_address)


@dataclass(frozen=True)
class Configuration:
    gateway: Gateway
    tls: Tls
    agent: AgentSection = field(default_factory=AgentSection)
    network: Network = field(default_factory=Network)
    native_commands: NativeCommands = field(default_factory=NativeCommands)
    scripts: Scripts = field(default_factory=Scripts)
    identity: RunAs = field(default_factory=RunAs)
    detached_execution: DetachedExecution = field(default_factory=DetachedExecution)
    checks: Checks = field(default_factory=Checks)
    buffer: Buffer = field(default_factory=Buffer)
    discovery: Discovery = field(default_factory=Discovery)
    watchdog: Watchdog = field(default_factory=Watchdog)
    logging: Logging = field(default_factory=Logging)
    metrics: Metrics = field(default_factory=Metrics)
