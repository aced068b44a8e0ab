"""Who counts at a gateway's connection: revocations and authorities told as they change, certificates given out."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from apps.gateways.access import is_gateway_revoked
from apps.gateways.actions import revocation_reads
from apps.gateways.actions.enrolment import EnrolmentRefusedError, enroll
from apps.gateways.actions.renewal import RenewalRefusedError, renew_agent_certificate, renew_gateway_certificate
from apps.gateways.actions.revocation_reads import Revoked, RevokedCertificate
from apps.gateways.link.agents import AgentLink
from apps.gateways.link.peer import Peer
from apps.gateways.pki import fingerprint
from apps.gateways.pki.anchors import Anchors, current_anchors
from opsmap_protocol import codec, messages
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import CloseCode, FatalError

LOOK_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class _Look:
    is_revoked: bool
    news: list[RevokedCertificate]
    now: datetime


class Watch:
    """Looks once a second for what changed: a hint that is lost, or a clock that is wrong, changes nothing of that."""

    def __init__(self, peer: Peer, take_back: Callable[[Revoked], Awaitable[list[str]]]) -> None:
        self._peer = peer
        self._take_back = take_back
        self._look_at_s = 0.0
        self._since: datetime | None = None
        # The certificates that were told of, with when they were revoked: within the time that is looked at again.
        self._told: dict[str, datetime] = {}
        self._anchors: Anchors | None = None

    async def look(self) -> list[str]:
        """The frames to send; agents that lost their certificates have no session any more.

        Raises:
            FatalError: the gateway itself does not count any more.
        """
        now_s = time.monotonic()
        if now_s < self._look_at_s:
            return []
        self._look_at_s = now_s + LOOK_INTERVAL_S
        peer = self._peer
        found = await peer.database.run(_look, peer=peer, since=self._since, told=list(self._told))
        if found.is_revoked:
            raise FatalError(CloseCode.REVOKED, "revoked", f"the gateway {peer.gateway.gateway_id} was revoked")
        if peer.certificate.not_valid_after_utc < datetime.now(UTC):
            reason = f"the certificate of {peer.gateway.gateway_id} has ended"
            raise FatalError(CloseCode.UNAUTHENTICATED, "certificate_ended", reason)
        frames = self._authorities()
        for revoked in revocation_reads.by_agent(found.news):
            frames += await self._take_back(revoked)
        self._told |= {each.fingerprint: each.revoked_at for each in found.news}
        if len(found.news) < revocation_reads.MAX_NEWS:
            self._since = since = revocation_reads.long_enough_ago(found.now)
            self._told = {print_: at for print_, at in self._told.items() if at > since}
        else:
            # There is more, and it is next.
            self._look_at_s = 0.0
        return frames

    def _authorities(self) -> list[str]:
        """When the gateway has registered, and whenever the files change."""
        anchors = current_anchors(self._peer.pki_dir)
        if anchors is self._anchors:
            return []
        self._anchors = anchors
        return [codec.encode(messages.Authorities(anchors.root, anchors.backend, anchors.gateway, anchors.agent))]


def _look(*, peer: Peer, since: datetime | None, told: Sequence[str]) -> _Look:
    now = revocation_reads.database_time()
    moment = since if since is not None else revocation_reads.long_enough_ago(now)
    return _Look(
        is_gateway_revoked(peer.gateway.pk, fingerprint(peer.certificate)),
        revocation_reads.revoked_since(peer.gateway.organization_id, moment, told),
        now,
    )


def revoked_frame(revoked: Revoked) -> str:
    return codec.encode(messages.RevokeAgent(revoked.agent_id, revoked.fingerprints, revoked.reason))


# Certificates for those who ask


async def answer_enrolment(peer: Peer, wish: messages.EnrollAgent) -> str:
    """The `enrolment_answer` to an agent at this gateway's door."""
    try:
        enrolled = await peer.database.run(
            enroll,
            token=wish.enrolment_token,
            role=PeerRole.AGENT,
            name=wish.agent_id,
            hostname=wish.hostname,
            csr=wish.csr,
            gateway=peer.gateway,
            address=wish.address,
        )
    except EnrolmentRefusedError as error:
        answer = messages.EnrolmentAnswer(wish.enrolment_id, wish.agent_id, [], error.code, str(error))
    else:
        answer = messages.EnrolmentAnswer(wish.enrolment_id, wish.agent_id, enrolled.chain)
    return codec.encode(answer)


async def renew_gateway(peer: Peer, wish: messages.RenewGateway) -> str:
    """The `gateway_renewed` or `renewal_refused` to the gateway of this connection: nobody else is asked for here."""
    try:
        chain = await peer.database.run(
            renew_gateway_certificate, gateway=peer.gateway, shown=peer.certificate, csr=wish.csr
        )
    except RenewalRefusedError as error:
        peer.log.write("no next certificate for the gateway %s: %s", peer.gateway.gateway_id, error)
        return codec.encode(messages.RenewalRefused(error.code, str(error)))
    return codec.encode(messages.GatewayRenewed(chain))


async def renew_agent(peer: Peer, link: AgentLink, csr: str) -> str:
    """The sealed answer to an agent, which has asked in its session and with its seal."""
    try:
        chain: Sequence[str] = await peer.database.run(
            renew_agent_certificate,
            gateway=peer.gateway,
            agent_id=link.agent_id,
            shown=link.hello.certificate,
            csr=csr,
        )
    except RenewalRefusedError as error:
        peer.log.write("no next certificate for the agent %s: %s", link.agent_id, error)
        return peer.seal(messages.CertificateRefused(link.agent_id, error.code, str(error)))
    anchors = current_anchors(peer.pki_dir)
    return peer.seal(messages.CertificateRenewed(link.agent_id, list(chain), anchors.gateway, anchors.backend))
