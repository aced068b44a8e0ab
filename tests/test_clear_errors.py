"""What goes wrong on a host is said in words and ends in a definite state: through all the processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Client
from tests.smoke.stack import Stack
from tests.smoke.waiting import until

pytestmark = pytest.mark.processes

WORKSPACE_MAP = """
apiVersion: opsmap.io/v1
kind: Map
metadata: {{name: {name}}}
"""
COMPONENT = """
apiVersion: opsmap.io/v1
kind: Component
metadata: {{name: part}}
spec:
  type: service
  host: {host}
  commands:
    start: {start}
"""


def make_map(client: Client, name: str, start: str, host: str = "srv-app-01") -> str:
    """A Map with one component; returns its id."""
    _, maps = client.get("/maps")
    workspace = maps["results"][0]["workspace"]["id"]
    documents = [
        {"path": "map.yaml", "content": WORKSPACE_MAP.format(name=name)},
        {"path": "part.yaml", "content": COMPONENT.format(host=host, start=start)},
    ]
    status, created = client.post("/maps", {"workspaceId": workspace, "documents": documents})
    assert status == 201, created
    return str(created["id"])


def start_and_wait(client: Client, map_id: str) -> dict[str, Any]:
    status, operation = client.post(f"/maps/{map_id}/operations", {"kind": "start"})
    assert status == 201, operation

    def ended() -> dict[str, Any] | None:
        _, found = client.get(f"/operations/{operation['id']}")
        return found if found["state"] != "running" else None

    return until(ended, timeout_s=20, what="the operation ended")


@pytest.mark.parametrize(
    ("name", "start", "said"),
    [
        ("missing-binary", '{command: "no-such-program-here --now"}', "no-such-program-here"),
        ("missing-folder", '{command: "true", workingDir: /no/such/folder}', "/no/such/folder"),
        ("other-person", '{command: "true", runAsUser: somebody-else}', "somebody-else"),
        ("bad-exit", "{command: \"sh -c 'echo the disk is full; exit 7'\"}", "7"),
        (
            "never-passes",
            (
                '{command: "true", execution: {mode: async, max_wait_ms: 1500, poll_interval_ms: 200,'
                " completion_check: {type: file_exists, path: /no/such/file}}}"
            ),
            "/no/such/file",
        ),
    ],
)
def test_a_command_that_fails_says_why(client: Client, name: str, start: str, said: str) -> None:
    map_id = make_map(client, name, start)
    operation = start_and_wait(client, map_id)
    (step,) = operation["steps"]
    _, command = client.get(f"/commands/{step['commandId']}")
    assert operation["state"] == "failed"
    assert step["state"] == "failed"
    assert said in f"{step['detail']} {command['check']}"
    _, shown = client.get(f"/maps/{map_id}")
    assert shown["components"][0]["state"] == "failed"
    assert shown["components"][0]["operation"] is None, "the component is let go"


def test_a_file_without_permission_is_not_started(client: Client, tmp_path: Path) -> None:
    program = tmp_path / "not-executable"
    program.write_text("#!/bin/sh\n")
    operation = start_and_wait(client, make_map(client, "no-permission", f'{{command: "{program}"}}'))
    assert "not-executable" in operation["steps"][0]["detail"]


def test_an_unknown_host_is_refused_before_anything_runs(client: Client) -> None:
    map_id = make_map(client, "nowhere", '{command: "true"}', host="srv-nowhere-99")
    status, problem = client.post(f"/maps/{map_id}/operations", {"kind": "start"})
    assert status == 422
    assert problem["code"] == "not_executable"
    assert problem["problems"][0]["code"] == "unknown_host"
    assert "srv-nowhere-99" in problem["detail"]
    assert client.get(f"/maps/{map_id}/operations")[1]["results"] == []


def test_a_second_operation_on_a_held_component_learns_who_holds_it(client: Client) -> None:
    start = (
        '{command: "sleep 1", execution: {mode: async, max_wait_ms: 1500,'
        " completion_check: {type: file_exists, path: /no/such/file}}}"
    )
    map_id = make_map(client, "held", start)
    status, first = client.post(f"/maps/{map_id}/operations", {"kind": "start", "reason": "mine"})
    assert status == 201
    status, problem = client.post(f"/maps/{map_id}/operations", {"kind": "start"})
    assert (status, problem["code"]) == (409, "held")
    holder = problem["holders"][0]["operation"]
    assert holder["id"] == first["id"]
    assert holder["requestedBy"]["email"] in client.credentials["email"]
    _, plan = client.post(f"/maps/{map_id}/operations", {"kind": "start", "dryRun": True})
    assert [problem["code"] for problem in plan["problems"]] == ["held"]

    client.post(f"/operations/{first['id']}/cancel", {})
    until(
        lambda: client.get(f"/operations/{first['id']}")[1]["state"] == "cancelled" or None,
        timeout_s=10,
        what="the first operation let go",
    )


def test_wrong_documents_name_the_place(client: Client) -> None:
    bad = COMPONENT.format(host="srv-app-01", start="{comand: x}")
    status, answer = client.post("/maps/validate", {"documents": [{"path": "parts/part.yaml", "content": bad}]})
    assert status == 200
    assert answer["isValid"] is False
    fault = next(fault for fault in answer["errors"] if "comand" in fault["key"])
    assert (fault["file"], fault["line"]) == ("parts/part.yaml", 9)


def test_a_lost_agent_is_unreachable_and_comes_back(client: Client, stack: Stack) -> None:
    """Also: no agent connected is a clear refusal."""
    _, maps = client.get("/maps")
    demo = next(item for item in maps["results"] if item["slug"] == "trading-platform")

    def states() -> set[str]:
        _, shown = client.get(f"/maps/{demo['id']}")
        return {item["state"] for item in shown["components"] if item["host"] == "srv-data-01"}

    agent = stack.agent("srv-data-01")
    assert agent is not None
    agent.suspend()
    agent.kill()
    until(lambda: "unreachable" in states() or None, timeout_s=10, what="its components are unreachable", poll_s=0.01)
    until(lambda: states() <= {"stopped", "running"} or None, timeout_s=20, what="they are seen again")
