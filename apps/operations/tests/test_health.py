"""What agents say of components: health, loss and return, and who watches what."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection, transaction

from apps.audit.models import AuditEvent
from apps.gateways.actions.sessions import close_gateway_session
from apps.gateways.tests.factories import (
    SYSTEM,
    connect_gateway,
    health_changed,
    make_agent,
    make_gateway,
    somebody_waits_for_a_lock,
    wait_until,
)
from apps.maps.actions import apply_documents
from apps.maps.models import Component, Map
from apps.operations.actions.states import lock_map, reset_states
from apps.operations.enums import OperationKind
from apps.operations.models import ComponentHealth, StateChange
from apps.operations.tests.factories import HOST, Stage, document, make_map, make_stage, sources_of
from conftest import Cast

BY_LABELS = {"host": None, "hostSelector": {"labels": {"tier": "db"}}}


def checks_of(agent: Any) -> set[str]:
    """The names of the components that an agent watches."""
    given = [check["check_id"] for check in agent.row.health_checks]
    return set(Component.objects.filter(pk__in=given).values_list("name", flat=True))


@pytest.mark.parametrize(
    ("status", "details", "state", "reason"),
    [
        ("healthy", {}, "running", ""),
        ("degraded", {"status": 503, "expected_status": 200}, "degraded", "answered HTTP 503, expected 200"),
        ("unhealthy", {"error": "connection refused"}, "stopped", "connection refused"),
    ],
)
def test_a_health_report_moves_the_component_with_its_reason(
    stage: Stage, status: str, details: dict[str, Any], state: str, reason: str
) -> None:
    stage.agent.tell_health(stage.component("db").pk, status, **details)
    component = stage.component("db")
    assert (component.state, component.state_reason) == (state, reason)
    health = ComponentHealth.objects.get()
    assert (health.component, health.status, health.details) == (component, status, details)
    change = StateChange.objects.get()
    assert (change.previous, change.state, change.cause, change.reason) == ("unknown", state, "check", reason)
    assert component.version == stage.fresh().version


def test_unhealthy_is_failed_for_what_should_be_up_and_stopped_for_what_should_not(stage: Stage) -> None:
    stage.set_states({"db": "running"}, desired="up")
    stage.agent.tell_health(stage.component("db").pk, "unhealthy")
    assert stage.component("db").state == "failed"
    stage.set_states({"cache": "running"}, desired="down")
    stage.agent.tell_health(stage.component("cache").pk, "unhealthy")
    assert stage.component("cache").state == "stopped"


def test_a_component_seen_healthy_is_meant_to_be_up(stage: Stage) -> None:
    db = stage.component("db").pk
    stage.agent.tell_health(db, "healthy")
    stage.agent.tell_health(db, "unhealthy", error="gone")
    assert stage.component("db").state == "failed"
    stage.agent.tell_health(db, "healthy")
    assert list(StateChange.objects.order_by("id").values_list("state", flat=True)) == ["running", "failed", "running"]


def test_the_last_report_of_a_batch_counts(stage: Stage) -> None:
    db = stage.component("db").pk
    stage.agent.report(health_changed(db, "healthy"), health_changed(db, "unhealthy"), health_changed(db, "degraded"))
    assert stage.component("db").state == "degraded"
    assert ComponentHealth.objects.get().status == "degraded"


def test_reports_for_checks_that_were_not_given_are_ignored(cast: Cast, stage: Stage) -> None:
    elsewhere = make_map(cast.production, cast.owner, [document("other", host="srv-2")], "Other").components.get()
    neighbour = make_agent(stage.gateway, "srv-2")
    foreign = make_agent(make_gateway(cast.umbrella), HOST)
    for agent, component in (
        (stage.agent, elsewhere),
        (neighbour, stage.component("db")),
        (foreign, stage.component("db")),
    ):
        agent.tell_health(component.pk, "unhealthy")
    stage.agent.tell_health("no-uuid", "healthy")
    assert not ComponentHealth.objects.exists()
    assert not StateChange.objects.exists()
    neighbour.tell_health(elsewhere.pk, "healthy")
    elsewhere.refresh_from_db()
    assert elsewhere.state == "running"


def test_a_report_while_a_command_is_under_way_does_not_move_the_component(stage: Stage) -> None:
    operation = stage.start(OperationKind.START, "db")
    stage.agent.tell_health(stage.component("db").pk, "unhealthy")
    assert stage.component("db").state == "starting", "it does not answer yet, and that is no failure"
    assert ComponentHealth.objects.get().status == "unhealthy"
    stage.succeed(operation, "start db")
    assert stage.component("db").state == "running"


def test_the_state_of_the_map_follows_its_components(stage: Stage) -> None:
    for name, state in (("db", "degraded"), ("cache", "degraded"), ("queue", "degraded"), ("web", "running")):
        stage.agent.tell_health(stage.component(name).pk, "healthy")
        assert stage.fresh().state == state, f"after {name}"


def test_a_lost_agent_makes_its_components_unreachable_not_failed(stage: Stage) -> None:
    stage.set_states({"web": "failed"})
    stage.agent.disconnect()
    assert set(stage.states().values()) == {"unreachable"}
    assert stage.fresh().state == "unreachable"
    reasons = set(Component.objects.values_list("state_reason", flat=True))
    assert reasons == {"agent srv-1: connection lost"}
    assert set(StateChange.objects.values_list("cause", flat=True)) == {"agent"}


def test_a_returning_agent_lets_its_checks_say_what_is(stage: Stage) -> None:
    stage.set_states()
    stage.agent.disconnect()
    stage.agent.connect()
    assert set(stage.states().values()) == {"unreachable"}, "until a check has spoken"
    stage.agent.tell_health(stage.component("db").pk, "healthy")
    stage.agent.tell_health(stage.component("web").pk, "unhealthy", error="refused")
    assert stage.states() == {"db": "running", "web": "failed", "cache": "unreachable", "queue": "unreachable"}


def test_a_component_without_a_check_is_unknown_when_its_agent_is_back(cast: Cast) -> None:
    stage = make_stage(cast, documents=[document("db", healthcheck=None), document("web")])
    stage.set_states()
    stage.agent.disconnect()
    stage.agent.connect()
    assert stage.states() == {"db": "unknown", "web": "unreachable"}


def test_a_lost_gateway_makes_everything_behind_it_unreachable_with_its_name(cast: Cast) -> None:
    documents = [document("db"), document("web", host="srv-2"), document("mail", host="srv-3")]
    stage = make_stage(cast, documents=documents)
    make_agent(stage.gateway, "srv-2")
    make_agent(make_gateway(cast.acme, "gw-2"), "srv-3")
    stage.set_states()
    assert stage.gateway.session_id is not None
    close_gateway_session(gateway=stage.gateway, session_id=stage.gateway.session_id)
    assert stage.states() == {"db": "unreachable", "web": "unreachable", "mail": "running"}
    assert set(StateChange.objects.values_list("reason", flat=True)) == {"gateway gw-1 is not connected"}
    [event] = AuditEvent.objects.filter(action="agents.lost")
    assert event.target == {"agents": 2, "names": [HOST, "srv-2"]}
    assert event.details == {"reason": "gateway gw-1 is not connected", "components": 2, "maps": 1}
    connect_gateway(stage.gateway)
    assert stage.states()["db"] == "unreachable", "a gateway brings no agent back by itself"


def test_a_lost_zone_is_one_hint_and_one_event_and_comes_back_without_a_failure(
    cast: Cast, django_capture_on_commit_callbacks: Any
) -> None:
    documents = [document(f"c{number}", host=f"srv-{number}") for number in range(20)]
    stage = make_stage(cast, documents=documents)
    agents = [make_agent(stage.gateway, f"srv-{number}") for number in range(20)]
    stage.set_states()
    assert stage.gateway.session_id is not None
    # Hints of what came before, which this transaction of the test would send as well.
    connection.run_on_commit.clear()
    with django_capture_on_commit_callbacks() as hints:
        close_gateway_session(gateway=stage.gateway, session_id=stage.gateway.session_id)
    assert AuditEvent.objects.filter(action="agents.lost").count() == 1
    assert len([hint for hint in hints if getattr(hint, "args", ())[:1] == (stage.map.pk,)]) == 1
    for _ in range(3):
        for agent in agents:
            agent.connect()
    for agent, item in zip(agents, documents, strict=True):
        agent.tell_health(stage.component(item["metadata"]["name"]).pk, "healthy")
    told = StateChange.objects.values_list("component__name", "state").order_by("component__name", "pk")
    assert sorted(told) == sorted((f"c{n}", state) for n in range(20) for state in ("unreachable", "running"))


def test_a_lost_agent_does_not_touch_the_maps_of_others(cast: Cast, stage: Stage) -> None:
    untouched = make_map(cast.production, cast.owner, [document("other", host="srv-2")], "Other")
    version = Map.objects.get(pk=untouched.pk).version
    stage.agent.disconnect()
    assert Map.objects.get(pk=untouched.pk).version == version


def test_an_agent_gets_the_checks_of_its_host_when_it_connects(stage: Stage) -> None:
    assert checks_of(stage.agent) == {"db", "cache", "queue", "web"}
    check = stage.agent.row.health_checks[0]
    assert check["probe"] == {"type": "tcp", "port": 5432}


def test_a_change_of_documents_changes_the_checks_once_it_is_committed(
    stage: Stage, django_capture_on_commit_callbacks: Any
) -> None:
    second = make_agent(stage.gateway, "srv-2")
    documents = [document("db"), document("cache", host="srv-2"), document("web", healthcheck=None)]
    with django_capture_on_commit_callbacks(execute=True):
        apply_documents(map=stage.map, sources=sources_of(documents), actor=SYSTEM)
    assert checks_of(stage.agent) == {"db"}
    assert checks_of(second) == {"cache"}


@pytest.mark.django_db(transaction=True)
def test_a_change_of_documents_and_a_report_do_not_wait_for_each_other(cast: Cast) -> None:
    stage = make_stage(cast)
    heard: list[str] = []

    def report() -> None:
        try:
            stage.agent.tell_health(stage.component("db").pk, "healthy")
            heard.append("stored")
        finally:
            connection.close()

    reporting = threading.Thread(target=report)
    with transaction.atomic():
        lock_map(stage.map.pk)
        # The report takes its agent and waits for the Map: whoever has the Map must not want the agent now.
        reporting.start()
        wait_until(somebody_waits_for_a_lock)
        apply_documents(map=stage.map, sources=sources_of([document("db"), document("new")]), actor=SYSTEM)
    reporting.join(10)
    assert heard == ["stored"]
    assert checks_of(stage.agent) == {"db", "new"}
    assert stage.component("db").state == "running"


def test_a_component_by_labels_goes_over_to_another_agent(cast: Cast, django_capture_on_commit_callbacks: Any) -> None:
    stage = make_stage(cast, documents=[document("db", **BY_LABELS)])
    first = make_agent(stage.gateway, "srv-a", labels={"tier": "db"})
    second = make_agent(stage.gateway, "srv-b", labels={"tier": "db"})
    assert checks_of(first) == {"db"}
    first.tell_health(stage.component("db").pk, "healthy")
    version = stage.fresh().version
    with django_capture_on_commit_callbacks(execute=True):
        first.disconnect()
    assert stage.component("db").state == "running", "it can still be seen"
    assert stage.component("db").version > version, "but by another agent, and browsers hear of it"
    assert (checks_of(first), checks_of(second)) == (set(), {"db"})

    second.disconnect()
    assert stage.component("db").state == "unreachable", "also if another offline agent is the next in line"
    with django_capture_on_commit_callbacks(execute=True):
        second.connect()
    second.tell_health(stage.component("db").pk, "healthy")
    assert stage.component("db").state == "running"


def test_a_host_that_takes_another_name_is_not_seen_by_its_old_one(cast: Cast) -> None:
    stage = make_stage(cast, documents=[document("db", host="old.example"), document("web", host="new.example")])
    agent = make_agent(stage.gateway, "srv-2", hostname="old.example")
    agent.tell_health(stage.component("db").pk, "healthy")
    agent.hostname = "new.example"
    agent.connect()
    assert stage.states()["db"] == "unreachable"
    assert checks_of(agent) == {"web"}
    agent.tell_health(stage.component("web").pk, "healthy")
    assert stage.states()["web"] == "running"


def test_reset_states_forgets_all_but_what_an_operation_holds(stage: Stage) -> None:
    stage.set_states(others="running")
    stage.agent.tell_health(stage.component("web").pk, "unhealthy")
    stage.agent.tell_health(stage.component("db").pk, "degraded")
    stage.start(OperationKind.STOP, "web")
    version = stage.fresh().version
    reset_states(stage.map.pk)
    assert stage.states() == {"db": "unknown", "cache": "unknown", "queue": "unknown", "web": "stopping"}
    assert stage.fresh().version > version
    assert list(ComponentHealth.objects.values_list("component__name", flat=True)) == ["web"]
