"""`opsmap-agent uninstall`: keys first, only what the agent made, nothing behind anybody's back."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opsmap_agent import cli
from opsmap_agent.jobs.folder import JobFolder
from opsmap_agent.upkeep import uninstall
from opsmap_agent.upkeep.instance import single_instance

if TYPE_CHECKING:
    from conftest import Pki


@pytest.fixture
def file(tmp_path: Path, pki: Pki) -> Path:
    """The configuration of an agent that has run here."""
    leaf = pki.agent("srv-1")
    certs, state, logs = tmp_path / "certs", tmp_path / "state", tmp_path / "logs"
    for folder in (certs, state, logs / "detached" / "job_1"):
        folder.mkdir(parents=True)
    (certs / "agent.key").write_bytes(leaf.key.read_bytes())
    (certs / "agent.crt").write_bytes(leaf.cert.read_bytes())
    for name in ("ca.crt", "backend-ca.crt", "root-ca.crt"):
        (certs / name).write_bytes(pki.gateway_ca.ca.read_bytes())
    for name in ("journal.sqlite3", "journal.sqlite3-wal", "status.json", "agent.lock", "journal.damaged-1"):
        (state / name).touch()
    for name in ("agent.log", "agent.log.1.gz", "other.log", "detached/job_1/output.log"):
        (logs / name).touch()
    path = tmp_path / "agent.yaml"
    path.write_text(
        """
gateway: {url: "wss://gateway:8443"}
tls: {cert_file: certs/agent.crt, key_file: certs/agent.key, ca_file: certs/ca.crt,
  backend_ca_file: certs/backend-ca.crt, root_ca_file: certs/root-ca.crt}
detached_execution: {log_dir: logs/detached}
buffer: {path: state}
logging: {file: logs/agent.log}
"""
    )
    return path


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def run(file: Path, *options: str) -> int:
    return cli.main(["uninstall", "--config", str(file), *options])


def test_everything_of_the_agent_goes_and_nothing_else(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(file, "--yes") == 0
    assert left(tmp_path) == ["agent.yaml", "logs/other.log"]
    assert not (tmp_path / "state").exists()
    assert "In OpsMap, revoke this agent" in capsys.readouterr().out
    assert run(file, "--yes") == 0, "a second time there is nothing to do"


def test_logs_can_be_kept(file: Path, tmp_path: Path) -> None:
    assert run(file, "--yes", "--keep-logs") == 0
    assert "logs/detached/job_1/output.log" in left(tmp_path)
    assert "certs/agent.key" not in left(tmp_path)


def test_key_is_overwritten_also_behind_a_link(file: Path, tmp_path: Path) -> None:
    key, elsewhere = tmp_path / "certs" / "agent.key", tmp_path / "elsewhere.key"
    key.rename(elsewhere)
    (tmp_path / "copy").hardlink_to(elsewhere)
    key.symlink_to(elsewhere)
    assert run(file, "--yes") == 0
    assert not elsewhere.exists()
    content = (tmp_path / "copy").read_bytes()
    assert content
    assert set(content) == {0}


def test_authorities_of_a_gateway_on_the_same_host_stay(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gateway.yaml").write_text(f"backend_connection: {{tls: {{ca_file: {tmp_path}/certs/backend-ca.crt}}}}")
    assert run(file, "--yes") == 0
    assert "certs/backend-ca.crt" in left(tmp_path)
    assert "certs/ca.crt" not in left(tmp_path)
    assert "the gateway of this host uses it too" in capsys.readouterr().out


def test_running_agent_is_not_uninstalled(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = left(tmp_path)
    with single_instance(tmp_path / "state"):
        assert run(file, "--yes", "--force") == cli.EXIT_FAILURE
    assert "the agent is running: stop it first" in capsys.readouterr().err
    assert left(tmp_path) == before


def test_live_jobs_need_force(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = JobFolder(tmp_path / "logs" / "detached" / "job_1").take_lock()
    assert lock is not None
    try:
        assert run(file, "--yes") == cli.EXIT_FAILURE
        assert "1 detached processes still run (job_1)" in capsys.readouterr().err
        assert (tmp_path / "certs" / "agent.key").exists()
        assert run(file, "--yes", "--force") == 0
    finally:
        os.close(lock)


@pytest.mark.parametrize(("answer", "is_removed"), [("yes\n", True), ("y\n", False), ("", False)])
def test_somebody_has_to_agree(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, is_removed: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert run(file) == (0 if is_removed else cli.EXIT_FAILURE)
    assert (tmp_path / "certs" / "agent.key").exists() is not is_removed


def test_nobody_to_ask_means_no(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    assert run(file) == cli.EXIT_FAILURE
    assert (tmp_path / "certs" / "agent.key").exists()


def test_what_cannot_be_removed_is_told_and_the_rest_goes(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(uninstall, "_overwrite", no)
    assert run(file, "--yes") == cli.EXIT_FAILURE
    assert f"{tmp_path}/certs/agent.key cannot be removed: Operation not permitted" in capsys.readouterr().err
    assert not (tmp_path / "state" / "journal.sqlite3").exists()
