"""The backend reads and writes what every implementation does: the examples of the protocol's tests."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from apps.gateways.dispatch import broadcast_frame, check_command
from apps.gateways.exceptions import InvalidCommandError
from opsmap_protocol import codec, messages
from opsmap_protocol.session import BACKEND_OF_GATEWAY, Session

GOLDEN: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(settings.BASE_DIR) / "agent" / "tests" / "golden" / "messages.json").read_text(encoding="utf-8")
)
FROM_GATEWAY = [member.type for member in typing.get_args(messages.FROM_GATEWAY)]


@pytest.mark.parametrize("kind", [kind for kind in FROM_GATEWAY if kind != "gateway_register"])
def test_what_a_gateway_says_is_understood(kind: str) -> None:
    session = Session(BACKEND_OF_GATEWAY)
    session.read(json.dumps(GOLDEN["gateway_register"][0]))
    for example in GOLDEN[kind]:
        message = session.understand(session.read(json.dumps(example)))
        assert codec.to_plain(message) == example


@pytest.mark.parametrize("example", GOLDEN["command"], ids=lambda example: example["command"]["type"])
def test_commands_may_be_stored_as_they_are_sent(example: dict[str, Any]) -> None:
    check_command(example["command"], example["execution_mode"])
    with pytest.raises(InvalidCommandError):
        check_command({**example["command"], "type": "magic"}, example["execution_mode"])


def test_broadcast_is_written_as_the_golden_one() -> None:
    (golden,) = GOLDEN["broadcast_command"]
    commands = [
        {**golden["shared"], "target_agent": each["target_agent"], "request_id": each["request_id"], **each["fields"]}
        for each in golden["targets"]
    ]
    criteria = {"labels": golden["filter"]["labels"], "hostnamePattern": golden["filter"]["hostname_pattern"]}
    written = json.loads(broadcast_frame(golden["request_id"], criteria, commands))
    assert {**written, "filter": None} == {**golden, "filter": None}
    assert written["filter"] == {name: value for name, value in golden["filter"].items() if name != "agent_ids"}
