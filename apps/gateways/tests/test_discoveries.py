"""What hosts found out about themselves: kept whole or as a difference, asked for, and asked for again when lost."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.audit.models import AuditEvent
from apps.gateways import signals
from apps.gateways.actions.discoveries import DueRequest, claim_requests, request_discoveries, request_discovery
from apps.gateways.actions.discovery_results import MAX_STORED_BYTES, store_discoveries
from apps.gateways.exceptions import InvalidDiscoveryError
from apps.gateways.models import AgentDiscovery, DiscoveryRequest, Gateway
from apps.gateways.selectors import describe_discovery, get_discovery
from apps.gateways.tests.factories import AT, SYSTEM, SimulatedAgent, make_agent
from opsmap_protocol import messages
from opsmap_trust.inspection import CertifiedKey
from opsmap_trust.keys import SealingKey
from opsmap_trust.seals import Sealer

pytestmark = pytest.mark.django_db

POSTGRES = {"key": "tcp:0.0.0.0:5432", "port": 5432}
NGINX = {"key": "tcp:0.0.0.0:80", "port": 80}


class Host:
    """An agent that is known here, and seals what it finds. Also the certificates, which know its key alone."""

    def __init__(self, agent: SimulatedAgent) -> None:
        self.row = agent.row
        key = SealingKey(secrets.token_bytes(32), "agent")
        self.sealer = Sealer(key, self.row.agent_id)
        self.public_bytes = key.public_bytes

    def inspect(self, encoded: str) -> CertifiedKey:
        return CertifiedKey(self.row.agent_id, self.public_bytes, "", AT, AT)

    def found(self, number: int, at: datetime | None = None, **fields: Any) -> dict[str, Any]:
        """Discovery `d-<number>`, later than those with lower numbers."""
        facts: dict[str, Any] = {"findings": {}} | fields
        moment = at or AT + timedelta(minutes=number)
        return self.sealer.seal_object(messages.DiscoveryResult(self.row.agent_id, f"d-{number}", moment, **facts))

    def tell(self, *found: dict[str, Any]) -> list[str]:
        gateway = Gateway.objects.get(pk=self.row.gateway_id)
        return store_discoveries(gateway=gateway, discoveries=found, certificates=self)

    @property
    def known(self) -> dict[str, Any]:
        discovery = get_discovery(self.row)
        assert discovery is not None
        return describe_discovery(discovery)

    @property
    def request(self) -> DiscoveryRequest | None:
        return DiscoveryRequest.objects.filter(agent=self.row).first()

    def claim(self) -> list[DueRequest]:
        gateway = Gateway.objects.get(pk=self.row.gateway_id)
        assert gateway.session_id is not None
        return claim_requests(gateway_id=gateway.pk, session_id=gateway.session_id)


@pytest.fixture
def host(agent: SimulatedAgent) -> Host:
    return Host(agent)


@pytest.fixture
def news() -> Iterator[list[tuple[str, list[str]]]]:
    """What the app above hears: ids and kinds."""
    heard: list[tuple[str, list[str]]] = []

    def hear(discovery_id: str, kinds: list[str], **others: Any) -> None:
        heard.append((discovery_id, kinds))

    signals.agent_discovered.connect(hear)
    yield heard
    signals.agent_discovered.disconnect(hear)


# Storing


def test_a_whole_discovery_replaces_what_was_known(host: Host, news: list[Any]) -> None:
    assert host.tell(host.found(1, findings={"ports": [POSTGRES, NGINX]}, faults={"pods": "no cluster here"})) == []
    assert host.known["findings"] == {"ports": [POSTGRES, NGINX]}
    assert host.known["faults"] == {"pods": "no cluster here"}
    assert host.tell(host.found(2, findings={"ports": [NGINX], "services": []})) == []
    assert (host.known["discoveryId"], host.known["findings"]) == ("d-2", {"ports": [NGINX], "services": []})
    assert host.known["faults"] == {}
    assert news == [("d-1", ["ports"]), ("d-2", ["ports", "services"])]


def test_a_difference_is_merged_into_what_it_builds_on(host: Host, news: list[Any]) -> None:
    host.tell(host.found(1, findings={"ports": [POSTGRES, NGINX], "services": [{"key": "a"}]}))
    changed = POSTGRES | {"process_name": "postgres"}
    difference = host.found(
        2, base_id="d-1", findings={"ports": [changed], "pods": [{"key": "p"}]}, removed={"ports": [NGINX["key"]]}
    )
    assert host.tell(difference) == []
    assert host.known["findings"] == {"pods": [{"key": "p"}], "ports": [changed], "services": [{"key": "a"}]}
    assert news[-1] == ("d-2", ["pods", "ports"])
    assert host.request is None


def test_a_look_that_changed_nothing_is_no_news(host: Host, news: list[Any]) -> None:
    host.tell(host.found(1, findings={"ports": [NGINX]}), host.found(2, base_id="d-1", faults={"pods": "away"}))
    assert (host.known["discoveryId"], host.known["faults"]) == ("d-2", {"pods": "away"})
    assert [discovery_id for discovery_id, _ in news] == ["d-1"]


def test_what_comes_again_or_late_changes_nothing(host: Host) -> None:
    """Gateways send a batch again that was not acknowledged, and a stolen one may repeat old ones."""
    first = host.found(1, findings={"ports": [POSTGRES]})
    second = host.found(2, base_id="d-1", findings={"ports": [NGINX]})
    third = host.found(3, base_id="d-2", removed={"ports": [POSTGRES["key"]]})
    host.tell(first, second, third)
    host.tell(first, second, third)
    assert (host.known["discoveryId"], host.known["findings"]) == ("d-3", {"ports": [NGINX]})
    assert host.request is None


def test_without_the_base_everything_is_asked_for_once_a_minute(host: Host) -> None:
    lost = host.found(3, base_id="d-2", findings={"ports": [NGINX]})
    assert host.tell(lost) == []
    [due] = host.claim()
    assert (due.agent_id, due.types, due.is_full) == ("srv-1", [], True)
    for number in range(4, 10):
        host.tell(host.found(number, base_id=f"d-{number - 1}", findings={"ports": [POSTGRES]}))
        assert host.claim() == []
    DiscoveryRequest.objects.update(told_at=timezone.now() - timedelta(seconds=61))
    assert [again.discovery_id for again in host.claim()] == [due.discovery_id]
    answer = messages.DiscoveryResult("srv-1", due.discovery_id, AT + timedelta(hours=1), {"ports": [NGINX]})
    host.tell(host.sealer.seal_object(answer))
    assert host.known["findings"] == {"ports": [NGINX]}
    DiscoveryRequest.objects.update(told_at=None)
    assert host.claim() == []


def test_a_difference_does_not_answer_the_demand_for_everything(host: Host) -> None:
    host.tell(host.found(1, findings={}), host.found(3, base_id="d-2"))
    [due] = host.claim()
    answer = messages.DiscoveryResult("srv-1", due.discovery_id, AT + timedelta(hours=1), {}, base_id="d-1")
    host.tell(host.sealer.seal_object(answer))
    assert host.request is not None
    assert host.request.is_open


def test_nobody_can_speak_for_another_agent(host: Host, gateway: Gateway) -> None:
    other = Host(make_agent(gateway, "srv-2"))
    complaints = other.tell(
        other.found(1) | {"agent_id": "srv-1"},
        other.found(2) | {"discovery_id": "d-3"},
        {"agent_id": 7},
        {"agent_id": "nobody", "type": "discovery_result"},
        {"agent_id": "srv-2", "type": "discovery_result"},
    )
    assert len(complaints) == 5
    assert not AgentDiscovery.objects.exists()


def test_a_revoked_agent_is_not_believed(host: Host) -> None:
    type(host.row).objects.update(revoked_at=timezone.now())
    assert host.tell(host.found(1)) == ["the agent 'srv-1' is unknown"]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"findings": {"nonsense": []}}, "unknown kind 'nonsense'"),
        ({"findings": {"ports": [{"port": 80}]}}, "no key of its own"),
        ({"findings": {"ports": [{"key": "x" * 513}]}}, "no key of its own"),
        ({"findings": {"ports": [{"key": 7}]}}, "no key of its own"),
        ({"removed": {"ports": [str(each) for each in range(20_001)]}}, "more than 20000 findings"),
        ({"at": timezone.now() + timedelta(days=2)}, "dated more than a day ahead"),
    ],
)
def test_what_no_agent_would_say_is_refused(host: Host, fields: dict[str, Any], complaint: str) -> None:
    good = host.found(2, findings={"ports": [NGINX]})
    assert [complaint in each for each in host.tell(host.found(1, **fields), good)] == [True]
    assert host.known["discoveryId"] == "d-2"


def test_nul_and_html_are_kept_as_text(host: Host) -> None:
    host.tell(host.found(1, findings={"ports": [{"key": "k", "name": "<script>\0" * 1000}]}))
    assert host.known["findings"]["ports"][0]["name"] == "<script>\ufffd" * 1000


def test_differences_cannot_grow_beyond_all_bounds(host: Host) -> None:
    host.tell(host.found(0, findings={"ports": []}))
    for number in range(1, 6):
        grown = {"ports": [{"key": f"{number}", "text": "x" * 1024 * 1024}]}
        host.tell(host.found(number, base_id=f"d-{number - 1}", findings=grown))
    assert 3 <= len(host.known["findings"]["ports"]) * 1024 * 1024 / (1024 * 1024) < MAX_STORED_BYTES / 1024 / 1024
    assert host.request is not None
    assert host.request.is_full


KINDS = st.sampled_from(["ports", "services", "pods"])
SITUATIONS = st.lists(
    st.dictionaries(KINDS, st.dictionaries(st.sampled_from("abcde"), st.integers(0, 2), max_size=5), max_size=3),
    min_size=1,
    max_size=8,
)


@settings(max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(situations=SITUATIONS, lost=st.sets(st.integers(1, 7)))
def test_differences_come_to_the_same_as_everything(
    host: Host, situations: list[dict[str, dict[str, int]]], lost: set[int]
) -> None:
    """Whatever happens on a host, and whatever is lost on the way: the demand for everything repairs it."""
    AgentDiscovery.objects.all().delete()
    DiscoveryRequest.objects.all().delete()
    told: dict[str, dict[str, int]] = {}
    base: str | None = None
    for number, now in enumerate(situations):
        is_full = base is None or (host.request is not None and host.request.is_open)
        fields: dict[str, Any] = {"base_id": None if is_full else base}
        before = {} if is_full else told
        fields["findings"] = {
            kind: [
                {"key": key, "value": value} for key, value in found.items() if before.get(kind, {}).get(key) != value
            ]
            for kind, found in now.items()
        }
        fields["removed"] = {kind: sorted(found.keys() - now.get(kind, {})) for kind, found in before.items()}
        message = host.found(number, **fields)
        told, base = now, f"d-{number}"
        if number not in lost:
            host.tell(message)
            DiscoveryRequest.objects.filter(is_full=True).update(is_open=not is_full)
    if get_discovery(host.row) is not None and host.known["discoveryId"] == base:
        known = {kind: {each["key"]: each["value"] for each in found} for kind, found in host.known["findings"].items()}
        assert {kind: found for kind, found in known.items() if found} == {k: v for k, v in told.items() if v}
    elif len(situations) - 1 not in lost:
        assert host.request is not None
        assert host.request.is_open


# Asking


def test_a_person_asks_and_the_trail_says_so(host: Host) -> None:
    discovery_id = request_discovery(agent=host.row, types=["ports"], actor=SYSTEM)
    assert host.claim() == [DueRequest("srv-1", discovery_id, ["ports"], False)]
    assert host.claim() == []
    event = AuditEvent.objects.get(action="discovery.requested")
    assert event.target == {"agentId": str(host.row.pk), "name": "srv-1"}
    assert event.details == {"types": ["ports"]}


def test_who_asks_while_a_question_waits_shares_its_answer(host: Host) -> None:
    first = request_discovery(agent=host.row, types=["ports"], actor=SYSTEM)
    assert request_discovery(agent=host.row, types=["pods"], actor=SYSTEM) == first
    assert host.claim() == [DueRequest("srv-1", first, [], False)]
    later = request_discovery(agent=host.row, types=["ports"], actor=SYSTEM)
    assert later != first
    assert [due.discovery_id for due in host.claim()] == [later]


def test_a_question_does_not_soften_the_demand_for_everything(host: Host) -> None:
    host.tell(host.found(3, base_id="d-2"))
    request_discovery(agent=host.row, types=["ports"], actor=SYSTEM)
    assert [(due.types, due.is_full) for due in host.claim()] == [([], True)]


def test_an_unknown_type_is_refused(host: Host) -> None:
    with pytest.raises(InvalidDiscoveryError, match="'everything'"):
        request_discovery(agent=host.row, types=["everything"], actor=SYSTEM)
    assert host.request is None


def test_an_agent_that_is_away_hears_it_when_it_is_back(agent: SimulatedAgent) -> None:
    host = Host(agent)
    agent.disconnect()
    discovery_id = request_discovery(agent=host.row, actor=SYSTEM)
    assert host.claim() == []
    agent.connect()
    assert [due.discovery_id for due in host.claim()] == [discovery_id]


def test_a_question_that_nobody_answers_is_given_up(host: Host) -> None:
    request_discovery(agent=host.row, actor=SYSTEM)
    DiscoveryRequest.objects.update(requested_at=timezone.now() - timedelta(hours=2))
    assert host.claim() == []


def test_only_the_session_that_counts_asks(host: Host, gateway: Gateway) -> None:
    request_discovery(agent=host.row, actor=SYSTEM)
    assert claim_requests(gateway_id=gateway.pk, session_id=uuid.uuid4()) == []


def test_many_agents_are_asked_by_few_statements(gateway: Gateway, django_assert_max_num_queries: Any) -> None:
    agents = [make_agent(gateway, f"srv-{number}").row for number in range(20)]
    with django_assert_max_num_queries(4):
        ids = request_discoveries(agents=agents, actor=SYSTEM)
    assert len(set(ids.values())) == 20
    assert AuditEvent.objects.get(action="discovery.requested").target == {"agents": 20}
    assert request_discoveries(agents=[], actor=SYSTEM) == {}
