"""`manage.py pki`: from nothing to a PKI whose root is away, and intermediates that follow each other."""

from __future__ import annotations

import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from django.core.management import CommandError, call_command
from django.db import IntegrityError

from apps.audit.models import AuditEvent
from apps.gateways import tasks
from apps.gateways.actions.development import ensure_development_certificates
from apps.gateways.models import Certificate
from apps.gateways.pki import ensure_authorities, ensure_leaf, fingerprint
from apps.gateways.pki.authorities import create_authorities, read_authority, read_succession, read_trusted
from apps.gateways.pki.files import read_certificate, write_key
from apps.gateways.pki.naming import common_name, hosts_of
from apps.gateways.pki.revocation_lists import read_revocation_list
from apps.gateways.sealing import current_signer
from apps.gateways.tests.factories import SYSTEM, failing_audit
from conftest import Cast
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import Identity

PASSPHRASE = "a-long-walk-in-the-rain"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Opening the root's key is slow on purpose, so it is made once."""
    folder = tmp_path_factory.mktemp("template")
    create_authorities(folder / "ca", PASSPHRASE)
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path, settings: Any, db: None) -> Path:
    """A PKI whose root key was taken offline, to `tmp_path`."""
    settings.PKI_DIR = tmp_path / "pki"
    shutil.copytree(template, settings.PKI_DIR)
    (settings.PKI_DIR / "ca" / "root.key").rename(tmp_path / "root.key")
    (tmp_path / "passphrase").write_text(f"{PASSPHRASE}\n")
    call_command("pki", "renew", verbosity=0)
    return tmp_path / "pki"


def pki(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    call_command("pki", *arguments)
    return capsys.readouterr().out


def rotate(folder: Path, role: str) -> None:
    place = folder.parent
    call_command("pki", "rotate", role, f"--root-key={place / 'root.key'}", f"--passphrase-file={place / 'passphrase'}")


def actions() -> list[str]:
    return list(AuditEvent.objects.order_by("id").values_list("action", flat=True))


def test_create_makes_a_whole_pki_with_a_root_key_that_openssl_opens_by_its_passphrase_alone(
    db: None, tmp_path: Path, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.PKI_DIR = tmp_path / "pki"
    (tmp_path / "passphrase").write_text(PASSPHRASE)
    said = pki("create", f"--passphrase-file={tmp_path / 'passphrase'}", capsys=capsys)
    key = settings.PKI_DIR / "ca" / "root.key"
    assert f"offline: move {key}" in said
    assert current_signer(settings.PKI_DIR / "leaf").certificates() != []
    assert actions() == ["pki.created"]
    for passphrase, is_opened in ((PASSPHRASE, True), ("something else", False)):
        command = ["openssl", "pkey", "-in", key, "-passin", f"pass:{passphrase}", "-noout"]
        assert (subprocess.run(command, capture_output=True).returncode == 0) is is_opened
    listing = subprocess.run(["openssl", "asn1parse", "-in", key], capture_output=True, text=True).stdout
    assert ":scrypt" in listing
    with pytest.raises(CommandError, match="made once"):
        pki("create", f"--passphrase-file={tmp_path / 'passphrase'}", capsys=capsys)


def test_create_refuses_a_passphrase_that_protects_nothing(db: None, tmp_path: Path, settings: Any) -> None:
    settings.PKI_DIR = tmp_path / "pki"
    (tmp_path / "passphrase").write_text("short")
    with pytest.raises(CommandError, match="at least 12 characters"):
        call_command("pki", "create", f"--passphrase-file={tmp_path / 'passphrase'}")
    assert not (tmp_path / "pki" / "ca").exists()
    assert actions() == []


def test_create_asks_for_the_passphrase_twice(
    db: None, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PKI_DIR = tmp_path / "pki"
    answers = iter([PASSPHRASE, "something else"])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))
    with pytest.raises(CommandError, match="differ"):
        call_command("pki", "create")


def test_status_names_every_certificate_and_finds_nothing_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = pki("status", capsys=capsys)
    for name in ("OpsMap Root CA", "OpsMap Backend CA", "OpsMap Gateway CA", "OpsMap Agent CA", "link server", "seals"):
        assert name in said
    assert "days left" in said
    assert "To be done" not in said


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("root.key", "The root's key lies here"),
        ("no intermediate", "agent.crt: No such file"),
        ("no key", "lacks the key of OpsMap Gateway CA"),
        ("no link certificate", "backend.crt: No such file"),
        ("old", "ends soon: `manage.py pki rotate agent`"),
        ("spent", "was not renewed: does the worker run"),
    ],
)
def test_status_says_what_is_to_be_done_and_ends_with_1(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fault: str, says: str
) -> None:
    match fault:
        case "root.key":
            (folder.parent / "root.key").rename(folder / "ca" / "root.key")
        case "no intermediate":
            (folder / "ca" / "agent.crt").unlink()
        case "no key":
            (folder / "ca" / "gateway.key").write_bytes((folder / "ca" / "agent.key").read_bytes())
        case "no link certificate":
            (folder / "leaf" / "backend.crt").unlink()
        case "old":
            monkeypatch.setattr("apps.gateways.pki.status.AUTHORITY_NOTICE_DAYS", 6 * 365)
        case "spent":
            monkeypatch.setattr("apps.gateways.pki.status._LEAF_NOTICE", 2)
    with pytest.raises(SystemExit) as ended:
        pki("status", capsys=capsys)
    assert ended.value.code == 1
    assert says in capsys.readouterr().out


def test_one_intermediate_follows_another_and_all_is_told(folder: Path) -> None:
    ca = folder / "ca"
    first = read_trusted(ca, PeerRole.AGENT)[0]
    rotate(folder, "agent")
    assert [common_name(each) for each in read_trusted(ca, PeerRole.AGENT)] == ["OpsMap Agent CA", "OpsMap Agent CA 2"]
    assert read_authority(ca, PeerRole.AGENT).certificate == first, "the present one goes on issuing"
    call_command("pki", "activate", "agent")
    present = read_succession(ca, PeerRole.AGENT)
    assert (common_name(present.issuing), present.former) == ("OpsMap Agent CA 2", (first,))
    assert read_authority(ca, PeerRole.AGENT).certificate == present.issuing
    call_command("pki", "retire", "agent")
    assert read_trusted(ca, PeerRole.AGENT) == [present.issuing]
    assert not (ca / "agent.key").exists()
    assert actions()[1:] == ["pki.authority_added", "pki.authority_activated", "pki.authority_retired"]
    rotate(folder, "agent")
    assert common_name(read_trusted(ca, PeerRole.AGENT)[1]) == "OpsMap Agent CA 3"


def test_steps_out_of_order_are_refused(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in (folder / "ca").iterdir()}
    with pytest.raises(CommandError, match="no next OpsMap Gateway CA"):
        call_command("pki", "activate", "gateway")
    with pytest.raises(CommandError, match="nothing to retire"):
        call_command("pki", "retire", "gateway")
    assert {path.name: path.read_bytes() for path in (folder / "ca").iterdir()} == before
    rotate(folder, "gateway")
    with pytest.raises(CommandError, match="waits to be activated"):
        rotate(folder, "gateway")


@pytest.mark.parametrize("fault", ["passphrase", "key", "file"])
def test_without_the_root_key_there_is_no_next_intermediate(folder: Path, tmp_path: Path, fault: str) -> None:
    match fault:
        case "passphrase":
            (tmp_path / "passphrase").write_text("something else")
        case "key":
            (tmp_path / "root.key").write_bytes((folder / "ca" / "agent.key").read_bytes())
        case "file":
            (tmp_path / "root.key").unlink()
    with pytest.raises(CommandError, match=r"wrong passphrase|not the key of this|No such file"):
        rotate(folder, "agent")
    assert len(read_trusted(folder / "ca", PeerRole.AGENT)) == 1
    assert "pki.authority_added" not in actions()


def test_a_branch_that_agents_verify_is_not_activated_before_they_know_it(folder: Path, cast: Cast) -> None:
    ensure_development_certificates(
        folder=folder, organization_id=cast.acme.pk, gateway_id="gw-1", agent_ids=["srv-1"], actor=SYSTEM
    )
    Certificate.objects.update(not_before="2020-01-01T00:00Z")
    rotate(folder, "gateway")
    with pytest.raises(CommandError, match="1 agents have not renewed"):
        call_command("pki", "activate", "gateway")
    call_command("pki", "activate", "gateway", "--force")


def test_the_link_server_and_the_signer_follow_a_new_backend_authority(folder: Path) -> None:
    before = {name: fingerprint(read_certificate(folder / "leaf" / f"{name}.crt")) for name in ("backend", "signer")}
    rotate(folder, "backend")
    call_command("pki", "activate", "backend")
    issuer = read_authority(folder / "ca", PeerRole.BACKEND)
    for name, former in before.items():
        now = read_certificate(folder / "leaf" / f"{name}.crt")
        assert fingerprint(now) != former
        assert issuer.has_issued(now)


def test_a_signer_of_a_former_authority_is_revoked_by_that(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stolen, issuer = read_certificate(folder / "leaf" / "signer.crt"), read_trusted(folder / "ca", PeerRole.BACKEND)[0]
    rotate(folder, "backend")
    call_command("pki", "activate", "backend")
    said = pki("revoke-signer", f"--key-id={fingerprint(stolen)[:12]}", capsys=capsys)
    assert fingerprint(stolen) in said
    listed = read_revocation_list(folder / "ca")
    assert listed is not None
    assert listed.is_signature_valid(issuer.public_key())
    assert listed.get_revoked_certificate_by_serial_number(stolen.serial_number) is not None
    assert len(current_signer(folder / "leaf").certificates()) == 1
    assert "1 signing keys revoked" in pki("status", capsys=capsys)
    with pytest.raises(CommandError, match="no signing key"):
        pki("revoke-signer", "--key-id=0000", capsys=capsys)


# Renewal by itself


def test_the_worker_renews_what_is_due_and_tells_it_once(folder: Path, settings: Any) -> None:
    first = read_certificate(folder / "leaf" / "backend.crt")
    tasks.renew_certificates()
    assert read_certificate(folder / "leaf" / "backend.crt") == first
    settings.LINK_HOSTS = ["link.example", "10.0.0.1"]
    tasks.renew_certificates()
    assert hosts_of(read_certificate(folder / "leaf" / "backend.crt")) == ["link.example", "10.0.0.1"]
    tasks.renew_certificates()
    assert actions() == ["pki.renewed", "pki.renewed"]
    assert AuditEvent.objects.latest("id").details == {"renewed": ["link"]}


def test_without_its_audit_event_nothing_is_renewed(folder: Path, settings: Any) -> None:
    settings.LINK_HOSTS = ["link.example"]
    first = read_certificate(folder / "leaf" / "backend.crt")
    with failing_audit(), pytest.raises(IntegrityError):
        tasks.renew_certificates()
    assert read_certificate(folder / "leaf" / "backend.crt") == first


def test_a_worker_without_a_pki_says_so_once(
    db: None, tmp_path: Path, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.PKI_DIR = tmp_path / "nothing"
    tasks.renew_certificates()
    tasks.renew_certificates()
    assert len([record for record in caplog.records if "cannot be renewed" in record.message]) == 1


# For a machine of one's own


def test_a_development_pki_can_be_rotated_with_the_passphrase_beside_its_root(
    db: None, tmp_path: Path, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.PKI_DIR = tmp_path / "pki"
    ca = settings.PKI_DIR / "ca"
    ensure_authorities(ca)
    passphrase = f"--passphrase-file={ca / 'root.passphrase'}"
    call_command("pki", "rotate", "agent", f"--root-key={ca / 'root.key'}", passphrase)
    call_command("pki", "renew")
    said = pki("status", capsys=capsys)
    assert "not for production" in said


def test_a_folder_of_before_goes_on_to_work(cast: Cast, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its root key was not encrypted, and nothing of it was recorded."""
    key = serialization.load_pem_private_key((folder.parent / "root.key").read_bytes(), PASSPHRASE.encode())
    write_key(folder / "ca" / "root.key", key)
    gateway = Identity(str(cast.acme.pk), PeerRole.GATEWAY, "gw-1")
    authority = read_authority(folder / "ca", PeerRole.GATEWAY)
    hosts = ["localhost", "127.0.0.1", "::1"]
    shown = ensure_leaf(folder / "leaf", "gw-1", authority, uri=gateway.uri, hosts=hosts, life=timedelta(days=365))
    ensure_development_certificates(
        folder=folder, organization_id=cast.acme.pk, gateway_id="gw-1", agent_ids=[], actor=SYSTEM
    )
    assert Certificate.objects.get().fingerprint == shown
    call_command("pki", "rotate", "agent", f"--root-key={folder / 'ca' / 'root.key'}")
    with pytest.raises(SystemExit):
        pki("status", capsys=capsys)
    assert "unencrypted" in capsys.readouterr().out
