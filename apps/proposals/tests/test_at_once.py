"""Several workers, and people who answer meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import connection

from apps.gateways.tests.factories import make_gateway
from apps.gateways.tests.fleets import make_fleet
from apps.maps.tests.factories import component, make_map
from apps.proposals.actions.answers import accept_proposals
from apps.proposals.models import Proposal
from apps.proposals.tasks import sweep_discoveries
from apps.proposals.tests.factories import keep, proposed
from apps.proposals.tests.test_looking import DATABASE, SYSTEM, WEB
from conftest import Cast

pytestmark = pytest.mark.django_db(transaction=True)

DEPENDENCY = "nginx-srv-1 → postgresql-srv-9"


def at_once(*jobs: Callable[[], object]) -> list[Exception]:
    """Run each in a thread with a connection of its own. Returns what went wrong."""
    faults: list[Exception] = []

    def run(job: Callable[[], object]) -> None:
        try:
            job()
        except Exception as error:
            faults.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return faults


def test_many_that_look_at_once_make_the_same_as_one(cast: Cast) -> None:
    agents = make_fleet(make_gateway(cast.acme), "srv-1", "srv-9")
    for agent, findings in zip(agents, (WEB, DATABASE), strict=True):
        keep(agent, **findings)
    assert at_once(*[sweep_discoveries] * 8) == []
    assert proposed() == {"nginx-srv-1": "new", "postgresql-srv-9": "new", DEPENDENCY: "new"}


def test_people_answer_while_hosts_and_maps_are_looked_at(cast: Cast) -> None:
    agents = make_fleet(make_gateway(cast.acme), "srv-1", "srv-9")
    for agent, findings in zip(agents, (WEB, DATABASE), strict=True):
        keep(agent, **findings)
    sweep_discoveries()
    map = make_map(cast.production, cast.owner, [component("mail", host="srv-1")])
    ids = set(Proposal.objects.values_list("pk", flat=True))

    def accept() -> None:
        accept_proposals(organization_id=cast.acme.pk, ids=ids, map=map, actor=SYSTEM)

    for agent, findings in zip(agents, (WEB, DATABASE), strict=True):
        keep(agent, **findings)
    assert at_once(sweep_discoveries, accept, sweep_discoveries, sweep_discoveries) == []
    sweep_discoveries()
    assert set(proposed().values()) == {"known"}
    assert map.components.count() == 3
