"""`opsmap-agent check-config`: what the agent would find when it starts."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsmap_agent import cli
from opsmap_agent.configuration import Configuration, Network, RunAs, Scripts, Watchdog
from opsmap_agent.host import clock_state
from opsmap_agent.upkeep import preflight
from opsmap_agent.upkeep.preflight import look_around
from opsmap_daemon.logs import Logging

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders to others")


@pytest.fixture
def configuration(agent_configuration: Configuration, monkeypatch: pytest.MonkeyPatch) -> Configuration:
    monkeypatch.setattr(clock_state, "is_synchronized", lambda: True)
    return agent_configuration


def test_host_as_it_should_be_has_no_faults(configuration: Configuration) -> None:
    findings = look_around(configuration)
    assert findings.faults == []
    assert findings.warnings == ["tls.root_ca_file: none, so authorities that are renewed have to be brought by hand"]


def test_looking_changes_nothing(configuration: Configuration, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    look_around(configuration)
    assert sorted(tmp_path.rglob("*")) == before


def test_all_folders_that_cannot_be_used_are_told_at_once(configuration: Configuration, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    changed = replace(
        configuration,
        buffer=replace(configuration.buffer, path=tmp_path / "file"),
        watchdog=Watchdog(pid_file=tmp_path / "file" / "agent.pid"),
        logging=Logging(file=tmp_path / "file" / "agent.log"),
    )
    assert look_around(changed).faults == [
        f"buffer.path: {tmp_path}/file is not a folder",
        f"watchdog.pid_file: {tmp_path}/file is not a folder",
        f"logging.file: {tmp_path}/file is not a folder",
    ]


@as_root
def test_rights_are_those_of_the_account_that_the_agent_will_have(configuration: Configuration, tmp_path: Path) -> None:
    changed = replace(configuration, identity=RunAs(run_as="nobody"))
    faults = look_around(changed).faults
    log_dir = configuration.detached_execution.log_dir
    nearest = next(parent for parent in log_dir.parents if parent.exists())
    assert f"detached_execution.log_dir: {log_dir} is not there, and nobody cannot make it in {nearest}" in faults
    assert f"tls.key_file: nobody cannot read {configuration.tls.key_file}" in faults
    unknown = replace(configuration, identity=RunAs(run_as="no-such-user"))
    assert look_around(unknown).faults == ["identity.run_as: there is no user 'no-such-user' on this host"]


def test_key_that_everybody_can_read(configuration: Configuration, tmp_path: Path) -> None:
    key = tmp_path / "agent.key"
    key.write_bytes(configuration.tls.key_file.read_bytes())
    key.chmod(0o644)
    (fault,) = look_around(replace(configuration, tls=replace(configuration.tls, key_file=key))).faults
    assert fault == f"tls.key_file: everybody on this host can use {key}: chmod 600 it, and enrol the host anew"


def test_certificates_near_their_end_and_authorities_beyond_it(configuration: Configuration) -> None:
    later = datetime.now(UTC) + timedelta(hours=23)
    (own, *authorities) = [line for line in look_around(configuration, later).warnings if " ends in " in line]
    assert own.startswith(f"tls.cert_file: {configuration.tls.cert_file} ends in ")
    assert len(authorities) == 2
    gone = look_around(configuration, later + timedelta(days=2)).faults
    assert [fault.split(":")[0] for fault in gone] == ["tls.ca_file", "tls.backend_ca_file"]


def test_authority_that_is_none(configuration: Configuration, tmp_path: Path) -> None:
    root = tmp_path / "root.crt"
    root.write_text("no certificate")
    (fault,) = look_around(replace(configuration, tls=replace(configuration.tls, root_ca_file=root))).faults
    assert fault.startswith(f"tls.root_ca_file: {root}: not a file of CA certificates")


def test_script_folders_that_others_can_change(configuration: Configuration, tmp_path: Path) -> None:
    loose, missing = tmp_path / "loose", tmp_path / "missing"
    loose.mkdir()
    loose.chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "scripts")
    paths = [tmp_path / "scripts", loose, missing, tmp_path / "link"]
    findings = look_around(replace(configuration, scripts=Scripts(allowed_paths=paths)))
    assert findings.faults == [f"scripts.allowed_paths: {loose} is writable by its group or others"]
    assert f"scripts.allowed_paths: {missing} is not there" in findings.warnings
    assert f"scripts.allowed_paths: {tmp_path}/link is a link; name {tmp_path}/scripts" in findings.warnings


def test_other_users_without_sudo_or_helper(
    configuration: Configuration, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(preflight, "HELPER", str(tmp_path / "run-as"))
    identity = RunAs(allowed_runas_users=["no-such-user", "root"])
    findings = look_around(replace(configuration, identity=identity))
    assert findings.faults == [
        "identity: running commands as other users needs sudo, which is not installed",
        f"identity: running commands as other users needs {tmp_path}/run-as, which is not installed",
        "identity.allowed_runas_users: 'root' is root, and nothing is run as root",
    ]
    assert "identity.allowed_runas_users: there is no user 'no-such-user' on this host" in findings.warnings


def test_sudo_that_does_not_agree(
    configuration: Configuration, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A stand-in for sudo, which says no; the real one is asked in the tests of run-as."""
    for name, code in (("sudo", 1), ("run-as", 0)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(preflight, "HELPER", str(tmp_path / "run-as"))
    changed = replace(configuration, identity=RunAs(allowed_runas_users=["nobody"]))
    (fault,) = look_around(changed).faults
    assert f"sudo does not let {getpass.getuser()} run commands as 'nobody'" in fault
    (tmp_path / "sudo").write_text("#!/bin/sh\nexit 0\n")
    assert look_around(changed).faults == []


def test_addresses_that_this_host_does_not_have(configuration: Configuration) -> None:
    for network, line in (
        (Network(bind_address="192.0.2.1"), "network.bind_address: 192.0.2.1 is not an address of this host now"),
        (Network(bind_interface="no-such0"), "network.bind_interface: no-such0 has no address now"),
    ):
        assert line in look_around(replace(configuration, network=network)).warnings
    assert not [
        line
        for line in look_around(replace(configuration, network=Network(bind_address="127.0.0.1"))).warnings
        if "network" in line
    ]


def test_clock_that_cannot_be_right(configuration: Configuration, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = look_around(configuration, datetime(1970, 1, 1, tzinfo=UTC)).faults
    assert faults == ["this host's clock says 1970-01-01: every command will be refused"]
    monkeypatch.setattr(clock_state, "is_synchronized", lambda: False)
    assert "nothing keeps this host's clock right" in look_around(configuration).warnings[-1]


def test_kernel_is_asked_about_the_clock_and_nothing_is_set() -> None:
    before = time.time()
    assert clock_state.is_synchronized() in (True, False, None)
    assert abs(time.time() - before) < 60


WriteConfiguration = Callable[[str], Path]


def test_check_config_tells_faults_and_exits_78_and_warnings_exit_0(
    configuration: Configuration, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = configuration.tls
    text = f"""
gateway: {{url: "wss://gateway:8443"}}
tls: {{cert_file: "{files.cert_file}", key_file: "{files.key_file}", ca_file: "{files.ca_file}",
  backend_ca_file: "{files.backend_ca_file}"}}
detached_execution: {{log_dir: detached}}
buffer: {{path: buffer}}
"""
    path = tmp_path / "agent.yaml"
    path.write_text(text)
    assert cli.main(["check-config", "--config", str(path)]) == 0
    told = capsys.readouterr()
    assert told.out == f"{path}: the configuration and its certificates are fine, but see the 1 warning(s)\n"
    assert told.err.startswith("warning: tls.root_ca_file: none")
    path.write_text(text + "watchdog: {pid_file: agent.yaml/pid}\n")
    assert cli.main(["check-config", "--config", str(path)]) == cli.EXIT_CONFIGURATION
    assert f"watchdog.pid_file: {path} is not a folder\n" in capsys.readouterr().err
