"""Enrolment tokens: made by people, kept as hashes, good for so many first certificates."""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from datetime import timedelta
from http import HTTPStatus

from cryptography.hazmat.primitives.serialization import Encoding
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.exceptions import PkiError
from apps.gateways.models import EnrolmentToken, Gateway
from apps.gateways.pki.authorities import read_root
from opsmap.lib.problems import ProblemError
from opsmap_protocol.enums import PeerRole
from opsmap_trust.enrolment_tokens import PREFIX, EnrolmentTokenText

MAX_USES = 10_000
MAX_LIFE = timedelta(days=90)
_SHOWN_OF_SECRET = 6
_PATTERN = re.compile(r"[A-Za-z0-9._*?-]{1,127}", re.ASCII)


class InvalidEnrolmentTokenError(ProblemError):
    """A token that nobody could use, or that would be good for too much; the message says what is wrong."""

    code = "invalid_enrolment_token"
    status = HTTPStatus.BAD_REQUEST


@transaction.atomic
def create_enrolment_token(
    *,
    organization_id: uuid.UUID,
    role: PeerRole,
    actor: Actor,
    description: str = "",
    name_pattern: str = "*",
    gateway: Gateway | None = None,
    zone: str = "",
    may_replace: bool = False,
    max_uses: int = 1,
    life: timedelta = timedelta(days=1),
) -> tuple[EnrolmentToken, str]:
    """A new token and its text, which nobody can read again: only its hash is kept.

    Raises:
        InvalidEnrolmentTokenError: it cannot be as asked for, or this installation has no root certificate.
    """
    _check(organization_id, role, name_pattern, gateway, max_uses, life)
    try:
        root = read_root(settings.PKI_DIR / "ca")
    except PkiError as error:
        raise InvalidEnrolmentTokenError(f"Nobody can be enrolled: {error}") from None
    text = EnrolmentTokenText(secrets.token_bytes(32), hashlib.sha256(root.public_bytes(Encoding.DER)).digest())
    token = EnrolmentToken.objects.create(
        organization_id=organization_id,
        role=role,
        description=description[:200],
        prefix=str(text)[: len(PREFIX) + _SHOWN_OF_SECRET],
        digest=text.digest,
        name_pattern=name_pattern,
        gateway=gateway,
        zone=zone[:80],
        may_replace=may_replace,
        max_uses=max_uses,
        created_by=actor.as_json(),
        expires_at=timezone.now() + life,
    )
    record_event(
        "enrolment_token.created",
        actor=actor,
        organization_id=organization_id,
        target=describe_target(token),
        details={
            "role": str(role),
            "namePattern": name_pattern,
            "gateway": gateway.gateway_id if gateway else None,
            "mayReplace": may_replace,
            "maxUses": max_uses,
            "expiresAt": token.expires_at.isoformat(),
        },
    )
    return token, str(text)


@transaction.atomic
def revoke_enrolment_token(*, token: EnrolmentToken, actor: Actor) -> None:
    """It serves no more. Doing it twice is doing it once; `token` knows it from here on."""
    now = timezone.now()
    if EnrolmentToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=now):
        record_event(
            "enrolment_token.revoked",
            actor=actor,
            organization_id=token.organization_id,
            target=describe_target(token),
            details={"useCount": token.use_count},
        )
    token.refresh_from_db(fields=["revoked_at", "use_count"])


def describe_target(token: EnrolmentToken) -> dict[str, str]:
    """For the trail: never the token itself."""
    return {"type": "enrolmentToken", "id": str(token.pk), "prefix": token.prefix}


def _check(
    organization_id: uuid.UUID,
    role: PeerRole,
    name_pattern: str,
    gateway: Gateway | None,
    max_uses: int,
    life: timedelta,
) -> None:
    if role not in {PeerRole.GATEWAY, PeerRole.AGENT}:
        raise InvalidEnrolmentTokenError("An enrolment token is for gateways or for agents.")
    if not _PATTERN.fullmatch(name_pattern):
        raise InvalidEnrolmentTokenError("A name pattern has 1 to 127 letters, digits, '.', '_', '-', '*' and '?'.")
    if gateway is not None and gateway.organization_id != organization_id:
        raise InvalidEnrolmentTokenError("The gateway is unknown.")
    if not 1 <= max_uses <= MAX_USES:
        raise InvalidEnrolmentTokenError(f"A token serves 1 to {MAX_USES} times.")
    if not timedelta(0) < life <= MAX_LIFE:
        raise InvalidEnrolmentTokenError(f"A token lives at most {MAX_LIFE.days} days.")
