"""The written configuration: plain YAML that the programs accept, with nothing but paths below the state folder."""

import json
from pathlib import Path

from ruamel.yaml import YAML

from deploy.embedded.configuration import (
    AGENTS,
    agent_configuration,
    gateway_configuration,
    to_yaml,
    write_configuration,
)
from deploy.embedded.state import StateFolder

PORTS = {"web": 8000, "link": 9443, "gateway": 8443, "door": 8444}


def test_it_reads_back_as_it_was_meant(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / 'with "quotes" and : colon')
    for value in (gateway_configuration(state, PORTS), agent_configuration(state, PORTS, AGENTS[0])):
        read = YAML(typ="safe", pure=True).load(to_yaml(value))
        assert json.dumps(read) == json.dumps(value)


def test_each_agent_has_its_own_identity_and_folders(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    write_configuration(state, PORTS)
    texts = {agent.id: state.agent_configuration(agent.id).read_text(encoding="utf-8") for agent in AGENTS}
    assert set(texts) == {"srv-data-01", "srv-app-01"}
    for name, text in texts.items():
        assert f"pki/leaf/agent-{name}.crt" in text
        assert f"agents/{name}/detached" in text
        assert "wss://127.0.0.1:8443" in text
    assert state.gateway_configuration.stat().st_mode & 0o777 == 0o600
