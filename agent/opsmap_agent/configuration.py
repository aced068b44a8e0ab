"""The keys of `agent.yaml`, with their defaults and limits.

Keys are those of the reference, so that its example loads unchanged. The docstring of a section says which of its keys
have no effect, and why; docs/agent-configuration.md is made from them.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

from opsmap_daemon.backoff import Reconnect
from opsmap_daemon.configuration import at_least, between, loopback_address, not_empty, setting, websocket_url
from opsmap_daemon.logs import Logging
from opsmap_daemon.tls import TlsVersion
from opsmap_protocol.messages import CommandOutput, EventBody, HealthChanged

_HOST_NAME = re.compile(r"[A-Za-z0-9*?._-]*[A-Za-z*?][A-Za-z0-9*?._-]*", re.ASCII)
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
    """0 lets the system choose, as it should: a fixed port may be taken for a minute after a connection has ended.
    Without an address it is for gateways with an IPv4 address."""

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
        if self.max_version is not None and self.max_version < self.min_version:
            raise ValueError("max_version is smaller than min_version")


@dataclass(frozen=True)
class NativeCommands:
    """What is off is refused. `docs/native-commands.md` lists what each key switches.

    `process_find`, `process_kill`, `service_list` and `dir_list` are additions to the keys of the reference. Who
    switches off `process_list` or `service_status` also switches off the command that would tell the same.
    """

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
    process_find: bool = True
    process_info: bool = True
    process_kill: bool = False
    """Off unless asked for: nothing else here ends what the backend did not start."""
    service_status: bool = True
    service_list: bool = True
    service_control: bool = True
    file_exists: bool = True
    file_read: bool = True
    file_checksum: bool = True
    file_stat: bool = True
    dir_list: bool = True
    discover_services: bool = True
    discover_processes: bool = True
    discover_ports: bool = True
    """Switches `listening_ports`."""
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
    """`run_as` is looked at when the agent starts: running as somebody else is a warning in the log.

    A command may run as one of `allowed_runas_users`, or as a member of one of `allowed_runas_groups`, if sudo's rule
    for the agent has that user too. Never as root.
    """

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


def _host_entry(value: str) -> str | None:
    """A network with a misspelled mask must not pass for a name that no host has."""
    expected = "a name like *.example.com, an address, or a network like 10.0.0.0/8"
    try:
        ipaddress.ip_network(value.strip("[]"), strict=False)
    except ValueError:
        return None if _HOST_NAME.fullmatch(value) else expected
    return None


@dataclass(frozen=True)
class Checks:
    """Where health checks, completion checks and native commands may connect to; an addition to the reference.

    Hosts as names (`*` and `?`), addresses or networks. Empty: anywhere but where clouds keep the credentials of their
    machines (link-local addresses and their like), which only an entry of their own allows. Once there is a list,
    localhost has to be in it too.
    """

    allowed_hosts: list[str] = setting(default_factory=list, rule=_host_entry)  # noqa: RUF009  it makes a field


BUFFERED = ("discovery_result", "metric", "log")


def _buffered(value: str) -> str | None:
    return None if value in BUFFERED else f"one of {', '.join(BUFFERED)}"


@dataclass(frozen=True)
class Buffer:
    """`path` holds the journal, which is kept below `max_size_mb`.

    When it is full, health changes that newer ones have overtaken go first, then output of commands, then the other
    health changes; the backend is told how many. What commands did is always kept until the backend has it: rather, new
    commands are refused. Commands themselves never wait at an agent.
    """

    enabled: bool = True
    """`false`: while no backend hears, nothing of `buffer_events` is kept, whatever that lists. The journal itself
    cannot be switched off: it is what makes a command run once."""
    path: Path = Path("/var/lib/opsmap/buffer")
    max_size_mb: int = setting(100, rule=at_least(1))
    buffer_events: list[str] = setting(default_factory=lambda: list(BUFFERED), rule=_buffered)  # noqa: RUF009
    """What is kept while no backend hears: discoveries, changes of health ("metric"; without it only how things are
    when the backend is back), and output of commands beyond what their results hold ("log")."""

    def keeps(self, kind: str) -> bool:
        """Whether such an event waits for the backend."""
        return self.enabled and kind in self.buffer_events

    def keeps_event(self, body: EventBody) -> bool:
        if isinstance(body, HealthChanged):
            return self.keeps("metric")
        return not isinstance(body, CommandOutput) or self.keeps("log")


@dataclass(frozen=True)
class DiscoverKinds:
    services: bool = True
    processes: bool = True
    ports: bool = True
    """Listening ports."""
    connections: bool = True
    """Who talks to whom. This key and the two without a word in the reference, `kubernetes` and `technologies`, are
    additions to it."""
    docker: bool = True
    """Containers, also of Podman."""
    kubernetes: bool = True
    filesystems: bool = True
    technologies: bool = True


@dataclass(frozen=True)
class Discovery:
    on_startup: bool = True
    periodic_interval_secs: int = setting(3600, rule=at_least(1))
    discover: DiscoverKinds = field(default_factory=DiscoverKinds)


@dataclass(frozen=True)
class Watchdog:
    """Starts an agent anew whose event loop has stood still for `timeout_secs`; its jobs are not touched.

    After three times within an hour it ends the agent instead, for the service manager to decide.
    """

    enabled: bool = True
    timeout_secs: int = setting(60, rule=at_least(1))
    pid_file: Path | None = None
    """Written at start and removed at an orderly end."""


@dataclass(frozen=True)
class Metrics:
    """Prometheus metrics at `/metrics`, and `/healthz`, which answers 503 while there is trouble.

    Nobody has to say who they are there, so only an address of this machine is accepted.
    """

    enabled: bool = False
    bind: str = setting("127.0.0.1:9100", rule=loopback_address)


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

    def __post_init__(self) -> None:
        if self.network.bind_port and self.gateway.sessions > 1 and self.gateway.fallback_urls:
            raise ValueError(
                "network.bind_port is one port for several connections: set it to 0, or gateway.sessions to 1"
            )
