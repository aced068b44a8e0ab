"""What a gateway's connection says by itself: commands first, then whatever else its agents have to be told."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from apps.gateways.actions import cancellations, claims, discoveries, session_sql
from apps.gateways.dispatch import broadcast_frame
from apps.gateways.link.peer import Peer
from apps.gateways.models import Broadcast
from opsmap_protocol import codec, messages
from opsmap_protocol.checks import HealthCheck
from opsmap_trust.seals import Sealer

OVERLAP = timedelta(seconds=15)
SHORT_OVERLAP = timedelta(seconds=1)
LONG_LOOK_INTERVAL_S = 2.0
"""Changes are looked for again that far back, as a transaction may commit later than it began: now and then as far as
any may take, otherwise less, as after the return of a fleet that is ten thousand rows."""

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Claim:
    """Frames to send and the commands in them, by agent id and request id.

    `untold` are agents whose session has just come into use: nothing was sent to them yet.
    """

    frames: list[str]
    spent: list[tuple[str, str]]
    untold: set[str]
    is_full: bool


@dataclass(frozen=True, slots=True)
class _News:
    """What the database says that agents have to be told."""

    cancellations: list[tuple[str, str]]
    discoveries: list[discoveries.DueRequest]
    changed: list[session_sql.InUse]
    begun: list[session_sql.Begun]
    unknown: dict[str, list[str]]


class Outbound:
    """Looks for what is due. What it returns has to be sent in this order."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._seen_until = _LONG_AGO
        self._long_look_at_s = 0.0

    async def next_commands(self) -> tuple[list[str], bool]:
        """The frames of the commands that may go out now, and whether there may be more."""
        peer = self._peer
        claim = await peer.database.run(_claim, peer=peer, scarce=peer.links.scarce())
        for agent_id, request_id in claim.spent:
            if link := peer.links.get(agent_id):
                peer.links.spend(link, request_id)
        peer.doubtful |= claim.untold
        return claim.frames, claim.is_full

    async def next_news(self) -> list[str]:
        """The frames of everything else: sessions that came into use, configurations, cancellations, a new key."""
        peer = self._peer
        frames = self._renew_trust()
        doubtful, peer.doubtful = peer.doubtful, set()
        news = await peer.database.run(_look, peer=peer, doubtful=doubtful, since=self._seen_until - self._overlap())
        self._seen_until = max([self._seen_until, *(change.changed_at for change in news.changed)])
        for begun in news.begun:
            frames += self._greet(begun, news.unknown.get(begun.agent_id, []))
        frames += await self._tell_changed_configs(news.changed)
        for agent_id, request_id in news.cancellations:
            frames.append(peer.seal(messages.CancelCommand(agent_id, request_id)))
        for due in news.discoveries:
            frames.append(peer.seal(messages.Discover(due.agent_id, due.discovery_id, due.types, due.is_full)))
        return frames

    def questions(self, jobs: dict[str, list[str]], probes: dict[str, list[str]]) -> list[str]:
        """The frames that ask agents about running jobs and about commands whose fate is unknown."""
        asked = [messages.CheckJobStatus(agent_id, ids) for agent_id, ids in jobs.items() if self._is_in_use(agent_id)]
        probed = [
            messages.ProbeCommands(agent_id, ids) for agent_id, ids in probes.items() if self._is_in_use(agent_id)
        ]
        return [self._peer.seal(question) for question in (*asked, *probed)]

    def _overlap(self) -> timedelta:
        now_s = time.monotonic()
        if now_s < self._long_look_at_s:
            return SHORT_OVERLAP
        self._long_look_at_s = now_s + LONG_LOOK_INTERVAL_S
        return OVERLAP

    def _is_in_use(self, agent_id: str) -> bool:
        link = self._peer.links.get(agent_id)
        return link is not None and link.greeted_at is not None

    def _renew_trust(self) -> list[str]:
        """After a rotation: every agent hears of the new key before anything comes that it has sealed."""
        peer = self._peer
        if not peer.renew_signer():
            return []
        return [peer.trust_frame(link.agent_id) for link in peer.links]

    def _greet(self, begun: session_sql.Begun, unknown: Sequence[str]) -> list[str]:
        link = self._peer.links.get(begun.agent_id)
        if link is None or link.token != begun.token:
            return []
        link.greeted_at, link.acked_seq, link.told_config = begun.since, begun.acked_seq, begun.config.revision
        frames = [
            self._peer.resume_frame(link),
            self._config_frame(begun.agent_id, begun.config),
        ]
        if unknown:
            frames.append(self._peer.seal(messages.ProbeCommands(begun.agent_id, list(unknown))))
        return frames

    async def _tell_changed_configs(self, changed: Sequence[session_sql.InUse]) -> list[str]:
        links = {each.agent_id: self._peer.links.get(each.agent_id) for each in changed}
        untold = [
            each.agent_id
            for each in changed
            if (link := links[each.agent_id])
            and link.token == each.token
            and link.greeted_at is not None
            and link.told_config != each.config_revision
        ]
        if not untold:
            return []
        frames = []
        found = await self._peer.database.run(
            session_sql.read_configs, gateway_id=self._peer.gateway.pk, agent_ids=untold
        )
        for agent_id, config in found.items():
            if link := links[agent_id]:
                link.told_config = config.revision
                frames.append(self._config_frame(agent_id, config))
        return frames

    def _config_frame(self, agent_id: str, config: session_sql.AgentConfig) -> str:
        checks = [codec.build(HealthCheck, check) for check in config.health_checks]
        settings = codec.build(messages.RemoteSettings, config.settings)
        return self._peer.seal(
            messages.ConfigUpdate(agent_id, datetime.now(UTC), config.revision, checks, settings=settings)
        )


# In a thread. Of the links only dictionaries are read, which is safe, and nothing is changed.


def _claim(*, peer: Peer, scarce: dict[uuid.UUID, int]) -> _Claim:
    claimed = claims.claim_commands(gateway_id=peer.gateway.pk, session_id=peer.session_id, scarce=scarce)
    mine = [command for command in claimed if _is_greeted(peer, command)]
    if len(mine) < len(claimed):
        # Whoever has the agent now, perhaps ourselves in a moment, shall not wait for the lease.
        claims.return_commands([command for command in claimed if command not in mine])
    return _Claim(
        frames=_as_frames(mine, peer.sealer),
        spent=[(command.agent_id, str(command.id)) for command in mine],
        untold={command.agent_id for command in claimed if command not in mine and _is_here(peer, command)},
        is_full=len(claimed) >= claims.CLAIM_BATCH,
    )


def _is_here(peer: Peer, command: claims.ClaimedCommand) -> bool:
    link = peer.links.get(command.agent_id)
    return link is not None and link.token == command.token


def _is_greeted(peer: Peer, command: claims.ClaimedCommand) -> bool:
    """Whether the agent knows that the session in use is this one: nobody gets commands before their `resume`."""
    link = peer.links.get(command.agent_id)
    return link is not None and (link.token, link.greeted_at) == (command.token, command.in_use_since)


def _as_frames(commands: Sequence[claims.ClaimedCommand], sealer: Sealer) -> list[str]:
    """A frame for each command, but one for several of a broadcast that are on their way for the first time."""
    frames = []
    alone = [command for command in commands if command.broadcast_id is None or not command.is_first]
    first = [command for command in commands if command.broadcast_id is not None and command.is_first]
    for broadcast_id, group in groupby(sorted(first, key=_broadcast_of), key=_broadcast_of):
        together = list(group)
        if len(together) == 1:
            alone += together
            continue
        stored = Broadcast.objects.values_list("filter", flat=True).get(pk=broadcast_id)
        sealed = [sealer.seal_object(command.as_message()) for command in together]
        frames.append(broadcast_frame(broadcast_id, stored, sealed))
    return [sealer.seal(command.as_message()) for command in alone] + frames


def _broadcast_of(command: claims.ClaimedCommand) -> uuid.UUID:
    assert command.broadcast_id is not None
    return command.broadcast_id


def _look(*, peer: Peer, doubtful: set[str], since: datetime) -> _News:
    changed = session_sql.changed_since(peer.gateway.pk, since)
    waiting = {agent_id: link for agent_id in doubtful if (link := peer.links.get(agent_id)) is not None}
    for row in changed:
        link = peer.links.get(row.agent_id)
        if link is not None and link.token == row.token and link.greeted_at != row.since:
            waiting[row.agent_id] = link
    candidates = [
        session_sql.Candidate(link.row_id, link.token, link.incarnation, link.first_seq)
        for link in waiting.values()
        if link.row_id is not None
    ]
    begun = session_sql.begin(candidates) if candidates else []
    ids = {link.agent_id: link.row_id for link in waiting.values()}
    here = [row_id for each in begun if (row_id := ids[each.agent_id]) is not None]
    return _News(
        cancellations=cancellations.claim_cancellations(gateway_id=peer.gateway.pk, session_id=peer.session_id),
        discoveries=discoveries.claim_requests(gateway_id=peer.gateway.pk, session_id=peer.session_id),
        changed=changed,
        begun=begun,
        unknown=claims.unknown_commands(here) if here else {},
    )
