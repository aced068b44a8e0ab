"""What any side may say to any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Error:
    """The peer's frame was refused. `about` is the type or the request id it concerns.

    An agent that wants the backend to hear of it names itself in `agent_id`, as in all its frames; without it the
    gateway only writes the error to its log.
    """

    type: ClassVar[str] = "error"
    code: str
    reason: str
    about: str | None = None
    agent_id: str | None = None
