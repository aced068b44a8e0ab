"""The key that the backend seals with: renewed in time, rotated on demand, never lost on the way."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError

from apps.audit.models import AuditEvent
from apps.gateways.actions.authorities import rotate_signing_key
from apps.gateways.exceptions import PkiError
from apps.gateways.pki import ensure_authorities, renew_signer
from apps.gateways.sealing import current_signer
from apps.gateways.tests.factories import SYSTEM, failing_audit
from opsmap_protocol.enums import PeerRole

ORGANIZATION = "01a1fc23-2091-7470-abc6-e4e6f5e24e03"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    renew_signer(tmp_path / "leaf", ensure_authorities(tmp_path / "ca")[PeerRole.BACKEND])
    return tmp_path


def test_the_signer_is_read_once_and_again_after_a_change(db: None, folder: Path) -> None:
    first = current_signer(folder / "leaf")
    assert current_signer(folder / "leaf") is first
    key_id = rotate_signing_key(folder=folder, actor=SYSTEM)
    second = current_signer(folder / "leaf")
    assert second is not first
    assert len(second.certificates()) == 2
    assert second.certificates()[1] == first.certificates()[0], "what it sealed holds until it expires"
    [event] = AuditEvent.objects.filter(action="signing_key.rotated")
    assert event.details["formerKeyId"] != key_id


def test_a_rotation_without_its_audit_event_does_not_happen(db: None, folder: Path) -> None:
    before = current_signer(folder / "leaf")
    with failing_audit(), pytest.raises(IntegrityError):
        rotate_signing_key(folder=folder, actor=SYSTEM)
    assert current_signer(folder / "leaf") is before


def test_in_the_middle_of_a_rotation_the_former_key_serves(folder: Path) -> None:
    before = current_signer(folder / "leaf")
    other = folder / "other"
    renew_signer(other, ensure_authorities(folder / "ca")[PeerRole.BACKEND])
    (other / "signer.key").replace(folder / "leaf" / "signer.key")
    assert current_signer(folder / "leaf") is before, "the key does not fit its certificate at this moment"
    (other / "signer.crt").replace(folder / "leaf" / "signer.crt")
    assert current_signer(folder / "leaf") is not before


def test_a_renewal_that_was_cut_short_is_made_good(folder: Path) -> None:
    authority = ensure_authorities(folder / "ca")[PeerRole.BACKEND]
    other = folder / "other"
    renew_signer(other, authority)
    (other / "signer.key").replace(folder / "leaf" / "signer.key")
    assert renew_signer(folder / "leaf", authority)
    current_signer(folder / "leaf")


def test_the_key_is_renewed_at_two_thirds_of_its_life_and_expired_ones_go(folder: Path) -> None:
    authority = ensure_authorities(folder / "ca")[PeerRole.BACKEND]
    leaf = folder / "leaf"
    assert not renew_signer(leaf, authority)
    assert renew_signer(leaf, authority, is_forced=True, life=timedelta(0))
    assert current_signer(leaf).certificates() != []
    assert renew_signer(leaf, authority), "it has expired already"
    assert len(list(leaf.glob("signer-*.crt"))) == 1, "the first one, which is valid still"
    assert not renew_signer(leaf, authority)


@pytest.mark.parametrize("missing", ["signer.crt", "signer.key"])
def test_without_its_files_nothing_is_sealed(folder: Path, missing: str) -> None:
    (folder / "leaf" / missing).unlink()
    with pytest.raises(PkiError, match=missing.replace(".", r"\.")):
        current_signer(folder / "leaf")


def test_the_command_rotates_and_says_so(
    db: None, folder: Path, settings: object, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.PKI_DIR = folder  # type: ignore[attr-defined]
    call_command("rotate_signing_key")
    assert current_signer(folder / "leaf").sealer(uuid.UUID(ORGANIZATION)).key_id in capsys.readouterr().out
    settings.PKI_DIR = folder / "nothing"  # type: ignore[attr-defined]
    with pytest.raises(CommandError, match="no authorities"):
        call_command("rotate_signing_key")
