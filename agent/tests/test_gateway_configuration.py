"""The gateway's configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsmap_daemon.configuration import ConfigurationError, load
from opsmap_gateway.configuration import Configuration

REFERENCE = Path(__file__).parent / "golden" / "gateway.yaml"
LOOPBACK = "an address of this machine alone, like 127.0.0.1:9091"
MINIMAL = """\
gateway: {id: gw-1, zone: production}
agent_server:
  bind_address: "[::]:8443"
  tls: {cert_file: gateway.crt, key_file: gateway.key, client_ca_file: agent-ca.crt}
backend_connection:
  url: wss://backend.example:9443
  tls: {cert_file: gateway.crt, key_file: gateway.key, ca_file: backend-ca.crt}
"""


def faults_of(folder: Path, text: str) -> list[str]:
    file = folder / "gateway.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load(file, Configuration)
    return caught.value.faults


def test_example_of_the_reference_loads_unchanged() -> None:
    """Every key of the reference (3.2) with its value there."""
    configuration = load(REFERENCE, Configuration)
    assert configuration.gateway.id == "gateway-prod-paris-01"
    assert configuration.gateway.labels == {"region": "eu-west", "tier": "primary"}
    assert configuration.agent_server.bind_address == "10.2.0.1:8443"
    assert configuration.agent_server.tls.client_ca_file == Path("/etc/opsmap/certs/agent-ca.crt")
    assert configuration.backend_connection.fallback_urls == ["wss://opsmap-backend-2.management.internal:9443"]
    assert configuration.backend_connection.reconnect.max_delay_s == 30
    assert configuration.agent_registry.persistence.file == Path("/var/lib/opsmap/gateway/registry.json")
    assert configuration.routing.command_queue_size == 10_000
    assert configuration.aggregation.heartbeat_aggregation_secs == 10
    assert configuration.ha.mode == "active-passive"
    assert configuration.logging.format == "json"


def test_defaults_are_those_of_the_reference(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(MINIMAL)
    minimal, reference = load(tmp_path / "gateway.yaml", Configuration), load(REFERENCE, Configuration)
    assert minimal.agent_registry == reference.agent_registry
    assert minimal.routing == reference.routing
    assert minimal.aggregation == reference.aggregation
    assert minimal.buffer == reference.buffer
    assert minimal.metrics == reference.metrics
    assert minimal.agent_server.max_connections == reference.agent_server.max_connections
    assert minimal.backend_connection.reconnect == reference.backend_connection.reconnect


def test_paths_are_taken_from_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(MINIMAL)
    assert load(tmp_path / "gateway.yaml", Configuration).agent_server.tls.cert_file == tmp_path / "gateway.crt"


def test_every_fault_is_told_with_its_line(tmp_path: Path) -> None:
    text = """\
gateway:
  zone: ""
agent_server:
  bind_adress: 10.2.0.1:8443
  max_connections: 0
  tls: {cert_file: a, key_file: b, client_ca_file: c, client_auth: optional}
backend_connection:
  url: http://backend
  fallback_urls: [wss://other:9443, ftp://third]
  tls: []
  reconnect: {initial_delay_ms: 2000, max_delay_ms: 1000}
routing:
  max_retries: three
metrics: {bind_address: "0.0.0.0:9091", path: /healthz}
"""
    assert faults_of(tmp_path, text) == [
        "gateway.yaml:1: gateway.id: is required",
        "gateway.yaml:2: gateway.zone: expected a text that is not empty, found nothing",
        "gateway.yaml:3: agent_server.bind_address: is required",
        "gateway.yaml:4: agent_server.bind_adress: unknown key (did you mean 'bind_address'?)",
        "gateway.yaml:5: agent_server.max_connections: expected at least 1, found '0'",
        "gateway.yaml:6: agent_server.tls.client_auth: expected one of required, found 'optional'",
        "gateway.yaml:8: backend_connection.url: expected a URL like wss://host:port, found 'http://backend'",
        "gateway.yaml:9: backend_connection.fallback_urls[1]: expected a URL like wss://host:port, found 'ftp://third'",
        "gateway.yaml:10: backend_connection.tls: expected keys with values, found a list",
        "gateway.yaml:10: backend_connection.tls.cert_file: is required",
        "gateway.yaml:10: backend_connection.tls.key_file: is required",
        "gateway.yaml:10: backend_connection.tls.ca_file: is required",
        "gateway.yaml:11: backend_connection.reconnect: max_delay_ms is smaller than initial_delay_ms",
        "gateway.yaml:13: routing.max_retries: expected an integer, found 'three'",
        f"gateway.yaml:14: metrics.bind_address: expected {LOOPBACK}, found '0.0.0.0:9091'",
        "gateway.yaml:14: metrics.path: expected a path like /metrics, and not /healthz, found '/healthz'",
    ]
