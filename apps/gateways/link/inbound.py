"""What a gateway's connection hears: frames in the order they came, checked, stored, answered."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from django.db import DataError

from apps.gateways.actions import arrivals, discovery_results, reports, sessions
from apps.gateways.actions.revocation_reads import Revoked, find_revoked
from apps.gateways.dispatch import error_frame, storable
from apps.gateways.link.agents import AgentLink, verify_register
from apps.gateways.link.certificates import AgentCertificates
from apps.gateways.link.identity import answer_enrolment, renew_agent, renew_gateway, revoked_frame
from apps.gateways.link.peer import Peer
from opsmap_protocol import codec, messages
from opsmap_protocol.errors import CloseCode, FatalError, MalformedMessageError, ProtocolError

_AGENT_WORDS = messages.CommandReceived | messages.Events | messages.JobStatuses | messages.ProbeResult
_REPORTS = frozenset(
    each.type for each in (messages.CommandReceived, messages.Events, messages.JobStatuses, messages.ProbeResult)
)
_ONLY_IN_USE = frozenset({messages.Events.type, messages.JobStatuses.type})
"""What an agent says by the session in use alone."""

_MAX_NAME = 64


@dataclass(frozen=True, slots=True)
class _Stored:
    """What came of a run of reports, and complaints about those that do not count."""

    ingested: reports.Ingested
    complaints: list[str]


class Inbound:
    """Takes batches of frames as `Session.read` gave them."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._unacknowledged: set[str] = set()
        """Agents that have not been told how much of what they said is stored."""

    async def process(self, batch: Sequence[dict[str, Any]]) -> list[str]:
        """Store a batch; the frames to send, now that it is committed.

        Raises:
            FatalError: the session has to end.
        """
        frames: list[str] = []
        for kind, run in groupby(batch, key=lambda data: _kind(data["type"])):
            together = list(run)
            match kind:
                case "reports":
                    frames += await self._take_reports(together)
                case messages.AgentOnline.type:
                    frames += await self._challenge(together)
                case messages.Presence.type:
                    await self._open_sessions(together)
                case messages.RenewCertificate.type:
                    for data in together:
                        frames += await self._renew(data)
                case _:
                    for data in together:
                        frames += await self._take_from_gateway(data)
        return frames

    # What agents say of commands

    async def _take_reports(self, frames: Sequence[dict[str, Any]]) -> list[str]:
        peer = self._peer
        said: list[tuple[AgentLink, dict[str, Any]]] = []
        misled: set[uuid.UUID] = set()
        for data in frames:
            link = peer.links.get(data.get("agent_id"))
            if link is None or not link.is_proven:
                peer.log.write("%s: %s of an agent without a session", peer.gateway.gateway_id, data["type"])
            elif data["type"] in _ONLY_IN_USE and link.greeted_at is None:
                peer.log.write("%s by a session of %s that stands by", data["type"], link.agent_id)
                if link.row_id is not None and _is_sealed(link, data):
                    misled.add(link.row_id)
            else:
                said.append((link, data))
        answers: list[str] = []
        if said:
            stored = await peer.database.run(_store_reports, said=said)
            for complaint in stored.complaints:
                peer.log.write("%s: %s", peer.gateway.gateway_id, complaint)
            answers = self._note(stored.ingested)
            ignored = map(peer.links.get, stored.ingested.ignored)
            misled |= {link.row_id for link in ignored if link is not None and link.row_id is not None}
        if misled:
            # A `resume` by another gateway was overtaken by an older one of ours.
            await peer.database.run(sessions.greet_again, agents=list(misled))
        return answers

    def _note(self, ingested: reports.Ingested) -> list[str]:
        links = self._peer.links
        for agent_id, request_id in ingested.heard:
            links.give_back(agent_id, request_id)
        for agent_id, seq in ingested.acked.items():
            if link := links.get(agent_id):
                link.acked_seq = seq
                self._unacknowledged.add(agent_id)
        for agent_id in ingested.ignored:
            # It may be that another session is in use by now, or that the database knows less than we: look again.
            if link := links.get(agent_id):
                link.greeted_at = None
                self._peer.doubtful.add(agent_id)
        behind_gaps = [link for agent_id in ingested.gaps if (link := links.get(agent_id)) and link.greeted_at]
        return [self._peer.resume_frame(link) for link in behind_gaps]

    async def acknowledge(self) -> list[str]:
        """The frames that tell agents what is stored by now, so that they can forget it."""
        waiting, self._unacknowledged = self._unacknowledged, set()
        links = [link for agent_id in waiting if (link := self._peer.links.get(agent_id))]
        if not links:
            return []
        acks = [messages.EventsAck(link.agent_id, link.incarnation, link.acked_seq) for link in links]
        # In a thread: there may be thousands.
        return await asyncio.to_thread(lambda: [self._peer.seal(ack) for ack in acks])

    # Sessions of agents

    async def _challenge(self, frames: Sequence[dict[str, Any]]) -> list[str]:
        peer = self._peer
        answers: list[str] = []
        announced = [message for data in frames if (message := self._understand(data, answers))]
        results, revoked = await peer.database.run(
            _verify_registers,
            announced=announced,
            organization_id=peer.gateway.organization_id,
            certificates=peer.certificates,
        )
        for result in results:
            if isinstance(result, ProtocolError):
                peer.log.write("%s announces an agent that is refused: %s", peer.gateway.gateway_id, result)
                continue
            if refusal := revoked.get(result.agent_id):
                peer.log.write("%s announces %s, which was revoked", peer.gateway.gateway_id, result.agent_id)
                answers.append(revoked_frame(refusal))
                continue
            peer.links.announce(result)
            answers += self._challenge_frames(result)
        return answers

    async def _open_sessions(self, frames: Sequence[dict[str, Any]]) -> None:
        peer = self._peer
        proven: dict[str, AgentLink] = {}
        for data in frames:
            link = peer.links.get(data.get("agent_id"))
            try:
                if link is None:
                    raise MalformedMessageError("presence of an agent that was not announced")
                link.check(data)
                presence = codec.from_plain(storable(data), messages.Presence)
                _check_presence(presence)
            except ProtocolError as error:
                peer.log.write("%s: %s", peer.gateway.gateway_id, error)
                continue
            peer.links.answered(link, presence)
            proven[link.agent_id] = link
        try:
            await self._store_sessions(list(proven.values()))
        except DataError:
            for link in proven.values():
                try:
                    await self._store_sessions([link])
                except DataError as error:
                    reason = str(error).splitlines()[0]
                    peer.log.write("what %s says of itself cannot be stored: %s", link.agent_id, reason)
                    await self._drop(link)

    async def _store_sessions(self, proven: Sequence[AgentLink]) -> None:
        if not proven:
            return
        peer = self._peer
        rows = await peer.database.run(
            arrivals.open_agent_sessions,
            gateway=peer.gateway,
            session_id=peer.session_id,
            arrivals=[
                arrivals.Arrival(link.hello, link.session_id, link.token, link.certified.key_id, link.credits)
                for link in proven
            ],
        )
        for link in proven:
            if link.agent_id in rows:
                peer.links.prove(link, rows[link.agent_id])
                peer.doubtful.add(link.agent_id)

    async def challenge_again(self) -> list[str]:
        """Sessions whose challenge was not answered are none. They get another one, with a new token.

        The frame may have been lost, or refused by a host whose clock was wrong for a while: its connection to the
        gateway stays, so nothing else would ever ask it again.
        """
        frames: list[str] = []
        for link in self._peer.links.overdue():
            self._peer.log.write("%s does not answer its challenge", link.agent_id)
            await self._drop(link)
            frames += self._challenge_anew(link)
        return frames

    async def take_back(self, revoked: Revoked) -> list[str]:
        """Certificates of an agent do not count any more: nor does its session by one of them, and by another it has
        to prove itself anew. The frames for the gateway and the agent.
        """
        frames = [revoked_frame(revoked)]
        link = self._peer.links.get(revoked.agent_id)
        if link is not None:
            await self._drop(link, "its certificate was revoked")
            if link.certified.key_id not in revoked.fingerprints:
                frames += self._challenge_anew(link)
        return frames

    async def _renew(self, data: dict[str, Any]) -> list[str]:
        peer = self._peer
        link = peer.links.get(data.get("agent_id"))
        try:
            if link is None or not link.is_proven:
                raise MalformedMessageError("renew_certificate of an agent without a session")
            link.check(data)
            wish = codec.from_plain(storable(data), messages.RenewCertificate)
        except ProtocolError as error:
            peer.log.write("%s: %s", peer.gateway.gateway_id, error)
            return []
        return [await renew_agent(peer, link, wish.csr)]

    def _challenge_anew(self, link: AgentLink) -> list[str]:
        again = AgentLink(link.hello, link.session_id, link.certified, link.key)
        self._peer.links.announce(again)
        return self._challenge_frames(again)

    def _challenge_frames(self, link: AgentLink) -> list[str]:
        peer = self._peer
        challenge = messages.Challenge(link.agent_id, link.hello.nonce, link.token)
        return [peer.trust_frame(link.agent_id), peer.seal(challenge)]

    async def _drop(self, link: AgentLink, reason: str = "does not prove itself") -> None:
        peer = self._peer
        peer.links.drop(link.agent_id, link.session_id)
        if link.stored_session_id:
            offline = sessions.Offline(link.agent_id, link.stored_session_id, reason)
            await peer.database.run(sessions.close_agent_session, gateway=peer.gateway, offline=offline)

    # What the gateway says of itself

    def _understand(self, data: dict[str, Any], answers: list[str]) -> Any:
        """The message, or none and an answer that says what is wrong with it. Raises FatalError."""
        # What agents sealed has to stay as they sealed it.
        keeps_seals = data["type"] in {messages.AgentOnline.type, messages.DiscoveryBatch.type}
        try:
            return self._peer.session.understand(data if keeps_seals else storable(data))
        except FatalError:
            raise
        except ProtocolError as error:
            self._peer.log.write("frame of %s refused: %s", self._peer.gateway.gateway_id, error)
            answers.append(error_frame(error.code, str(error), data["type"]))
            return None

    async def _take_from_gateway(self, data: dict[str, Any]) -> list[str]:
        peer = self._peer
        answers: list[str] = []
        match self._understand(data, answers):
            case messages.AgentOffline() as message:
                link = peer.links.get(message.agent_id)
                if link is not None and link.session_id == message.session_id:
                    await self._drop(link, message.reason)
            case messages.AggregatedHeartbeat() as message:
                await peer.database.run(
                    sessions.record_heartbeats,
                    gateway=peer.gateway,
                    heartbeats=message.agents,
                    losses=message.losses,
                )
                await self._check_that_we_count()
            case messages.CommandRefused() as message:
                peer.links.give_back(message.target_agent, message.request_id)
                await peer.database.run(reports.release_refused, gateway=peer.gateway, refused=message)
            case messages.DiscoveryBatch() as message:
                return await self._take_discoveries(message)
            case messages.EnrollAgent() as message:
                answers.append(await answer_enrolment(peer, message))
            case messages.RenewGateway() as message:
                answers.append(await renew_gateway(peer, message))
            case messages.GoAway() as message:
                peer.log.write("%s stops soon: %s", peer.gateway.gateway_id, message.reason[:200])
                await peer.database.run(
                    sessions.drain_gateway_session, gateway=peer.gateway, session_id=peer.session_id
                )
            case messages.Error() as message:
                peer.log.write("%s reports: %.200s (%.80s)", peer.gateway.gateway_id, message.reason, message.code)
        return answers

    async def _check_that_we_count(self) -> None:
        """A connection that the database has given up would carry nothing for ever: better it ends, and comes anew."""
        peer = self._peer
        if not await peer.database.run(sessions.is_gateway_session, gateway=peer.gateway, session_id=peer.session_id):
            raise FatalError(CloseCode.REPLACED, "session_over", "this session does not count any more")

    async def _take_discoveries(self, batch: messages.DiscoveryBatch) -> list[str]:
        peer = self._peer
        complaints = await peer.database.run(
            discovery_results.store_discoveries,
            gateway=peer.gateway,
            discoveries=batch.discoveries,
            certificates=peer.certificates,
        )
        for complaint in complaints:
            peer.log.write("%s: a discovery does not count: %s", peer.gateway.gateway_id, complaint)
        return [codec.encode(messages.DiscoveryAck(batch.batch_id))]


def _is_sealed(link: AgentLink, data: dict[str, Any]) -> bool:
    try:
        link.check(data)
    except ProtocolError:
        return False
    return True


def _kind(type_name: str) -> str:
    return "reports" if type_name in _REPORTS else type_name


def _check_presence(presence: messages.Presence) -> None:
    if not 1 <= presence.first_seq <= reports.MAX_SEQ or len(presence.incarnation) > _MAX_NAME:
        raise MalformedMessageError(f"presence of {presence.agent_id} says what no journal can")


def _verify_registers(
    *, announced: Sequence[messages.AgentOnline], organization_id: uuid.UUID, certificates: AgentCertificates
) -> tuple[list[AgentLink | ProtocolError], dict[str, Revoked]]:
    """The sessions of those whose `register` is their own, and which of these were revoked."""
    results: list[AgentLink | ProtocolError] = []
    for online in announced:
        try:
            hello = codec.from_plain(storable(online.agent), messages.Register)
            if len(online.session_id) > _MAX_NAME:
                raise MalformedMessageError("the session's id is too long")
            if not 0 < len(hello.nonce) <= _MAX_NAME:
                raise MalformedMessageError(f"a nonce has 1 to {_MAX_NAME} characters")
            certified = certificates.inspect(hello.certificate)
            results.append(
                verify_register(online.agent, hello, online.session_id, certified, organization_id=organization_id)
            )
        except ProtocolError as error:
            results.append(error)
    shown = {link.agent_id: link.certified.key_id for link in results if isinstance(link, AgentLink)}
    return results, find_revoked(organization_id, shown)


def _store_reports(*, said: Sequence[tuple[AgentLink, dict[str, Any]]]) -> _Stored:
    """Check the seals, then understand, then store: nothing is recorded of what the agent did not say."""
    found: list[reports.Report] = []
    complaints = []
    for link, data in said:
        try:
            link.check(data)
            message = codec.from_plain(storable(data), _AGENT_WORDS)
        except FatalError:
            raise
        except ProtocolError as error:
            complaints.append(str(error))
            continue
        assert link.row_id is not None
        source = reports.Source(link.row_id, link.agent_id, link.token, link.incarnation, link.acked_seq)
        found.append(reports.Report(source, message))
    ingested = reports.ingest_reports(reports=found) if found else reports.Ingested()
    return _Stored(ingested, complaints)
