"""Enrolment: the first certificate of a gateway or agent, for a token and a request signed by its own key.

Names come from the token's organization and from what is asked for; of the request only the key counts. A use of the
token is spent in the transaction that records the certificate: neither without the other.
"""

from __future__ import annotations

import logging
import re
import uuid
from dataclasses import dataclass
from fnmatch import fnmatchcase

from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.actions.certificates import Issued, issue_certificate
from apps.gateways.actions.enrolment_throttle import BY_ADDRESS, BY_GATEWAY
from apps.gateways.actions.enrolment_tokens import create_enrolment_token, describe_target, revoke_enrolment_token
from apps.gateways.actions.revocation import replace_former
from apps.gateways.exceptions import PkiError
from apps.gateways.models import Agent, Certificate, EnrolmentToken, Gateway
from apps.gateways.pki.files import PublicKey
from apps.gateways.pki.requests import RequestRefusedError, read_request
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import InvalidIdentityError
from opsmap_protocol.identity import Identity, parse_identity
from opsmap_trust.enrolment_tokens import EnrolmentTokenError, EnrolmentTokenText

__all__ = ["Enrolled", "EnrolmentRefusedError", "create_enrolment_token", "enroll", "revoke_enrolment_token"]

logger = logging.getLogger(__name__)

MAX_TOKEN_CHARACTERS = 200
MAX_HOSTS = 16
_HOST = re.compile(r"[A-Za-z0-9:]([A-Za-z0-9._:-]{0,251}[A-Za-z0-9:])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A certificate chain, the new one first, DER in base64, and whom its owner belongs to."""

    chain: list[str]
    organization_id: uuid.UUID


class EnrolmentRefusedError(Exception):
    """No certificate. `code` is stable, the message for people.

    Codes: token_unknown, token_spent, token_expired, token_revoked, wrong_role, wrong_name, wrong_gateway, name_taken,
    bad_request, too_many_refusals (then `wait_s` says how long), unavailable.
    """

    def __init__(self, code: str, message: str, *, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is asked for, in a shape that can be granted. `digest` is that of the token."""

    digest: str
    role: PeerRole
    name: str
    hosts: list[str]
    public_key: PublicKey
    gateway: Gateway | None
    address: str


def enroll(
    *,
    token: str,
    role: PeerRole,
    name: str,
    hostname: str,
    csr: str,
    gateway: Gateway | None = None,
    address: str = "",
) -> Enrolled:
    """The first certificate of a gateway, or of an agent that came to `gateway`. `address` is where it came from.

    `hostname` is where it may be a server; a gateway may name several, with commas between. A known name is refused
    unless it was revoked, or the token may replace it, which revokes its former certificates. Refusals are audited.

    Raises:
        EnrolmentRefusedError: no certificate, and no use of the token is spent.
    """
    places = [(BY_ADDRESS, f"{gateway.pk if gateway else ''} {address}")]
    if gateway is not None:
        places.append((BY_GATEWAY, str(gateway.pk)))
    wait_s = max(throttle.wait_s(place) for throttle, place in places)
    if wait_s:
        reason = f"Too many refusals came before; try again in {wait_s:.0f} s."
        raise EnrolmentRefusedError("too_many_refusals", reason, wait_s=wait_s)
    try:
        wish = _read_wish(token, role, name, hostname, csr, gateway, address)
        with transaction.atomic():
            return _grant(wish)
    except EnrolmentRefusedError as error:
        for throttle, place in places:
            throttle.note(place)
        _record_refusal(error, token, role, name, gateway, address)
        raise
    except PkiError as error:
        logger.error("nobody can be enrolled: %s", error)
        raise EnrolmentRefusedError("unavailable", "The backend cannot issue certificates now.") from None


def _read_wish(
    token: str, role: PeerRole, name: str, hostname: str, csr: str, gateway: Gateway | None, address: str
) -> _Wish:
    try:
        digest = EnrolmentTokenText.parse(token[:MAX_TOKEN_CHARACTERS]).digest
        parse_identity(Identity(str(uuid.UUID(int=0)), role, name[:200]).uri)
        public_key = read_request(csr, role)
    except InvalidIdentityError:
        reason = "A name begins with a letter or digit and has at most 127 letters, digits, '.', '_' and '-'."
        raise EnrolmentRefusedError("bad_request", reason) from None
    except (EnrolmentTokenError, RequestRefusedError) as error:
        raise EnrolmentRefusedError("bad_request", f"{error}.") from None
    hosts = [host.strip() for host in hostname[: MAX_HOSTS * 256].split(",")]
    if len(hosts) > (MAX_HOSTS if role is PeerRole.GATEWAY else 1) or not all(map(_HOST.fullmatch, hosts)):
        reason = "A hostname has at most 253 letters, digits, '.', '_' and '-'."
        raise EnrolmentRefusedError("bad_request", reason)
    return _Wish(digest, role, name, hosts, public_key, gateway, address)


def _grant(wish: _Wish) -> Enrolled:
    token = EnrolmentToken.objects.select_related("gateway").filter(digest=wish.digest).first()
    if token is None or (wish.gateway is not None and wish.gateway.organization_id != token.organization_id):
        raise EnrolmentRefusedError("token_unknown", "The enrolment token is unknown.")
    _check_scope(token, wish)
    _spend(token)
    identity = Identity(str(token.organization_id), wish.role, wish.name)
    _lock_name(identity)
    replaced = _make_room(identity, token)
    issued = issue_certificate(identity=identity, hosts=wish.hosts, public_key=wish.public_key, token=token)
    if wish.role is PeerRole.GATEWAY:
        _keep_gateway(identity, token, issued)
    else:
        Agent.objects.filter(organization_id=token.organization_id, agent_id=wish.name).update(revoked_at=None)
    record_event(
        f"{wish.role}.enrolled",
        actor=Actor("enrolment", str(token.pk), ip=wish.address[:64]),
        organization_id=token.organization_id,
        target={"type": str(wish.role), f"{wish.role}Id": wish.name},
        details={
            "token": token.prefix,
            "hosts": wish.hosts,
            "gateway": wish.gateway.gateway_id if wish.gateway else None,
            "certificateSha256": issued.row.fingerprint,
            "replaced": replaced,
        },
    )
    return Enrolled(issued.chain, token.organization_id)


def _check_scope(token: EnrolmentToken, wish: _Wish) -> None:
    """What the token is good for. Raises EnrolmentRefusedError."""
    if token.revoked_at is not None:
        raise EnrolmentRefusedError("token_revoked", "The enrolment token was revoked.")
    if token.expires_at <= timezone.now():
        raise EnrolmentRefusedError("token_expired", "The enrolment token has expired.")
    if token.role != wish.role:
        raise EnrolmentRefusedError("wrong_role", f"The enrolment token is for {token.role}s, not for {wish.role}s.")
    if not fnmatchcase(wish.name, token.name_pattern):
        reason = f"The enrolment token is for names like {token.name_pattern}, not for {wish.name}."
        raise EnrolmentRefusedError("wrong_name", reason)
    if token.gateway is not None:
        here = wish.gateway.gateway_id if wish.gateway else wish.name
        if here != token.gateway.gateway_id:
            reason = f"The enrolment token is for {token.gateway.gateway_id}, not for {here}."
            raise EnrolmentRefusedError("wrong_gateway", reason)


def _spend(token: EnrolmentToken) -> None:
    """Take a use. Of many at once as many get past here as there are uses; the others wait for them, and are refused.

    Raises:
        EnrolmentRefusedError: none is left, or the token was revoked meanwhile.
    """
    now = timezone.now()
    left = EnrolmentToken.objects.filter(pk=token.pk, revoked_at=None, expires_at__gt=now, use_count__lt=F("max_uses"))
    if left.update(use_count=F("use_count") + 1, last_used_at=now) != 1:
        raise EnrolmentRefusedError("token_spent", "The enrolment token was used as often as it may be.")


def _lock_name(identity: Identity) -> None:
    """Two tokens for one name: the second waits, and finds the name taken. An agent has no row to lock yet."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [identity.uri])


def _make_room(identity: Identity, token: EnrolmentToken) -> list[str]:
    """The fingerprints of certificates that are revoked for the new one. Raises EnrolmentRefusedError."""
    if not _is_taken(identity):
        return []
    if not token.may_replace:
        reason = f"There is a {identity.role} {identity.name} already, and the enrolment token may not replace it."
        raise EnrolmentRefusedError("name_taken", reason.replace("a agent", "an agent"))
    return replace_former(identity=identity, reason="replaced by a new enrolment")


def _is_taken(identity: Identity) -> bool:
    if identity.role is PeerRole.GATEWAY:
        rows = Gateway.objects.filter(organization_id=identity.organization_id, gateway_id=identity.name)
        known = list(rows.values_list("revoked_at", flat=True))
    else:
        agents = Agent.objects.filter(organization_id=identity.organization_id, agent_id=identity.name)
        known = list(agents.values_list("revoked_at", flat=True))
    if known:
        return known[0] is None
    return Certificate.objects.filter(
        organization_id=identity.organization_id,
        role=identity.role,
        name=identity.name,
        revoked_at=None,
        not_after__gt=timezone.now(),
    ).exists()


def _keep_gateway(identity: Identity, token: EnrolmentToken, issued: Issued) -> None:
    """A gateway is known from its enrolment on; one that was revoked counts again."""
    known = {"certificate_sha256": issued.row.fingerprint, "revoked_at": None}
    if token.zone:
        known["zone"] = token.zone
    Gateway.objects.update_or_create(organization_id=token.organization_id, gateway_id=identity.name, defaults=known)


@transaction.atomic
def _record_refusal(
    error: EnrolmentRefusedError, text: str, role: PeerRole, name: str, gateway: Gateway | None, address: str
) -> None:
    token = _find(text)
    if token is not None and gateway is not None and token.organization_id != gateway.organization_id:
        # What a stranger's gateway was told is not this organization's to read, nor the reverse.
        token = None
    organization_id = token.organization_id if token else gateway.organization_id if gateway else None
    record_event(
        "enrolment.refused",
        actor=Actor("enrolment", str(token.pk) if token else "", ip=address[:64]),
        organization_id=organization_id,
        target=describe_target(token) if token else {"type": "enrolmentToken"},
        details={
            "code": error.code,
            "role": str(role),
            "name": _printable(name),
            "gateway": gateway.gateway_id if gateway else None,
        },
    )


def _find(text: str) -> EnrolmentToken | None:
    try:
        digest = EnrolmentTokenText.parse(text[:MAX_TOKEN_CHARACTERS]).digest
    except EnrolmentTokenError:
        return None
    return EnrolmentToken.objects.filter(digest=digest).first()


def _printable(name: str) -> str:
    """As much of a name that was refused as a person needs to see."""
    return "".join(character if character.isprintable() else "\ufffd" for character in name[:127])
