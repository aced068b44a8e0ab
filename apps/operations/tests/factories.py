"""Builders of Maps that live: documents, hosts that answer, and the whole of it seen as a browser would."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

from apps.audit.actor import Actor
from apps.gateways.models import Command, Gateway
from apps.gateways.tests.factories import SYSTEM, SimulatedAgent, make_agent, make_gateway
from apps.maps.actions import create_map
from apps.maps.documents.reading import SourceFile
from apps.maps.enums import ComponentState
from apps.maps.models import Component, Map
from apps.maps.planning.plans import Scope
from apps.operations.actions.operations import start_operation
from apps.operations.enums import OperationKind
from apps.operations.models import Operation, Step
from apps.operations.plans import CheckedPlan, make_plan
from apps.orgs.models import User, Workspace
from conftest import Cast

HOST = "srv-1"
DIAMOND = {"db": [], "cache": ["db"], "queue": ["db"], "web": ["cache", "queue"]}
"""Who needs whom: web needs cache and queue, which both need db."""


def document(name: str, needs: Iterable[Any] = (), **changes: Any) -> dict[str, Any]:
    """The document of a component that can be started, stopped and watched; None in `changes` leaves a key out."""
    spec: dict[str, Any] = {
        "type": "service",
        "host": HOST,
        "group": "services",
        "dependsOn": list(needs),
        "commands": {"start": {"command": f"run {name}"}, "stop": {"command": f"end {name}"}},
        "healthcheck": {"type": "tcp", "port": 5432},
    }
    spec = {key: value for key, value in (spec | changes).items() if value is not None}
    return {"apiVersion": "opsmap.io/v1", "kind": "Component", "metadata": {"name": name}, "spec": spec}


def sources_of(documents: Iterable[dict[str, Any]], name: str = "Trading Platform") -> list[SourceFile]:
    head = {"apiVersion": "opsmap.io/v1", "kind": "Map", "metadata": {"name": name}, "spec": {"groups": ["services"]}}
    # JSON is YAML.
    return [SourceFile(f"{index}.yaml", json.dumps(item)) for index, item in enumerate([head, *documents])]


def make_map(
    workspace: Workspace, owner: User, documents: Iterable[dict[str, Any]], name: str = "Trading Platform"
) -> Map:
    return create_map(workspace=workspace, sources=sources_of(documents, name), owner=owner, actor=SYSTEM)


@dataclass
class Stage:
    """A Map whose components all run on one host, and the means to let things happen to it."""

    map: Map
    gateway: Gateway
    agent: SimulatedAgent
    user: User

    def fresh(self) -> Map:
        return Map.objects.select_related("organization", "workspace").get(pk=self.map.pk)

    def component(self, name: str) -> Component:
        return Component.objects.get(map=self.map, name=name)

    def ids(self, *names: str) -> list[uuid.UUID]:
        return [self.component(name).pk for name in names]

    def set_states(
        self, states: Mapping[str, str] | None = None, *, others: str = "running", desired: str = "up"
    ) -> None:
        """Put components into states directly; `others` is for those not named."""
        for component in Component.objects.filter(map=self.map):
            state = ComponentState((states or {}).get(component.name, others))
            Component.objects.filter(pk=component.pk).update(state=state, desired=desired)

    def states(self) -> dict[str, str]:
        return dict(Component.objects.filter(map=self.map).values_list("name", "state"))

    def plan(
        self, kind: OperationKind, *names: str, scope: Scope | None = None, user: User | None = None
    ) -> CheckedPlan:
        return make_plan(map=self.fresh(), user=user or self.user, kind=kind, chosen=self.ids(*names), scope=scope)

    def start(
        self, kind: OperationKind, *names: str, scope: Scope | None = None, reason: str = "", **options: Any
    ) -> Operation:
        """`options` are further arguments of `start_operation`."""
        return start_operation(
            map=self.map,
            user=self.user,
            actor=Actor.person(self.user),
            kind=kind,
            chosen=self.ids(*names),
            scope=scope,
            reason=reason,
            **options,
        )

    def steps(self, operation: Operation) -> dict[str, str]:
        """The state of each step, as "action name"."""
        rows = Step.objects.filter(operation=operation).values_list("action", "component_name", "state")
        return {f"{action} {name}": state for action, name, state in rows}

    def command(self, operation: Operation, step: str) -> Command:
        """The command of the step "action name"."""
        action, _, name = step.partition(" ")
        found = Step.objects.select_related("command").get(operation=operation, action=action, component_name=name)
        assert found.command is not None, f"{step} has not begun"
        return found.command

    def succeed(self, operation: Operation, *steps: str) -> None:
        for step in steps:
            self.agent.succeed(self.command(operation, step))

    def fail(self, operation: Operation, step: str) -> None:
        self.agent.fail(self.command(operation, step))


def make_stage(cast: Cast, shape: Mapping[str, Iterable[Any]] | None = None, documents: Any = None) -> Stage:
    """A Map of `shape` (who needs whom; the diamond by default) or of `documents`, on one host that is connected."""
    gateway = make_gateway(cast.acme)
    documents = documents or [document(name, needs) for name, needs in (shape or DIAMOND).items()]
    map = make_map(cast.production, cast.owner, documents)
    return Stage(map, gateway, make_agent(gateway, HOST), cast.owner)


def plain(payload: Any) -> Any:
    """As JSON carries it."""
    return json.loads(json.dumps(payload, cls=DjangoJSONEncoder))
