"""The configuration files of the gateway and the agents of this machine.

Only the keys that matter here are written, everything else keeps the defaults of the programs. The format is
YAML in a form so plain (mappings, lists, quoted strings) that writing it needs no library.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded.ports import DOOR, GATEWAY, HOST, LINK
from deploy.embedded.state import StateFolder, write_private

Value = str | int | float | bool | Sequence["Value"] | Mapping[str, "Value"]

HEADER = "# Written by `make run` at each start: changes are lost.\n"
# On one machine a lost peer is back within a second, and so are we.
RECONNECT: Mapping[str, Value] = {"initial_delay_ms": 200, "max_delay_ms": 2000, "multiplier": 2.0}
GATEWAY_ID = "gateway-local"
ZONE = "local"


@dataclass(frozen=True)
class AgentOfThisMachine:
    """One of the names under which this machine plays a host of its own."""

    id: str
    labels: Mapping[str, str]


AGENTS = (
    AgentOfThisMachine("srv-data-01", {"environment": "production", "role": "data", "datacenter": "local"}),
    AgentOfThisMachine("srv-app-01", {"environment": "production", "role": "application", "datacenter": "local"}),
)


def write_configuration(state: StateFolder, ports: Mapping[str, int]) -> None:
    """Write gateway.yaml and every agent.yaml for these ports."""
    write_private(state.gateway_configuration, HEADER + to_yaml(gateway_configuration(state, ports)))
    for agent in AGENTS:
        write_private(state.agent_configuration(agent.id), HEADER + to_yaml(agent_configuration(state, ports, agent)))


def gateway_configuration(state: StateFolder, ports: Mapping[str, int]) -> Mapping[str, Value]:
    folder = state.gateway_configuration.parent
    identity = _identity(state, GATEWAY_ID)
    return {
        "gateway": {"id": GATEWAY_ID, "zone": ZONE, "datacenter": "local", "labels": {"tier": "primary"}},
        "agent_server": {
            "bind_address": f"{HOST}:{ports[GATEWAY]}",
            "tls": {**identity, "client_ca_file": str(state.pki / "ca" / "agent.crt")},
            "enrolment": {"enabled": True, "bind_address": f"{HOST}:{ports[DOOR]}"},
        },
        "backend_connection": {
            "url": f"wss://{HOST}:{ports[LINK]}",
            "tls": {
                **identity,
                "ca_file": str(state.pki / "ca" / "backend.crt"),
                "root_ca_file": str(state.pki / "ca" / "root.crt"),
            },
            "reconnect": RECONNECT,
        },
        "agent_registry": {"persistence": {"enabled": True, "file": str(folder / "registry.json")}},
        "buffer": {"path": str(folder / "buffer")},
        "metrics": {"enabled": False},
        "logging": {"level": "info", "format": "text"},
    }


def agent_configuration(state: StateFolder, ports: Mapping[str, int], agent: AgentOfThisMachine) -> Mapping[str, Value]:
    folder = state.agent_configuration(agent.id).parent
    return {
        "agent": {"id": agent.id, "labels": agent.labels},
        "network": {"bind_address": HOST},
        "gateway": {"url": f"wss://{HOST}:{ports[GATEWAY]}", "reconnect": RECONNECT},
        "tls": {
            **_identity(state, f"agent-{agent.id}"),
            "ca_file": str(state.pki / "ca" / "gateway.crt"),
            "backend_ca_file": str(state.pki / "ca" / "backend.crt"),
        },
        "scripts": {"enabled": True},
        "detached_execution": {"log_dir": str(folder / "detached")},
        "buffer": {"path": str(folder / "buffer")},
        "watchdog": {"pid_file": str(folder / "agent.pid")},
        "metrics": {"enabled": False},
        "logging": {"level": "info", "format": "text"},
    }


def to_yaml(value: Mapping[str, Value]) -> str:
    """A mapping as a YAML document; scalars are written as JSON, of which YAML is a superset."""
    return "\n".join(_lines(value, "")) + "\n"


def _lines(value: Mapping[str, Value], indent: str) -> Iterator[str]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield f"{indent}{key}:"
            yield from _lines(item, indent + "  ")
        else:
            yield f"{indent}{key}: {json.dumps(item, ensure_ascii=False)}"


def _identity(state: StateFolder, name: str) -> Mapping[str, Value]:
    leaf: Path = state.pki / "leaf" / name
    return {"cert_file": f"{leaf}.crt", "key_file": f"{leaf}.key"}
