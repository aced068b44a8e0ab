"""Maintenance: watched as before, alerting nobody, and afterwards what the checks say."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.utils import timezone

from apps.audit.actor import Actor
from apps.audit.models import AuditEvent
from apps.gateways.tests.factories import failing_audit, later
from apps.operations.actions.maintenance import begin_maintenance, end_maintenance, sweep_maintenance
from apps.operations.actions.states import reset_states
from apps.operations.enums import OperationKind
from apps.operations.exceptions import HeldError, NoSuchComponentError
from apps.operations.models import ComponentHealth, Maintenance, StateChange
from apps.operations.payloads import describe_changes, describe_map
from apps.operations.tests.factories import Stage, document, make_map
from conftest import Cast


def begin(stage: Stage, *names: str, reason: str = "patches", **fields: Any) -> int:
    actor = Actor.person(stage.user)
    return begin_maintenance(
        map=stage.map, chosen=stage.ids(*names), reason=reason, user=stage.user, actor=actor, **fields
    )


def end(stage: Stage, *names: str) -> int:
    return end_maintenance(map=stage.map, chosen=stage.ids(*names), actor=Actor.person(stage.user))


def events(action: str) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action=action))


def test_a_component_in_maintenance_is_shown_so_with_who_and_why(stage: Stage) -> None:
    stage.set_states()
    version, until = stage.fresh().version, later(hours=2)
    assert begin(stage, "db", until=until) == 1
    assert stage.states() == {"db": "maintenance", "cache": "running", "queue": "running", "web": "running"}
    [db] = describe_changes(stage.fresh(), version)["components"]
    assert (db["state"], db["stateReason"]) == ("maintenance", "patches")
    assert db["maintenance"]["by"]["email"] == "owner@acme.example"
    assert (db["maintenance"]["reason"], db["maintenance"]["until"]) == ("patches", until)
    assert db["maintenance"]["isAlerting"] is False
    change = StateChange.objects.get()
    assert (change.previous, change.state, change.cause, change.reason) == (
        *("running", "maintenance"),
        *("person", "patches"),
    )
    [event] = events("maintenance.began")
    assert (event.details["components"], event.details["names"], event.details["reason"]) == (1, ["db"], "patches")
    assert stage.fresh().state == "running", "the Map is what the others are"


def test_monitoring_goes_on_and_changes_no_state(stage: Stage) -> None:
    stage.set_states()
    begin(stage, "db")
    stage.agent.tell_health(stage.component("db").pk, "unhealthy", error="refused")
    assert stage.component("db").state == "maintenance"
    assert ComponentHealth.objects.get().status == "unhealthy"
    stage.agent.disconnect()
    assert stage.component("db").state == "maintenance"
    assert stage.component("web").state == "unreachable"


@pytest.mark.parametrize(
    ("said", "state"), [("healthy", "running"), ("degraded", "degraded"), ("unhealthy", "failed"), (None, "unknown")]
)
def test_afterwards_it_is_what_its_check_said_last(stage: Stage, said: str | None, state: str) -> None:
    stage.set_states()
    begin(stage, "db")
    if said:
        stage.agent.tell_health(stage.component("db").pk, said)
    assert end(stage, "db") == 1
    assert stage.component("db").state == state
    assert not Maintenance.objects.exists()
    assert len(events("maintenance.ended")) == 1
    assert end(stage, "db") == 0, "nothing is in maintenance any more"
    assert len(events("maintenance.ended")) == 1


def test_afterwards_it_is_unreachable_if_its_agent_is_away(stage: Stage) -> None:
    stage.set_states()
    begin(stage, "db")
    stage.agent.tell_health(stage.component("db").pk, "healthy")
    stage.agent.disconnect()
    end(stage, "db")
    assert stage.component("db").state == "unreachable"


def test_what_is_done_meanwhile_says_what_it_should_be_afterwards(stage: Stage) -> None:
    stage.set_states()
    begin(stage, "web")
    operation = stage.start(OperationKind.STOP, "web")
    stage.succeed(operation, "stop web")
    assert (stage.component("web").state, stage.component("web").desired) == ("maintenance", "down")
    stage.agent.tell_health(stage.component("web").pk, "unhealthy")
    end(stage, "web")
    assert stage.component("web").state == "stopped", "it was stopped on purpose"


def test_what_an_operation_holds_cannot_be_taken(stage: Stage) -> None:
    operation = stage.start(OperationKind.START, "db")
    with pytest.raises(HeldError, match="db is held by “start db”"):
        begin(stage, "db", "web")
    assert not Maintenance.objects.exists()
    stage.succeed(operation, "start db")
    assert begin(stage, "db", "web") == 2


def test_said_again_the_new_reason_and_end_count(stage: Stage) -> None:
    stage.set_states()
    begin(stage, "db", until=later(hours=1))
    version = stage.fresh().version
    begin(stage, "db", reason="takes longer")
    maintenance = Maintenance.objects.get()
    assert (maintenance.reason, maintenance.until) == ("takes longer", None)
    assert [item["name"] for item in describe_changes(stage.fresh(), version)["components"]] == ["db"]
    assert StateChange.objects.count() == 1


def test_the_whole_map_and_what_is_not_of_it(cast: Cast, stage: Stage) -> None:
    other = make_map(cast.production, cast.owner, [document("other")], "Other").components.get()
    with pytest.raises(NoSuchComponentError):
        begin_maintenance(
            map=stage.map,
            chosen=[other.pk, *stage.ids("db")],
            reason="",
            user=stage.user,
            actor=Actor.person(stage.user),
        )
    assert begin(stage) == 4
    other.refresh_from_db()
    assert other.state == "unknown"
    assert set(stage.states().values()) == {"maintenance"}
    reset_states(stage.map.pk)
    assert set(stage.states().values()) == {"maintenance"}, "forgetting what was seen ends no maintenance"


def test_it_ends_by_itself(stage: Stage) -> None:
    stage.set_states()
    begin(stage, "db", until=later(minutes=10))
    begin(stage, "cache", until=later(minutes=30))
    begin(stage, "web")
    stage.agent.tell_health(stage.component("db").pk, "healthy")
    sweep_maintenance(now=timezone.now() + timedelta(minutes=9))
    assert Maintenance.objects.count() == 3
    sweep_maintenance(now=timezone.now() + timedelta(minutes=11))
    assert stage.states() == {"db": "running", "cache": "maintenance", "queue": "running", "web": "maintenance"}
    assert StateChange.objects.filter(component__name="db", cause="time").get().reason == "it was to end now"
    sweep_maintenance(now=timezone.now() + timedelta(days=300))
    assert stage.component("web").state == "maintenance", "without an end only a person ends it"


def test_without_its_audit_event_nothing_happens(stage: Stage) -> None:
    stage.set_states()
    with failing_audit(), pytest.raises(Exception, match="no_more_events"), transaction.atomic():
        begin(stage, "db")
    assert not Maintenance.objects.exists()
    assert stage.component("db").state == "running"


def test_over_rest(client: Client, stage: Stage) -> None:
    stage.set_states()
    client.force_login(stage.user)
    map_address = f"/api/v1/maps/{stage.map.pk}/maintenance"
    address = f"/api/v1/components/{stage.component('db').pk}/maintenance"

    def post(where: str, **body: Any) -> Any:
        return client.post(where, body, content_type="application/json")

    assert post(address, reason="patches", until=later(hours=1).isoformat()).json() == {"components": 1}
    assert post(map_address, reason="patches", group="services").json() == {"components": 4}
    assert post(map_address, reason="x", components=[str(uuid.uuid4())]).status_code == 404
    assert post(map_address, reason="x", group="nothing").status_code == 400
    assert post(address).status_code == 400, "a reason has to be said"
    assert post(address, reason="x", until="2020-01-01T00:00:00Z").status_code == 400
    assert [item["maintenance"] is None for item in describe_map(stage.fresh(), stage.user)["components"]] == [
        False
    ] * 4
    assert client.delete(address).json() == {"components": 1}
    assert client.delete(map_address, {"components": []}, content_type="application/json").json() == {"components": 3}
