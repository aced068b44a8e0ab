"""From the backend to agents: each frame to its agent's outbox, or the clear answer why not. Never waits."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from opsmap_gateway.agent_session import NOT_READING, AgentSession
from opsmap_gateway.backend_link import BackendLink
from opsmap_gateway.broadcast import check_is_command, frame_for, is_meant
from opsmap_gateway.counters import Counters, Loss
from opsmap_gateway.outbox import Quota
from opsmap_gateway.registry import Registry
from opsmap_protocol.codec import encode, parse
from opsmap_protocol.errors import MalformedMessageError
from opsmap_protocol.messages import BroadcastCommand, Command, CommandRefused

_logger = logging.getLogger(__name__)


class Delivery:
    """Puts frames into outboxes and answers for those that do not fit. Keeps none.

    Args:
        waiting: the frames that wait for all agents together.
    """

    def __init__(
        self, *, gateway_id: str, registry: Registry, link: BackendLink, counters: Counters, waiting: Quota
    ) -> None:
        self._gateway_id = gateway_id
        self._registry = registry
        self._link = link
        self._counters = counters
        self._waiting = waiting
        self.commands: Counter[str] = Counter()
        """What became of commands: `forwarded`, or the code of their refusal. Both if an agent left too soon."""
        self.is_draining = False
        """Commands are refused; what belongs to those on their way is still carried."""

    def deliver(self, kind: str, data: dict[str, Any], frame: str) -> None:
        """Pass a frame on as it came. Raises MalformedMessageError if it does not say to whom."""
        agent_id = _string(data, "target_agent")
        if kind == Command.type:
            self._command(_string(data, "request_id"), agent_id, frame)
            return
        session = self._registry.get(agent_id)
        if session is None:
            self._counters.count(Loss.AGENT_AWAY)
            _logger.debug("%s for agent %s, which is not here", kind, agent_id[:130])
        else:
            self.offer(session, frame)

    def broadcast(self, broadcast: BroadcastCommand) -> None:
        """Give each agent that is still meant its own command. Raises MalformedMessageError."""
        check_is_command(broadcast)
        for target in broadcast.targets:
            session = self._registry.get(target.target_agent)
            if session is not None and not is_meant(session.register, broadcast.filter):
                reason = "the agent does not match the filter of the broadcast any more"
                self._refuse(target.request_id, target.target_agent, "filter_mismatch", reason)
            else:
                self._command(target.request_id, target.target_agent, frame_for(target, broadcast))

    def offer(self, session: AgentSession, frame: str) -> bool:
        """Whether the agent's outbox took the frame. If not, its session ends."""
        if session.outbox.offer(frame):
            return True
        # Leaving out one frame would leave the agent with a state that the backend does not know of. A new
        # session begins with a resume and puts everything right.
        self._counters.count(Loss.AGENT_TOO_SLOW)
        session.drop(NOT_READING)
        return False

    def return_unsent(self, frames: list[str]) -> None:
        """Answer for what waited for an agent whose session has ended."""
        for frame in frames:
            data = parse(frame)
            if data["type"] == Command.type:
                reason = "the session ended before the command was sent"
                self._refuse(data["request_id"], data["target_agent"], "agent_offline", reason)
            else:
                self._counters.count(Loss.AGENT_AWAY)

    def answer(self, frame: str) -> None:
        """Tell the backend something it did not wait for; counted if it does not take it."""
        if not self._link.offer(frame):
            self._counters.count(Loss.REFUSAL_UNDELIVERED)

    def _command(self, request_id: str, agent_id: str, frame: str) -> None:
        session = self._registry.get(agent_id)
        if self.is_draining:
            self._refuse(request_id, agent_id, "draining", "this gateway is stopping")
        elif session is None:
            self._refuse(request_id, agent_id, "agent_offline", "the agent is not connected here")
        elif self._waiting.is_full_for(session.outbox):
            # An agent that keeps up is not refused for the number that wait for others.
            reason = f"{self._waiting.used} frames wait for agents already"
            self._refuse(request_id, agent_id, "queue_full", reason)
        elif self.offer(session, frame):
            self.commands["forwarded"] += 1
        else:
            self._refuse(request_id, agent_id, "queue_full", "the agent does not take what waits for it")

    def _refuse(self, request_id: str, agent_id: str, code: str, reason: str) -> None:
        self._counters.count(Loss.COMMAND_REFUSED)
        self.commands[code] += 1
        message = CommandRefused(
            gateway_id=self._gateway_id, request_id=request_id, target_agent=agent_id, code=code, reason=reason
        )
        self.answer(encode(message))


def _string(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str):
        raise MalformedMessageError(f"{key}: expected a string")
    return value
