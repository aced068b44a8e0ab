"""docs/fleet.md: its examples are run as they stand there, and the programs understand the commands it promises."""

from __future__ import annotations

import argparse
import re
import shlex
from datetime import timedelta
from pathlib import Path
from string import Template
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from apps.audit.actor import Actor
from apps.gateways.models import Agent, EnrolmentToken
from apps.gateways.payloads import SETTINGS, enrolment_commands
from apps.gateways.tests.factories import make_agent, make_gateway
from apps.gateways.tests.fleets import make_discovery, make_enrolment_token
from apps.gateways.tests.sockets import LinkPki
from apps.orgs.actions import issue_token
from conftest import Cast
from opsmap_agent.identity import enrolment as agent_enrolment
from opsmap_gateway import enrolment as gateway_enrolment

PAGE = Path(__file__).parents[1] / "docs" / "fleet.md"
WEB = "http://testserver"


def examples() -> list[str]:
    """Every curl command of the page, in its order, each on one line."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip()]


def run(client: Client, line: str, names: dict[str, str]) -> Any:
    """What curl would do. In the body, which is in single quotes, a shell leaves names as they are."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="body")
    parser.add_argument("url")
    program, *words = shlex.split(line)
    assert program == "curl"
    asked = parser.parse_args(words)
    headers = dict(header.split(": ", 1) for header in asked.headers)
    content_type = headers.pop("Content-Type", "application/octet-stream")
    method = asked.method or ("POST" if asked.body else "GET")
    path = Template(asked.url).substitute(names).removeprefix(WEB)
    headers = {name: Template(value).substitute(names) for name, value in headers.items()}
    assert "$" not in (asked.body or ""), line
    return client.generic(method, path, asked.body or "", content_type=content_type, headers=headers)


def test_the_examples_work(cast: Cast, settings: Any, tmp_path: Path) -> None:
    settings.PKI_DIR = tmp_path
    LinkPki.make(tmp_path)
    gateway = make_gateway(cast.acme)
    agent = make_agent(gateway, "web-1", labels={"role": "web"})
    make_discovery(agent.row)
    _, token = issue_token(user=cast.operator, name="docs", actor=Actor.system("test"))
    names = {
        "OPSMAP": WEB,
        "TOKEN": token,
        "AGENT": str(agent.row.pk),
        "GATEWAY": str(gateway.pk),
        "ENROLMENT_TOKEN": str(make_enrolment_token(cast.acme).pk),
        "TOMORROW": (timezone.now() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    lines = examples()
    assert len(lines) > 15
    for line in lines:
        response = run(Client(), line, names)
        assert response.status_code < 300, f"{line}: {response.content.decode()}"
    assert EnrolmentToken.objects.count() == 3
    assert Agent.objects.get().removed_at is not None


@pytest.mark.parametrize(
    ("role", "fields", "expected"),
    [
        ("agent", {}, {"id": None, "gateway": "wss://GATEWAY:8444"}),
        ("agent", {"name_pattern": "web-1"}, {"id": "web-1"}),
        ("gateway", {"zone": "north wing; rm -rf /"}, {"zone": "north wing; rm -rf /", "backend": WEB}),
    ],
)
def test_the_command_to_paste_is_understood(
    cast: Cast, role: str, fields: dict[str, str], expected: dict[str, str | None]
) -> None:
    token = make_enrolment_token(cast.acme, role=role, **fields)
    line, text, end = enrolment_commands("opsmap-enrol-x.y", token, WEB)["enroll"].split("\n")
    assert (text, end) == ("opsmap-enrol-x.y", "TOKEN")
    command, _, heredoc = line.rpartition(" <<")
    assert heredoc == "'TOKEN'"
    program, verb, *words = shlex.split(command)
    assert (program, verb) == (f"opsmap-{role}", "enroll")
    parser = argparse.ArgumentParser(exit_on_error=False)
    (agent_enrolment if role == "agent" else gateway_enrolment).add_arguments(parser)
    options = vars(parser.parse_args(words))
    assert expected.items() <= options.items()
    assert str(options["token_file"]) == "-"


def test_the_page_names_the_settings_there_are() -> None:

    page = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in SETTINGS)
