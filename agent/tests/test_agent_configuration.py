"""`agent.yaml`: what loads, what is refused, and the command that checks it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opsmap_agent import cli
from opsmap_agent.configuration import Configuration
from opsmap_daemon.configuration import ConfigurationError, load

if TYPE_CHECKING:
    from conftest import Pki

EXAMPLE = Path(__file__).parent / "golden" / "agent.yaml"
MINIMAL = """
gateway: {url: "wss://gateway:8443"}
tls: {cert_file: a.crt, key_file: a.key, ca_file: ca.crt}
"""


def faults_of(path: Path, text: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load(path, Configuration)
    return caught.value.faults


def test_reference_example_loads_unchanged() -> None:
    configuration = load(EXAMPLE, Configuration)
    assert configuration.gateway.fallback_urls == [
        "wss://gateway-prod-2.internal:8443",
        "wss://gateway-prod-3.internal:8443",
    ]
    assert configuration.network.bind_interface == "eth1"
    assert configuration.scripts.allowed_extensions == [".sh", ".bash", ".py", ".pl"]
    assert configuration.identity.allowed_runas_users == ["oracle", "postgres", "tomcat", "nginx"]
    assert configuration.detached_execution.log_dir == Path("/var/log/opsmap/detached")
    assert configuration.watchdog.pid_file == Path("/var/run/opsmap/agent.pid")


def test_gateway_and_certificates_are_enough(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(MINIMAL)
    configuration = load(path, Configuration)
    assert configuration.scripts.allowed_paths == []
    assert configuration.tls.cert_file == tmp_path / "a.crt"


def test_faults_name_line_key_and_expectation(tmp_path: Path) -> None:
    text = MINIMAL + 'network:\n  bind_port: "x"\nscripts:\n  max_output_bytes: 99999999\n  allowed_path: []\n'
    assert faults_of(tmp_path / "agent.yaml", text) == [
        "agent.yaml:5: network.bind_port: expected an integer, found 'x'",
        "agent.yaml:7: scripts.max_output_bytes: expected from 1024 to 1048576, found '99999999'",
        "agent.yaml:8: scripts.allowed_path: unknown key (did you mean 'allowed_paths'?)",
    ]


def test_server_verification_cannot_be_switched_off(tmp_path: Path) -> None:
    text = MINIMAL.replace("ca.crt", "ca.crt, verify_server: false")
    (fault,) = faults_of(tmp_path / "agent.yaml", text)
    assert "verify_server cannot be switched off" in fault


def test_check_config_looks_at_certificates_too(tmp_path: Path, pki: Pki, capsys: pytest.CaptureFixture[str]) -> None:
    leaf = pki.agent("srv-1")
    text = f"""
gateway: {{url: "wss://gateway:8443"}}
tls: {{cert_file: "{leaf.cert}", key_file: "{leaf.key}", ca_file: "{pki.gateway_ca.ca}",
  backend_ca_file: "{pki.backend_ca.ca}"}}
"""
    path = tmp_path / "agent.yaml"
    path.write_text(text)
    assert cli.main(["check-config", "--config", str(path)]) == 0
    assert "fine" in capsys.readouterr().out
    path.write_text(text + "agent: {id: srv-2}\n")
    assert cli.main(["check-config", "--config", str(path)]) == cli.EXIT_CONFIGURATION
    assert "is the certificate of srv-1, but agent.id is srv-2" in capsys.readouterr().err


def test_run_with_a_missing_file_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.yaml"
    assert cli.main(["run", "--config", str(missing)]) == cli.EXIT_CONFIGURATION
    assert capsys.readouterr().err == f"{missing}: cannot be read: No such file or directory\n"


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main([option])
    assert exited.value.code == 0
    assert "opsmap-agent" in capsys.readouterr().out
