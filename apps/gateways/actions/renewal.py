"""The next certificate of somebody who has one: same identity, same hosts, a new key."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from cryptography import x509
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from apps.audit.actions import record_event
from apps.audit.actor import Actor
from apps.gateways.actions.certificates import issue_certificate
from apps.gateways.exceptions import PkiError
from apps.gateways.models import Agent, Certificate, Gateway
from apps.gateways.pki import fingerprint
from apps.gateways.pki.naming import hosts_of
from apps.gateways.pki.requests import RequestRefusedError, read_request
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import Identity
from opsmap_trust.certificates import decode_certificate

logger = logging.getLogger(__name__)

MAX_IN_A_WINDOW = 12
WINDOW = timedelta(hours=1)
"""Of one name. A life that is shorter is the window: who renews at two thirds of it never comes near the limit."""


class RenewalRefusedError(Exception):
    """No next certificate. `code` is stable, the message for people.

    Codes: bad_request, revoked, too_many, unavailable.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def renew_agent_certificate(*, gateway: Gateway, agent_id: str, shown: str, csr: str) -> list[str]:
    """The next chain of an agent (DER in base64), whose present certificate is `shown`, likewise.

    The caller has checked that the agent itself asks: by its seal, in its session.

    Raises:
        RenewalRefusedError: there is none.
    """
    with transaction.atomic():
        # Against a revocation at the same moment: either it comes first and is seen, or it revokes this one too.
        locked = Agent.objects.select_for_update(no_key=True).filter(
            organization_id=gateway.organization_id, agent_id=agent_id
        )
        identity = Identity(str(gateway.organization_id), PeerRole.AGENT, agent_id)
        return _renew(identity, list(locked.values_list("revoked_at", flat=True)), decode_certificate(shown), csr)


def renew_gateway_certificate(*, gateway: Gateway, shown: x509.Certificate, csr: str) -> list[str]:
    """The next chain of a gateway whose connection shows that certificate; else as `renew_agent_certificate`."""
    with transaction.atomic():
        locked = Gateway.objects.select_for_update(no_key=True).filter(pk=gateway.pk)
        identity = Identity(str(gateway.organization_id), PeerRole.GATEWAY, gateway.gateway_id)
        return _renew(identity, list(locked.values_list("revoked_at", flat=True)), shown, csr)


def _renew(identity: Identity, revoked: Sequence[object], shown: x509.Certificate, csr: str) -> list[str]:
    """`revoked` is when the owner was, of the one row that it has."""
    present = fingerprint(shown)
    if revoked != [None] or Certificate.objects.filter(fingerprint=present, revoked_at__isnull=False).exists():
        raise RenewalRefusedError("revoked", f"The {identity.role} {identity.name} or its certificate was revoked.")
    try:
        public_key = read_request(csr, identity.role)
    except RequestRefusedError as error:
        raise RenewalRefusedError("bad_request", f"{error}.") from None
    if public_key == shown.public_key():
        raise RenewalRefusedError("bad_request", "A renewal needs a new key, and this is the present one.")
    _check_rate(identity)
    try:
        issued = issue_certificate(identity=identity, hosts=hosts_of(shown), public_key=public_key)
    except PkiError as error:
        logger.error("nothing can be renewed: %s", error)
        raise RenewalRefusedError("unavailable", "The backend cannot issue certificates now.") from None
    record_event(
        f"{identity.role}.certificate_renewed",
        actor=Actor(str(identity.role), identity.name),
        organization_id=issued.row.organization_id,
        target={"type": str(identity.role), f"{identity.role}Id": identity.name},
        details={"certificateSha256": issued.row.fingerprint, "formerSha256": present},
    )
    return issued.chain


def _check_rate(identity: Identity) -> None:
    """Somebody whose renewals come to nothing, and who asks again and again, must not fill the table."""
    window = min(WINDOW, settings.CERTIFICATE_LIFE)
    recent = Certificate.objects.filter(
        organization_id=identity.organization_id,
        role=identity.role,
        name=identity.name,
        created_at__gt=timezone.now() - window,
    )
    if recent.count() >= MAX_IN_A_WINDOW:
        reason = f"{MAX_IN_A_WINDOW} certificates were issued within {window}; ask again later."
        raise RenewalRefusedError("too_many", reason)
