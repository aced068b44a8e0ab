"""Which sessions there are at this moment, and which of them the backend uses."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opsmap_agent.sessions.session import Session


class Switchboard:
    def __init__(self) -> None:
        self.in_use: Session | None = None
        """The session that last got a `resume`: events go by it alone."""
        self._in_use_since: datetime | None = None
        self._sessions: set[Session] = set()

    @property
    def sessions(self) -> frozenset[Session]:
        return frozenset(self._sessions)

    def add(self, session: Session) -> None:
        self._sessions.add(session)

    def remove(self, session: Session) -> None:
        self._sessions.discard(session)
        self.stand_by(session)

    def use(self, session: Session, since: datetime) -> bool:
        """Send events by this session from now on. False if what says so is older than what was said before."""
        if self._in_use_since is not None and since < self._in_use_since:
            return False
        self.in_use, self._in_use_since = session, since
        return True

    def is_open(self, session: Session) -> bool:
        return session in self._sessions

    def stand_by(self, session: Session) -> None:
        """Not in use any more; until another one is told to resume, none is."""
        if self.in_use is session:
            self.in_use = None

    def begin_again(self) -> None:
        """End all sessions, to introduce the agent anew."""
        for session in self._sessions:
            session.end()
