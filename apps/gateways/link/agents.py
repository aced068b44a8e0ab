"""The agents behind one connection of a gateway, as this connection knows them. In memory, of the event loop alone.

    register ──announce──▶ challenged ──prove──▶ stands by ◀──greet──▶ in use
                               └────────────────────┴──────── drop ────────┘

Which of an agent's sessions is in use is decided in the database; `greet` is when it was told so.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from opsmap_protocol import messages
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import InvalidIdentityError
from opsmap_protocol.identity import Identity
from opsmap_trust.inspection import CertifiedKey
from opsmap_trust.keys import VerifyingKey
from opsmap_trust.seals import SealError, check_seal, signer_of

CHALLENGE_TIMEOUT_S = 10.0
ON_THE_WAY_S = 70.0
"""A command that is not answered by then cannot begin any more (`DELIVERY_TIME` and a little): its credit is free."""

AMPLE_CREDITS = 100
"""An agent with fewer free credits than one claim may hold is claimed for by number."""

MAX_CREDITS = 10_000


@dataclass(slots=True)
class AgentLink:
    """One session of an agent. `row_id` and what follows are known once it has proven itself."""

    hello: messages.Register
    session_id: str
    certified: CertifiedKey
    key: VerifyingKey
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    challenged_at_s: float = field(default_factory=time.monotonic)
    row_id: uuid.UUID | None = None
    incarnation: str = ""
    first_seq: int = 1
    acked_seq: int = 0
    credits: int = 0
    on_the_way: dict[str, float] = field(default_factory=dict)
    # When the session became the one in use, of the time that it was last told so; null while it stands by.
    greeted_at: datetime | None = None
    told_config: str = ""
    # The session that the database has for this agent at this gateway: this one, or one that it replaces.
    stored_session_id: str = ""

    @property
    def agent_id(self) -> str:
        return self.hello.agent_id

    @property
    def is_proven(self) -> bool:
        return self.row_id is not None

    @property
    def free_credits(self) -> int:
        return max(0, self.credits - len(self.on_the_way))

    def check(self, data: dict[str, Any]) -> None:
        """Whether the agent said this in this session. Raises SealError if not."""
        if data.get("token") != self.token:
            raise SealError(f"{data['type']} of {self.agent_id} belongs to another session")
        self.check_seal(data)

    def check_seal(self, data: dict[str, Any]) -> None:
        if signer_of(data) != self.certified.key_id:
            raise SealError(f"{data['type']} of {self.agent_id} is sealed with another key")
        if not self.certified.is_current(datetime.now(UTC)):
            raise SealError(f"the certificate of {self.agent_id} is not valid now")
        check_seal(data, self.key)


def expected_uri(organization_id: uuid.UUID, agent_id: str) -> str:
    return Identity(str(organization_id), PeerRole.AGENT, agent_id).uri


def verify_register(
    data: dict[str, Any],
    hello: messages.Register,
    session_id: str,
    certified: CertifiedKey,
    *,
    organization_id: uuid.UUID,
) -> AgentLink:
    """The session of an agent whose `register` is its own.

    Raises:
        ProtocolError: it is not; the message says why.
    """
    if certified.uri != expected_uri(organization_id, hello.agent_id):
        raise InvalidIdentityError(f"the certificate of {hello.agent_id} is of {certified.uri}")
    link = AgentLink(hello, session_id[:64], certified, VerifyingKey(certified.public_bytes, "agent"))
    link.check_seal(data)
    return link


class AgentLinks:
    """All sessions of one connection, one for each agent."""

    def __init__(self) -> None:
        self._links: dict[str, AgentLink] = {}
        self._challenged: dict[str, AgentLink] = {}
        # Those to whom not a whole claim may be sent, by row: none in ordinary times.
        self._scarce: dict[uuid.UUID, AgentLink] = {}

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[AgentLink]:
        return iter(list(self._links.values()))

    def get(self, agent_id: Any) -> AgentLink | None:
        return self._links.get(agent_id) if isinstance(agent_id, str) else None

    def announce(self, link: AgentLink) -> None:
        """A new session, which replaces an older one of the same agent."""
        former = self.drop(link.agent_id)
        link.stored_session_id = former.stored_session_id if former else ""
        self._links[link.agent_id] = self._challenged[link.agent_id] = link

    def answered(self, link: AgentLink, presence: messages.Presence) -> None:
        """The challenge is answered; what the agent holds is known."""
        self._challenged.pop(link.agent_id, None)
        link.incarnation, link.first_seq = presence.incarnation, presence.first_seq
        link.credits = min(max(presence.credits, 1), MAX_CREDITS)

    def prove(self, link: AgentLink, row_id: uuid.UUID) -> None:
        """Its session is stored."""
        link.row_id, link.stored_session_id = row_id, link.session_id
        self._note_credits(link)

    def drop(self, agent_id: str, session_id: str | None = None) -> AgentLink | None:
        """The session is over. A late word about a session that was replaced changes nothing."""
        link = self._links.get(agent_id)
        if link is None or session_id not in {None, link.session_id}:
            return None
        del self._links[agent_id]
        self._challenged.pop(agent_id, None)
        if link.row_id is not None:
            self._scarce.pop(link.row_id, None)
        return link

    def overdue(self) -> list[AgentLink]:
        """Those whose challenge stays unanswered."""
        limit_s = time.monotonic() - CHALLENGE_TIMEOUT_S
        # Oldest first: a dict keeps the order.
        found = []
        for link in self._challenged.values():
            if link.challenged_at_s > limit_s:
                break
            found.append(link)
        return found

    # Credits

    def spend(self, link: AgentLink, request_id: str) -> None:
        """A command goes out. Sent again it costs nothing more."""
        link.on_the_way[request_id] = time.monotonic() + ON_THE_WAY_S
        self._note_credits(link)

    def give_back(self, agent_id: str, request_id: str) -> None:
        """Something was heard of a command. True word or not, it was sealed by the agent that it concerns."""
        link = self._links.get(agent_id)
        if link is not None and link.on_the_way.pop(request_id, None) is not None:
            self._note_credits(link)

    @property
    def has_scarce(self) -> bool:
        return bool(self._scarce)

    def scarce(self) -> dict[uuid.UUID, int]:
        """How many commands those may still get that may not get as many as one claim holds."""
        now_s = time.monotonic()
        for link in list(self._scarce.values()):
            for request_id, until_s in list(link.on_the_way.items()):
                if until_s < now_s:
                    del link.on_the_way[request_id]
            self._note_credits(link)
        return {row_id: link.free_credits for row_id, link in self._scarce.items()}

    def _note_credits(self, link: AgentLink) -> None:
        if link.row_id is None or self._links.get(link.agent_id) is not link:
            return
        if link.free_credits < AMPLE_CREDITS:
            self._scarce[link.row_id] = link
        else:
            self._scarce.pop(link.row_id, None)
