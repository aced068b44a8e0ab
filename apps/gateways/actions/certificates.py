"""Certificates of gateways and agents: issued and recorded together, or recorded when they are shown first."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from django.conf import settings

from apps.gateways.models import Certificate, EnrolmentToken
from apps.gateways.pki import fingerprint, issue
from apps.gateways.pki.authorities import read_authority
from apps.gateways.pki.files import PublicKey
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import Identity
from opsmap_trust.certificates import decode_certificate, encode_certificate


@dataclass(frozen=True, slots=True)
class Issued:
    """A new certificate and its chain: DER in base64, its own first."""

    row: Certificate
    chain: list[str]


def issue_certificate(
    *, identity: Identity, hosts: Iterable[str], public_key: PublicKey, token: EnrolmentToken | None = None
) -> Issued:
    """The next certificate of a gateway or agent, recorded in the caller's transaction.

    Raises:
        PkiError: its authority cannot be read.
    """
    authority = read_authority(settings.PKI_DIR / "ca", identity.role)
    made = issue(authority, public_key, uri=identity.uri, hosts=hosts, life=settings.CERTIFICATE_LIFE)
    row = _as_row(identity, made)
    row.enrolment_token = token
    row.save(force_insert=True)
    return Issued(row, [encode_certificate(made), encode_certificate(authority.certificate)])


def record_certificate(identity: Identity, certificate: x509.Certificate) -> None:
    """A certificate that was made or shown, and that our authorities issued. Known ones stay as they are."""
    Certificate.objects.bulk_create([_as_row(identity, certificate)], ignore_conflicts=True)


def record_shown(organization_id: uuid.UUID, shown: Mapping[str, Sequence[str]]) -> None:
    """Agents have come, and shown these: by agent id, fingerprint and DER in base64, verified by the caller.

    Most are known. The others were issued elsewhere, or before there were records.
    """
    prints = [print_ for print_, _ in shown.values()]
    known = set(Certificate.objects.filter(fingerprint__in=prints).values_list("fingerprint", flat=True))
    rows = [
        _as_row(Identity(str(organization_id), PeerRole.AGENT, name), decode_certificate(encoded))
        for name, (print_, encoded) in sorted(shown.items())
        if print_ not in known
    ]
    if rows:
        Certificate.objects.bulk_create(rows, ignore_conflicts=True)


def _as_row(identity: Identity, certificate: x509.Certificate) -> Certificate:
    return Certificate(
        organization_id=identity.organization_id,
        role=identity.role,
        name=identity.name,
        fingerprint=fingerprint(certificate),
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )
