"""What is shown of Maps: initial state plus messages equals a reload, at a cost that does not grow with the Map."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.audit.actor import Actor
from apps.gateways.actions.sessions import close_gateway_session
from apps.gateways.enums import OPEN_STATES
from apps.gateways.models import Agent, Command, Gateway
from apps.gateways.tests.factories import SYSTEM, SimulatedAgent, claim, connect_gateway, make_agent
from apps.maps.actions import apply_documents
from apps.maps.models import Component
from apps.maps.planning.plans import Scope
from apps.operations.actions.operations import start_operation
from apps.operations.actions.progress import sweep_operations
from apps.operations.actions.states import reset_states
from apps.operations.actions.steering import cancel_operation
from apps.operations.enums import OperationKind, OperationState
from apps.operations.models import Operation
from apps.operations.payloads import describe_changes, describe_component_fully, describe_map, describe_maps
from apps.operations.selectors import list_maps
from apps.operations.tests import feed
from apps.operations.tests.factories import HOST, Stage, document, make_map, make_stage, plain, sources_of
from conftest import Cast
from opsmap.lib.problems import ProblemError

HAPPENINGS = 40
BY_LABELS = {"host": None, "hostSelector": {"labels": {"tier": "db"}}}
DOCUMENTS = [
    document("db", **BY_LABELS),
    document("cache", ["db"]),
    document("queue", ["db"], healthcheck=None, group="messages"),
    document("api", ["cache", {"component": "queue", "kind": "weak"}], host="srv-2"),
    document("web", ["api"], host="srv-2", group=None),
    document("mail", host="srv-3"),
    document("adrift", host="nowhere"),
]


@dataclass
class World:
    """A Map on three hosts, and everything that can happen to it, drawn by chance."""

    stage: Stage
    chance: random.Random
    agents: list[SimulatedAgent]
    happened: list[str] = field(default_factory=list)

    def let_something_happen(self) -> None:
        weighted: dict[Callable[[], None], int] = {
            self.health_changes: 8,
            self.a_command_ends: 10,
            self.somebody_asks: 6,
            self.an_agent_comes_or_goes: 4,
            self.somebody_cancels: 1,
            self.the_gateway_comes_or_goes: 1,
            self.an_agent_changes_its_labels: 1,
            self.the_documents_change: 1,
            self.all_is_forgotten: 1,
            sweep_operations: 1,
        }
        [happening] = self.chance.choices(list(weighted), list(weighted.values()))
        self.happened.append(happening.__name__)
        happening()

    def health_changes(self) -> None:
        online = [agent for agent in self.agents if agent.row.health_checks and agent.row.is_online]
        if online:
            agent = self.chance.choice(online)
            check = self.chance.choice(agent.row.health_checks)
            agent.tell_health(check["check_id"], self.chance.choice(["healthy", "degraded", "unhealthy"]), error="seen")

    def a_command_ends(self) -> None:
        commands = list(Command.objects.filter(state__in=OPEN_STATES).order_by("id").select_related("agent"))
        if commands:
            command = self.chance.choice(commands)
            [agent] = [agent for agent in self.agents if agent.agent_id == command.agent.agent_id]
            claim(agent.gateway) if self.stage.gateway.is_online else None
            self.chance.choice([agent.receive, agent.succeed, agent.succeed, agent.fail])(command)

    def somebody_asks(self) -> None:
        components = list(Component.objects.filter(map=self.stage.map).order_by("name").values_list("pk", flat=True))
        chosen = self.chance.sample(components, self.chance.choice([0, 1, 1, 2]))
        try:
            start_operation(
                map=self.stage.map,
                user=self.stage.user,
                actor=SYSTEM,
                kind=self.chance.choice(list(OperationKind)),
                chosen=chosen,
                scope=self.chance.choice([None, *Scope]),
            )
        except ProblemError as refusal:
            self.happened[-1] += f" ({refusal.code})"

    def somebody_cancels(self) -> None:
        for operation in Operation.objects.filter(state=OperationState.RUNNING)[:1]:
            cancel_operation(operation=operation, actor=Actor.person(self.stage.user))

    def an_agent_comes_or_goes(self) -> None:
        agent = self.chance.choice(self.agents)
        if agent.row.is_online:
            agent.disconnect()
        elif self.stage.gateway.is_online:
            agent.connect()

    def the_gateway_comes_or_goes(self) -> None:
        gateway = Gateway.objects.get(pk=self.stage.gateway.pk)
        if gateway.session_id is None:
            connect_gateway(gateway)
        else:
            close_gateway_session(gateway=gateway, session_id=gateway.session_id)
        self.stage.gateway.refresh_from_db()

    def an_agent_changes_its_labels(self) -> None:
        agent = self.chance.choice(self.agents)
        agent.labels = self.chance.choice([{}, {"tier": "db"}])
        agent.hostname = self.chance.choice([f"{agent.agent_id}.example", f"{agent.agent_id}.renamed"])
        if self.stage.gateway.is_online:
            agent.connect()

    def the_documents_change(self) -> None:
        kept = [item for item in DOCUMENTS if item["metadata"]["name"] not in {"mail", "adrift"}]
        more = self.chance.sample([document("mail", host="srv-3"), document("extra", ["web"])], 1)
        try:
            apply_documents(map=self.stage.map, sources=sources_of(kept + more), actor=SYSTEM)
        except ProblemError as refusal:
            self.happened[-1] += f" ({refusal.code})"

    def all_is_forgotten(self) -> None:
        reset_states(self.stage.map.pk)


@pytest.fixture
def world(cast: Cast) -> Iterator[World]:
    stage = make_stage(cast, documents=DOCUMENTS)
    stage.agent.labels = {"tier": "db"}
    stage.agent.connect()
    agents = [
        stage.agent,
        make_agent(stage.gateway, "srv-2"),
        make_agent(stage.gateway, "srv-3", labels={"tier": "db"}),
    ]
    return World(stage, random.Random(0), agents)  # noqa: S311 - the same chances each time


@pytest.mark.parametrize("seed", range(3))
def test_initial_state_plus_messages_equals_a_reload(
    world: World, seed: int, django_capture_on_commit_callbacks: Any
) -> None:
    world.chance.seed(seed)
    map_id, user = world.stage.map.pk, world.stage.user
    shown = feed.load(map_id, user)
    for _ in range(HAPPENINGS):
        # What runs on commit belongs to it; the hints themselves are for sockets.
        with django_capture_on_commit_callbacks(execute=True):
            world.let_something_happen()
        if world.chance.random() < 0.3:
            continue
        message = feed.next_message(map_id, shown["version"])
        fresh = feed.load(map_id, user)
        if message is not None:
            shown = fresh if message["type"] == "reload" else feed.apply(shown, message)
        assert shown == fresh, f"after {world.happened}"


def test_changes_are_only_what_changed(stage: Stage) -> None:
    version = stage.fresh().version
    stage.agent.tell_health(stage.component("web").pk, "healthy")
    changes = describe_changes(stage.fresh(), version)
    assert [component["name"] for component in changes["components"]] == ["web"]
    assert changes["operations"] == []
    assert changes["version"] == stage.fresh().version
    operation = stage.start(OperationKind.START, "db")
    changes = describe_changes(stage.fresh(), changes["version"])
    assert [component["name"] for component in changes["components"]] == ["db"]
    assert [item["id"] for item in changes["operations"]] == [str(operation.pk)]


def test_changes_across_a_new_structure_are_a_reload(stage: Stage) -> None:
    version = stage.fresh().version
    apply_documents(map=stage.map, sources=sources_of([document("db")]), actor=SYSTEM)
    now = stage.fresh().version
    assert describe_changes(stage.fresh(), version) == {"type": "reload", "version": now}
    assert describe_changes(stage.fresh(), now)["type"] == "changes"


def test_every_version_is_one_committed_change(stage: Stage) -> None:
    versions = [stage.fresh().version]
    for name in ("db", "cache"):
        stage.agent.tell_health(stage.component(name).pk, "healthy")
        versions.append(stage.fresh().version)
    stage.agent.tell_health(stage.component("db").pk, "healthy")
    assert versions == sorted(set(versions))
    assert stage.fresh().version == versions[-1], "the same health again changes nothing that is shown"


def busy_stage(cast: Cast, components: int) -> Stage:
    """A Map of this size with an operation that runs, one that has ended, and history."""
    shape = {f"c{number}": [f"c{number - 1}"] if number % 7 else [] for number in range(components)}
    stage = make_stage(cast, shape)
    ended = stage.start(OperationKind.START, "c0")
    stage.succeed(ended, "start c0")
    stage.start(OperationKind.START)
    return stage


@pytest.mark.parametrize("components", [10, 200])
def test_reads_cost_the_same_number_of_queries_however_large_the_map(cast: Cast, components: int) -> None:
    stage = busy_stage(cast, components)
    map = stage.fresh()
    costs = {}
    for name, read in {
        "describe_map": lambda: describe_map(map, stage.user),
        "describe_changes": lambda: describe_changes(map, map.structure_version),
        "describe_maps": lambda: describe_maps(list_maps(stage.user)),
        "describe_component": lambda: describe_component_fully(stage.component("c1")),
    }.items():
        with CaptureQueriesContext(connection) as queries:
            assert read()
        costs[name] = len(queries)
    assert all(cost <= 13 for cost in costs.values()), costs
    assert costs == {"describe_map": 13, "describe_changes": 8, "describe_maps": 3, "describe_component": 10}


def test_describe_map_shows_the_whole(cast: Cast) -> None:
    documents = [
        document("db", technology={"name": "postgresql", "version": "17"}),
        document("web", ["db"], host="srv-2", group="frontends"),
        document("mail", [{"component": "db", "kind": "weak"}], commands={}, group=None),
    ]
    stage = make_stage(cast, documents=documents)
    stage.agent.tell_health(stage.component("db").pk, "healthy")
    operation = stage.start(OperationKind.STOP, "db", scope=Scope.ALONE)
    shown = plain(describe_map(stage.fresh(), cast.viewer))
    ids = {component["name"]: component["id"] for component in shown["components"]}
    assert [component["name"] for component in shown["components"]] == ["db", "mail", "web"]
    assert shown["url"] == "/maps/acme/production/trading-platform/"
    assert shown["organization"]["slug"] == "acme"
    db, mail, web = shown["components"]
    assert (db["state"], db["operation"], db["commands"]) == ("stopping", str(operation.pk), ["start", "stop"])
    assert db["technology"] == {"name": "postgresql", "version": "17"}
    assert db["agent"] == {
        "id": str(stage.agent.row.pk),
        "agentId": HOST,
        "hostname": "srv-1.example",
        "isOnline": True,
    }
    assert (web["agent"], web["group"], mail["group"], mail["commands"]) == (None, "frontends", None, [])
    assert sorted((item["from"], item["to"], item["kind"]) for item in shown["dependencies"]) == sorted(
        [(ids["web"], ids["db"], "strong"), (ids["mail"], ids["db"], "weak")]
    )
    assert [(group["name"], group["state"], group["componentCount"]) for group in shown["groups"]] == [
        ("services", "stopping", 1),
        ("frontends", "unknown", 1),
    ]
    assert shown["permissions"] == {
        "component:start": False,
        "component:stop": False,
        "component:restart": False,
        "component:logs": True,
        "map:edit": False,
    }
    assert all(describe_map(stage.fresh(), cast.operator)["permissions"].values())


def test_describe_operation_counts_its_steps(stage: Stage) -> None:
    operation = stage.start(OperationKind.START)
    stage.succeed(operation, "start db")
    [shown] = describe_map(stage.fresh(), stage.user)["operations"]
    assert shown["counts"] == {
        "total": 4,
        "waiting": 1,
        "running": 2,
        "succeeded": 1,
        "failed": 0,
        "skipped": 0,
        "waived": 0,
        "cancelled": 0,
    }
    steps = {step["component"]["name"]: step for step in shown["steps"]}
    assert set(steps["web"]["after"]) == {steps["cache"]["id"], steps["queue"]["id"]}
    assert steps["db"]["commandId"] == str(stage.command(operation, "start db").pk)
    assert shown["requestedBy"]["email"] == "owner@acme.example"


def test_describe_maps_counts_states_and_names_the_running_operation(cast: Cast, stage: Stage) -> None:
    make_map(cast.production, cast.owner, [document("other")], "Another")
    operation = stage.start(OperationKind.START, "db")
    another, trading = describe_maps(list_maps(cast.viewer))
    assert (another["name"], another["counts"], another["operation"]) == ("Another", {"unknown": 1}, None)
    assert trading["counts"] == {"starting": 1, "unknown": 3}
    assert trading["componentCount"] == 4
    assert trading["operation"] == {"id": str(operation.pk), "kind": "start", "state": "running"}
    assert describe_maps(list_maps(cast.outsider)) == []


def test_describe_component_fully_shows_its_surroundings_and_past(stage: Stage) -> None:
    operation = stage.start(OperationKind.START, "db")
    stage.succeed(operation, "start db")
    stage.agent.tell_health(stage.component("db").pk, "degraded", status_code=503)
    shown = describe_component_fully(stage.component("db"))
    assert [item["name"] for item in shown["dependents"]] == ["cache", "queue"]
    assert [item["name"] for item in describe_component_fully(stage.component("web"))["dependencies"]] == [
        "cache",
        "queue",
    ]
    assert [change["state"] for change in shown["history"]] == ["degraded", "running", "starting"]
    assert shown["health"]["status"] == "degraded"
    assert [command["state"] for command in shown["recentCommands"]] == ["succeeded"]
    assert shown["commandDetails"][0] == {
        "name": "start",
        "summary": "run db",
        "mode": "async",
        "timeoutMs": 300_000,
    }
    assert Agent.objects.count() == 1
