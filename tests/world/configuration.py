"""The configuration files of a world's gateways and agents: those of `make run`, for any number of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.embedded.configuration import AgentOfThisMachine, agent_configuration, gateway_configuration, to_yaml
from deploy.embedded.ports import DOOR, GATEWAY, HOST, LINK
from deploy.embedded.state import StateFolder, write_private

Settings = Mapping[str, Any]
"""Keys of a configuration file, nested as in the file."""


def write_gateway(
    state: StateFolder, gateway_id: str, *, ports: Mapping[str, int], link_url: str, settings: Settings
) -> Path:
    """Write the file of one gateway, `settings` on top of the usual ones; where it is."""
    folder = state.path / "gateways" / gateway_id
    leaf = state.pki / "leaf" / gateway_id
    identity = {"cert_file": f"{leaf}.crt", "key_file": f"{leaf}.key"}
    usual = gateway_configuration(state, {**ports, GATEWAY: ports[gateway_id], DOOR: 0})
    own: Settings = {
        "gateway": {"id": gateway_id},
        "agent_server": {"tls": identity, "enrolment": {"enabled": False}},
        "backend_connection": {"url": link_url, "tls": identity},
        "agent_registry": {"persistence": {"file": str(folder / "registry.json")}},
        "buffer": {"path": str(folder / "buffer")},
    }
    return _write(folder / "gateway.yaml", merged(merged(usual, own), settings))


def write_agent(
    state: StateFolder,
    agent_id: str,
    *,
    labels: Mapping[str, str],
    gateway_urls: Sequence[str],
    journals: Path,
    settings: Settings,
) -> Path:
    """Write the file of one agent, whose journal is in `journals`; where it is."""
    usual = agent_configuration(state, {GATEWAY: 0}, AgentOfThisMachine(agent_id, labels))
    first, *others = gateway_urls
    own: Settings = {
        "gateway": {"url": first, "fallback_urls": others},
        # They are all this machine: hundreds would look around on it at once, each in a process of its own.
        "discovery": {"on_startup": False},
        "buffer": {"path": str(journals / agent_id)},
    }
    return _write(state.agent_configuration(agent_id), merged(merged(usual, own), settings))


def default_link_url(ports: Mapping[str, int]) -> str:
    return f"wss://{HOST}:{ports[LINK]}"


def default_gateway_url(ports: Mapping[str, int], gateway_id: str) -> str:
    return f"wss://{HOST}:{ports[gateway_id]}"


def merged(base: Settings, top: Settings) -> dict[str, Any]:
    """Both, `top` where they differ; mappings are merged, lists replaced."""
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        is_nested = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(below, value) if is_nested else value
    return result


def _write(path: Path, settings: Settings) -> Path:
    write_private(path, to_yaml(settings))
    return path
