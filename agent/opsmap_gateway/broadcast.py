"""One frame of the backend for many agents: who is meant, and the command that each of them gets."""

from __future__ import annotations

from fnmatch import fnmatchcase

from opsmap_protocol.codec import encode
from opsmap_protocol.errors import MalformedMessageError
from opsmap_protocol.messages import AgentFilter, BroadcastCommand, BroadcastTarget, Command, Register


def is_meant(agent: Register, among: AgentFilter) -> bool:
    """Whether an agent is what it was when the backend chose it. An empty filter means everybody."""
    has_labels = among.labels.items() <= agent.labels.items()
    has_name = among.hostname_pattern is None or fnmatchcase(agent.hostname, among.hostname_pattern)
    return has_labels and has_name and (among.agent_ids is None or agent.agent_id in among.agent_ids)


def check_is_command(broadcast: BroadcastCommand) -> None:
    """Raises MalformedMessageError if it would make anything but commands."""
    if broadcast.shared.get("type") != Command.type:
        raise MalformedMessageError(f"shared.type: a broadcast carries frames of type {Command.type}")
    if any("type" in target.fields for target in broadcast.targets):
        raise MalformedMessageError("targets: a type is shared by all")


def frame_for(target: BroadcastTarget, broadcast: BroadcastCommand) -> str:
    """The command that the backend sealed for this agent. The seal is over its canonical form, so any order will do."""
    own = {"target_agent": target.target_agent, "request_id": target.request_id}
    return encode({**broadcast.shared, **target.fields, **own})
