"""News from the apps below, received inside their transactions."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from apps.gateways import signals as gateway_signals
from apps.gateways.models import Agent, Command
from apps.maps import signals as map_signals
from apps.operations.actions.health import (
    HealthReport,
    assign_health_checks_on_commit,
    mark_agents_back,
    mark_agents_lost,
    record_health,
)
from apps.operations.actions.progress import advance_steps
from apps.operations.actions.states import follow_structure


def connect() -> None:
    """Called once, when Django is ready."""
    gateway_signals.commands_ended.connect(_on_commands_ended)
    gateway_signals.health_reported.connect(_on_health_reported)
    gateway_signals.agents_online.connect(_on_agents_online)
    gateway_signals.agents_lost.connect(_on_agents_lost)
    map_signals.map_structure_changed.connect(_on_structure_changed)


def _on_commands_ended(sender: type, *, commands: Sequence[Command], **kwargs: Any) -> None:
    advance_steps(commands=commands)


def _on_health_reported(sender: type, *, agent: Agent, reports: Sequence[HealthReport], **kwargs: Any) -> None:
    record_health(agent=agent, reports=reports)


def _on_agents_online(sender: type, *, agents: Sequence[Agent], **kwargs: Any) -> None:
    mark_agents_back(agents=agents)


def _on_agents_lost(sender: type, *, agents: Sequence[Agent], reason: str, **kwargs: Any) -> None:
    mark_agents_lost(agents=agents, reason=reason)


def _on_structure_changed(sender: type, *, map_id: uuid.UUID, organization_id: uuid.UUID, **kwargs: Any) -> None:
    follow_structure(map_id, organization_id)
    assign_health_checks_on_commit(organization_id)
