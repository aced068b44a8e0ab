"""Who does a thing: a person, a machine of ours, or the system itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of an action, as the trail keeps it: plain values, because the row must outlive its subject."""

    type: str
    id: str
    email: str = ""
    ip: str = ""

    @classmethod
    def person(cls, user: Any, ip: str = "") -> Actor:
        return cls("user", str(user.pk), user.email, ip)

    @classmethod
    def system(cls, name: str) -> Actor:
        return cls("system", name)

    @classmethod
    def agent(cls, agent_id: str) -> Actor:
        return cls("agent", agent_id)

    def as_json(self) -> dict[str, str]:
        return {"type": self.type, "id": self.id, "email": self.email, "ip": self.ip}
