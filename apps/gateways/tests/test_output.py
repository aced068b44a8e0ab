"""What commands printed, over REST: from pieces, from results, whatever it is."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from django.test import Client

from apps.gateways.models import Agent, Command, CommandOutput, Gateway
from apps.gateways.tests.factories import put, queue
from apps.gateways.tests.fleets import make_fleet
from conftest import Cast

HOSTILE = "<script>alert(1)</script>\x1b[31mred\x1b]0;title\x07 \u202e \U0001f600 &amp;"


@pytest.fixture
def agent(gateway: Gateway) -> Agent:
    [agent] = make_fleet(gateway, "srv-1")
    return agent


@pytest.fixture
def viewer(client: Client, cast: Cast) -> Client:
    client.force_login(cast.viewer)
    return client


def keep(command: Command, *pieces: str, stream: str = "stdout", total: int | None = None) -> Command:
    """The command with these pieces of output, which it told before its end."""
    offsets = itertools.accumulate((len(piece) for piece in pieces), initial=0)
    CommandOutput.objects.bulk_create(
        CommandOutput(organization_id=command.organization_id, command=command, stream=stream, offset=offset, text=text)
        for offset, text in zip(offsets, pieces, strict=False)
    )
    kept = sum(map(len, pieces))
    facts = {"total": kept if total is None else total, "kept": kept}
    return put(command, "succeeded", output=command.output | {stream: facts})


def read(client: Client, command: Command, **query: Any) -> dict[str, Any]:
    response = client.get(f"/api/v1/commands/{command.pk}/output", query)
    assert response.status_code == 200, response.content
    shown: dict[str, Any] = response.json()
    return shown


def test_a_long_output_is_read_through_in_parts(viewer: Client, agent: Agent) -> None:
    pieces = ["a" * 1000, "é" * 1000, "😀" * 500]
    command = keep(queue(agent), *pieces)
    text, offset = "", 0
    while offset is not None:
        shown = read(viewer, command, offset=offset, limit=700)
        assert (shown["total"], shown["kept"], shown["isTruncated"]) == (2500, 2500, False)
        text, offset = text + shown["text"], shown["nextOffset"]
    assert text == "".join(pieces)


def test_what_was_not_kept_is_said(viewer: Client, agent: Agent) -> None:
    command = keep(queue(agent), "x" * 100, total=5000)
    shown = read(viewer, command)
    assert (shown["total"], shown["kept"], shown["isTruncated"]) == (5000, 100, True)
    assert shown["nextOffset"] is None


def test_a_piece_that_is_missing_ends_the_part_before_it(viewer: Client, agent: Agent) -> None:
    command = keep(queue(agent), "aaaa", "bbbb", "cccc")
    CommandOutput.objects.get(command=command, offset=4).delete()
    shown = read(viewer, put(command, "started"))
    assert (shown["text"], shown["nextOffset"]) == ("aaaa", 4)
    assert read(viewer, command, offset=8)["text"] == "cccc"


def test_streams_are_apart(viewer: Client, agent: Agent) -> None:
    command = keep(keep(queue(agent), "out"), "err", stream="stderr")
    assert read(viewer, command)["text"] == "out"
    assert read(viewer, command, stream="stderr")["text"] == "err"
    assert read(viewer, command, stream="log")["text"] == ""


def test_a_small_output_comes_by_the_same_door(viewer: Client, agent: Agent) -> None:
    result = {"stdout": "hello", "stderr": "", "is_truncated": False}
    command = put(queue(agent), "succeeded", result=result, log_tail="end of the log")
    shown = read(viewer, command, offset=1, limit=3)
    assert (shown["text"], shown["nextOffset"], shown["total"], shown["isTruncated"]) == ("ell", 4, 5, False)
    assert read(viewer, command, stream="stderr")["total"] == 0
    log = read(viewer, command, stream="log")
    assert (log["text"], log["total"]) == ("end of the log", None)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"stdout": "ab", "is_truncated": True}, (None, True)),
        ({"stdout": "ab", "is_truncated": True, "output": {"stdout": {"total": 9, "kept": 2}}}, (9, True)),
        ({"stdout": "ab", "is_truncated": True, "output": {"stdout": {"total": 2, "kept": 2}}}, (2, False)),
        ({"stdout": "ab", "output": {"stdout": "much"}}, (2, False)),
        ({"stdout": ["ab"]}, (0, False)),
        (["ab"], (0, False)),
        (None, (0, False)),
    ],
)
def test_what_a_result_says_of_its_output(viewer: Client, agent: Agent, result: Any, expected: Any) -> None:
    shown = read(viewer, put(queue(agent), "succeeded", result=result))
    assert (shown["total"], shown["isTruncated"]) == expected


def test_a_command_under_way_has_more_to_come(viewer: Client, agent: Agent) -> None:
    shown = read(viewer, queue(agent))
    assert (shown["text"], shown["nextOffset"], shown["total"]) == ("", 0, None)


def test_a_part_of_50_million_characters_takes_no_more_than_itself(
    viewer: Client, agent: Agent, django_assert_num_queries: Any
) -> None:
    command = keep(queue(agent), *["x" * 65_536] * 40)
    # The session, the person, the command, the right to see it, how much there is, the pieces.
    with django_assert_num_queries(6) as queries:
        shown = read(viewer, command, offset=1_000_000, limit=65_536)
    assert len(shown["text"]) == 65_536
    assert "LIMIT" in queries.captured_queries[-1]["sql"]


@pytest.mark.parametrize("query", ["stream=stdin", "offset=-1", "offset=x", "limit=0", "limit=1048577", "offset=1e99"])
@pytest.mark.parametrize("accept", ["application/json", "text/plain"])
def test_a_question_with_faults_is_refused_as_a_problem(viewer: Client, agent: Agent, query: str, accept: str) -> None:
    response = viewer.get(f"/api/v1/commands/{queue(agent).pk}/output?{query}", headers={"Accept": accept})
    assert (response.status_code, response.headers["Content-Type"]) == (400, "application/problem+json")
    assert json.loads(response.content)["code"] == "invalid"


@pytest.mark.parametrize("is_small", [True, False])
def test_output_is_never_anything_but_text(viewer: Client, agent: Agent, is_small: bool) -> None:
    command = queue(agent)
    command = put(command, "failed", result={"stdout": HOSTILE}) if is_small else keep(command, HOSTILE)
    address = f"/api/v1/commands/{command.pk}/output"
    as_json = viewer.get(address)
    assert as_json.headers["Content-Type"] == "application/json"
    assert as_json.json()["text"] == HOSTILE
    plain = viewer.get(address, headers={"Accept": "text/plain"})
    assert plain.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert plain.content.decode() == HOSTILE
    assert (plain.headers["X-OpsMap-total"], plain.headers["X-OpsMap-isTruncated"]) == (str(len(HOSTILE)), "false")
    for response in (as_json, plain):
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    # A browser asks for HTML first: it gets none.
    page = viewer.get(address, headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.headers["Content-Type"] == "application/json"


def test_what_hosts_say_of_themselves_comes_back_as_text(viewer: Client, gateway: Gateway) -> None:
    make_fleet(gateway, "srv-hostile", hostname=HOSTILE, labels={HOSTILE: HOSTILE})
    response = viewer.get("/api/v1/agents")
    assert response.headers["Content-Type"] == "application/json"
    [shown] = response.json()["results"]
    assert (shown["hostname"], shown["labels"]) == (HOSTILE, {HOSTILE: HOSTILE})


def test_only_who_may_see_the_agent_reads_its_output(client: Client, cast: Cast, agent: Agent) -> None:
    command = keep(queue(agent), "secret")
    client.force_login(cast.outsider)
    for accept in ("application/json", "text/plain"):
        response = client.get(f"/api/v1/commands/{command.pk}/output", headers={"Accept": accept})
        assert response.status_code == 404
        assert b"secret" not in response.content
