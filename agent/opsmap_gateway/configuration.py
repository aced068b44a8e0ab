"""The configuration file of a gateway; field names are its keys (`/etc/opsmap/gateway.yaml`, reference 3.2).

The docstring of each section says which keys have no effect, and why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from opsmap_daemon.backoff import Reconnect
from opsmap_daemon.configuration import (
    RULE,
    at_least,
    listen_address,
    loopback_address,
    not_empty,
    setting,
    websocket_url,
)
from opsmap_daemon.logs import Logging
from opsmap_daemon.tls import TlsVersion

_STATE = Path("/var/lib/opsmap/gateway")


def _metrics_path(value: str) -> str | None:
    is_fine = value.startswith("/") and value != "/healthz" and value.isascii() and value.isprintable()
    return None if is_fine and not set(value) & set("?# ") else "a path like /metrics, and not /healthz"


@dataclass(frozen=True, kw_only=True)
class GatewaySection:
    """Who this gateway is. `id` must be the name in its certificate. `datacenter` joins the labels."""

    id: str = setting(rule=not_empty)
    zone: str = setting(rule=not_empty)
    datacenter: str | None = None
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ServerTls:
    """`client_ca_file` holds the Agent CA alone: whoever it signed may knock. mTLS cannot be switched off."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path
    client_auth: Literal["required"] = "required"
    min_version: TlsVersion = "1.2"


@dataclass(frozen=True, kw_only=True)
class Enrolment:
    """The door for agents that have no certificate yet; an addition to the keys of the reference.

    A port of its own, so that the one for agents asks everybody for a certificate.
    """

    enabled: bool = False
    bind_address: str = setting("0.0.0.0:8444", rule=listen_address)


@dataclass(frozen=True, kw_only=True)
class AgentServer:
    bind_address: str = setting(rule=listen_address)
    tls: ServerTls
    max_connections: int = setting(1_000, rule=at_least(1))
    enrolment: Enrolment = field(default_factory=Enrolment)


@dataclass(frozen=True, kw_only=True)
class ClientTls:
    """`ca_file` holds the Backend CA alone. `verify_hostname` is an addition to the keys of the reference.

    So is `root_ca_file`, the root, written by `enroll`: new authorities from the backend count only below it. Without
    it the files of authorities change by hand alone.
    """

    cert_file: Path
    key_file: Path
    ca_file: Path
    root_ca_file: Path | None = None
    verify_hostname: bool = True
    min_version: TlsVersion = "1.2"


@dataclass(frozen=True, kw_only=True)
class BackendConnection:
    """`heartbeat_interval_secs` is the time between pings; a URL without a path means the link's own."""

    url: str = setting(rule=websocket_url)
    tls: ClientTls
    fallback_urls: list[str] = field(default_factory=list, metadata={RULE: websocket_url})
    reconnect: Reconnect = field(default_factory=Reconnect)
    heartbeat_interval_secs: int = setting(30, rule=at_least(1))


@dataclass(frozen=True, kw_only=True)
class Persistence:
    enabled: bool = True
    file: Path = _STATE / "registry.json"


@dataclass(frozen=True, kw_only=True)
class AgentRegistry:
    """A connection silent for `agent_timeout_secs` is dead; so long may a known agent take to come back.

    `cleanup_interval_secs`: how often agents that stay away are forgotten.
    """

    agent_timeout_secs: int = setting(90, rule=at_least(3))
    cleanup_interval_secs: int = setting(300, rule=at_least(1))
    persistence: Persistence = field(default_factory=Persistence)


@dataclass(frozen=True, kw_only=True)
class Routing:
    """`command_queue_size` is how many frames may wait for agents in all.

    Beyond it, commands for agents that are behind are refused; agents that keep up go on.

    No effect: `command_timeout_secs`, `retry_on_network_error` and `max_retries`. The backend alone times and
    repeats commands, because only it knows whether an agent has one.
    """

    command_timeout_secs: int = setting(300, rule=at_least(1))
    retry_on_network_error: bool = True
    max_retries: int = setting(3, rule=at_least(0))
    command_queue_size: int = setting(10_000, rule=at_least(1))


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """Heartbeats go to the backend once an interval; discovery results when there are so many, or after so long."""

    heartbeat_aggregation_secs: int = setting(10, rule=at_least(1))
    discovery_batch_size: int = setting(100, rule=at_least(1))
    discovery_batch_timeout_ms: int = setting(5_000, rule=at_least(1))


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """Where discovery results wait until the backend has committed them; beyond `max_size_mb` the oldest have to go.

    With `enabled: false` they wait in memory, 16 MB of them at most, and end with the process. Events are not
    buffered here: they wait in the agents' own journals.
    """

    enabled: bool = True
    path: Path = _STATE / "buffer"
    max_size_mb: int = setting(500, rule=at_least(1))


@dataclass(frozen=True, kw_only=True)
class HighAvailability:
    """No effect: the gateways of a zone are equals that need not know each other, in both modes."""

    enabled: bool = False
    mode: Literal["active-passive", "active-active"] = "active-active"
    peers: list[str] = field(default_factory=list, metadata={RULE: websocket_url})
    election_timeout_ms: int = setting(5_000, rule=at_least(1))


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Prometheus metrics at `path`, and `/healthz`, which answers 503 while the backend is away.

    Nobody has to say who they are there, so only an address of this machine is accepted.
    """

    enabled: bool = True
    bind_address: str = setting("127.0.0.1:9091", rule=loopback_address)
    path: str = setting("/metrics", rule=_metrics_path)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    gateway: GatewaySection
    agent_server: AgentServer
    backend_connection: BackendConnection
    agent_registry: AgentRegistry = field(default_factory=AgentRegistry)
    routing: Routing = field(default_factory=Routing)
    aggregation: Aggregation = field(default_factory=Aggregation)
    buffer: Buffer = field(default_factory=Buffer)
    ha: HighAvailability = field(default_factory=HighAvailability)
    metrics: Metrics = field(default_factory=Metrics)
    logging: Logging = field(default_factory=Logging)
