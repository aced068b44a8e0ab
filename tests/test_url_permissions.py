"""Who gets what from every address, by method and role, and from every socket. An address that is not listed fails."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from channels.db import database_sync_to_async
from channels.routing import URLRouter, get_default_application
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from apps.audit.actor import Actor
from apps.gateways.actions.broadcasts import start_broadcast
from apps.gateways.filters import FleetFilter
from apps.gateways.tests.factories import SYNC, UPTIME, make_agent, queue
from apps.gateways.tests.fleets import make_discovery, make_enrolment_token
from apps.gateways.tests.sockets import Communicator, LinkPki
from apps.operations.enums import OperationKind
from apps.operations.tests.factories import document, make_map, make_stage
from apps.orgs.actions import issue_token
from apps.proposals.models import Proposal
from apps.proposals.tests.factories import POSTGRES, make_host
from conftest import PASSWORD, Cast

ROLES = ("owner", "operator", "viewer", "outsider", "nobody")

# What each role gets: owner, operator, viewer, outsider, nobody. `302` of a page leads to the sign-in, or away from it.
URLS: dict[str, dict[str, str]] = {
    "": {"GET": "200 200 200 200 302"},
    "healthz": {"GET": "200 200 200 200 200"},
    "sign-in/": {
        "GET": "302 302 302 302 200",
        "POST": "302 302 302 302 302",
        "PUT": "302 302 302 302 200",
    },
    "sign-out/": {"POST": "302 302 302 302 302"},
    "maps/<slug:organization>/<slug:workspace>/<slug:slug>/": {"GET": "200 200 200 404 302"},
    "api/v1/auth/session": {
        "GET": "200 200 200 200 401",
        "POST": "200 200 200 200 200",
        "DELETE": "204 204 204 204 204",
    },
    "api/v1/auth/tokens": {"GET": "200 200 200 200 401", "POST": "201 201 201 201 401"},
    # Tokens are personal: not even the owner of an organization sees those of its people.
    "api/v1/auth/tokens/<uuid:token_id>": {"DELETE": "404 404 204 404 401"},
    "api/v1/maps": {"GET": "200 200 200 200 401", "POST": "201 201 404 404 401"},
    "api/v1/maps/validate": {"POST": "200 200 200 200 401"},
    "api/v1/maps/import": {"POST": "201 201 404 404 401"},
    "api/v1/maps/<uuid:map_id>": {"GET": "200 200 200 404 401", "DELETE": "204 204 403 404 401"},
    "api/v1/maps/<uuid:map_id>/documents": {"GET": "200 200 200 404 401", "PUT": "200 200 403 404 401"},
    "api/v1/maps/<uuid:map_id>/maintenance": {"POST": "200 200 403 404 401", "DELETE": "200 200 403 404 401"},
    "api/v1/maps/<uuid:map_id>/impact": {"GET": "200 200 200 404 401"},
    # What comes as JSON is no archive: only who may change the Map is told so.
    "api/v1/maps/<uuid:map_id>/documents.zip": {"GET": "200 200 200 404 401", "PUT": "415 415 403 404 401"},
    "api/v1/maps/<uuid:map_id>/operations": {"GET": "200 200 200 404 401", "POST": "201 201 422 404 401"},
    "api/v1/schemas/map-document.json": {"GET": "200 200 200 200 200"},
    "api/v1/schemas/v1/map-document.json": {"GET": "200 200 200 200 200"},
    "api/v1/components/<uuid:component_id>": {"GET": "200 200 200 404 401"},
    "api/v1/components/<uuid:component_id>/history": {"GET": "200 200 200 404 401"},
    "api/v1/components/<uuid:component_id>/maintenance": {
        "POST": "200 200 403 404 401",
        "DELETE": "200 200 403 404 401",
    },
    "api/v1/components/<uuid:component_id>/impact": {"GET": "200 200 200 404 401"},
    # Its host is away: who may read the log learns that, who may not see the component learns nothing.
    "api/v1/components/<uuid:component_id>/log": {"GET": "503 503 503 404 401"},
    "api/v1/operations/<uuid:operation_id>": {"GET": "200 200 200 404 401"},
    "api/v1/operations/<uuid:operation_id>/cancel": {"POST": "200 200 403 404 401"},
    "api/v1/operations/<uuid:operation_id>/pause": {"POST": "200 200 403 404 401"},
    "api/v1/operations/<uuid:operation_id>/resume": {"POST": "200 200 403 404 401"},
    # Nothing of it has failed; and which step is to be skipped is not said.
    "api/v1/operations/<uuid:operation_id>/retry": {"POST": "409 409 403 404 401"},
    "api/v1/operations/<uuid:operation_id>/skip": {"POST": "400 400 403 404 401"},
    "api/v1/proposals": {"GET": "200 200 403 200 401"},
    # Those of an organization that is not theirs are none.
    "api/v1/proposals/accept": {"POST": "200 200 403 404 401"},
    "api/v1/proposals/dismiss": {"POST": "200 200 403 404 401"},
    "api/v1/agents": {"GET": "200 200 200 200 401"},
    # It is connected: nobody removes it before it is revoked.
    "api/v1/agents/<uuid:agent_id>": {"GET": "200 200 200 404 401", "DELETE": "409 409 403 404 401"},
    "api/v1/agents/<uuid:agent_id>/quarantine": {"POST": "200 200 403 404 401", "DELETE": "200 200 403 404 401"},
    "api/v1/agents/<uuid:agent_id>/revoke": {"POST": "200 200 403 404 401"},
    "api/v1/agents/<uuid:agent_id>/settings": {"GET": "200 200 200 404 401", "PATCH": "200 200 403 404 401"},
    "api/v1/agents/<uuid:agent_id>/discovery": {"GET": "200 200 200 404 401"},
    "api/v1/agents/<uuid:agent_id>/discover": {"POST": "202 202 403 404 401"},
    "api/v1/agents/<uuid:agent_id>/commands": {"GET": "200 200 200 404 401", "POST": "202 202 403 404 401"},
    "api/v1/gateways": {"GET": "200 200 200 200 401"},
    "api/v1/gateways/<uuid:gateway_id>": {"GET": "200 200 200 404 401", "DELETE": "409 409 403 404 401"},
    "api/v1/gateways/<uuid:gateway_id>/revoke": {"POST": "200 200 403 404 401"},
    # An organization without agents has nobody to set anything on.
    "api/v1/fleet/settings": {"PATCH": "200 200 403 400 401"},
    "api/v1/fleet/discover": {"POST": "202 202 403 400 401"},
    # No sign-in: the token in the body, which here is missing, says who may.
    "api/v1/enrolments": {"POST": "400 400 400 400 400"},
    "api/v1/enrolment-tokens": {"GET": "200 200 200 200 401", "POST": "201 201 403 201 401"},
    "api/v1/enrolment-tokens/<uuid:enrolment_token_id>": {
        "GET": "200 200 200 404 401",
        "DELETE": "204 204 403 404 401",
    },
    "api/v1/commands": {"GET": "200 200 200 200 401"},
    "api/v1/commands/<uuid:command_id>": {"GET": "200 200 200 404 401"},
    "api/v1/commands/<uuid:command_id>/cancel": {"POST": "202 202 403 404 401"},
    "api/v1/commands/<uuid:command_id>/output": {"GET": "200 200 200 404 401"},
    # An organization without agents has nobody to broadcast to.
    "api/v1/broadcasts": {"POST": "202 202 403 400 401"},
    "api/v1/broadcasts/<uuid:broadcast_id>": {"GET": "200 200 200 404 401"},
    "api/v1/broadcasts/<uuid:broadcast_id>/cancel": {"POST": "202 202 403 404 401"},
}

# What each role's socket comes to: open, or the code with which it is closed.
SOCKETS = {
    "link/": "4401 4401 4401 4401 4401",
    "ws/maps/": "open open open open 4401",
    "ws/maps/<uuid:map_id>/": "open open open 4404 4401",
}

CASES = [(route, method) for route, methods in URLS.items() for method in methods]
LEFT_OUT = ("admin/",)
"""Django's own, behind `is_staff`."""


@dataclass(frozen=True)
class World:
    """One object of every kind, all of Acme."""

    people: dict[str, Any]
    arguments: dict[str, str]
    bodies: dict[tuple[str, str], dict[str, Any]]

    def address(self, route: str, arguments: dict[str, str] | None = None) -> str:
        address = route
        for name, value in (arguments or self.arguments).items():
            for converter in ("uuid", "slug"):
                address = address.replace(f"<{converter}:{name}>", value)
        assert "<" not in address, f"say in World what {address} stands for"
        return f"/{address}"

    def ask(self, role: str, method: str, route: str, arguments: dict[str, str] | None = None) -> Any:
        client = Client()
        if self.people[role] is not None:
            client.force_login(self.people[role])
        body = self.bodies.get((route, method), {})
        is_form = route.startswith("sign-") and method == "POST"
        content = {} if is_form else {"content_type": "application/json"}
        send = getattr(client, method.lower())
        address = self.address(route, arguments)
        return send(address) if method == "GET" else send(address, body if is_form else json.dumps(body), **content)


@pytest.fixture(scope="module")
def pki_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    LinkPki.make(folder)
    return folder


@pytest.fixture
def world(cast: Cast, settings: Any, pki_folder: Path) -> World:
    """Trading Platform is quiet and its web's host is away; on Billing an operation is running."""
    # Enrolment tokens name the root of the installation.
    settings.PKI_DIR = pki_folder
    stage = make_stage(cast, documents=[document("db"), document("web", host="srv-2")])
    second = make_agent(stage.gateway, "srv-2")
    second.succeed(stage.command(stage.start(OperationKind.START, "web"), "start web"))
    second.disconnect()
    billing = make_map(cast.production, cast.owner, [document("invoices")], "Billing")
    elsewhere = type(stage)(billing, stage.gateway, stage.agent, cast.owner)
    make_discovery(stage.agent.row)
    make_host(stage.gateway, "srv-9", technologies=[POSTGRES])
    proposal = Proposal.objects.get()
    token, _ = issue_token(user=cast.viewer, name="laptop", actor=Actor.system("test"))
    broadcast = start_broadcast(
        organization_id=cast.acme.pk,
        agents=[stage.agent.row],
        wanted=FleetFilter({}),
        name="uptime",
        spec=UPTIME,
        execution=SYNC,
        timeout_ms=1000,
        actor=Actor.system("test"),
    )
    sign_in = {"username": cast.viewer.email, "email": cast.viewer.email, "password": PASSWORD}
    documents = [{"path": "db.yaml", "content": json.dumps(document("db"))}]
    return World(
        people={role: getattr(cast, role, None) for role in ROLES},
        arguments={
            "organization": "acme",
            "workspace": "production",
            "slug": "trading-platform",
            "map_id": str(stage.map.pk),
            "component_id": str(stage.component("web").pk),
            "operation_id": str(elsewhere.start(OperationKind.START).pk),
            "agent_id": str(stage.agent.row.pk),
            "gateway_id": str(stage.gateway.pk),
            "enrolment_token_id": str(make_enrolment_token(cast.acme).pk),
            "command_id": str(queue(stage.agent).pk),
            "broadcast_id": str(broadcast.pk),
            "token_id": str(token.pk),
        },
        bodies={
            ("sign-in/", "POST"): sign_in,
            ("api/v1/auth/session", "POST"): sign_in,
            ("api/v1/auth/tokens", "POST"): {"name": "laptop"},
            ("api/v1/maps", "POST"): {"workspaceId": str(cast.production.pk), "documents": documents},
            ("api/v1/maps/validate", "POST"): {"documents": documents},
            ("api/v1/maps/import", "POST"): {
                "kind": "csv",
                "content": "name\ndb\n",
                "workspaceId": str(cast.production.pk),
            },
            ("api/v1/maps/<uuid:map_id>/documents", "PUT"): {"documents": documents},
            ("api/v1/maps/<uuid:map_id>/operations", "POST"): {"kind": "start"},
            ("api/v1/maps/<uuid:map_id>/maintenance", "POST"): {"reason": "patches"},
            ("api/v1/components/<uuid:component_id>/maintenance", "POST"): {"reason": "patches"},
            ("api/v1/proposals/accept", "POST"): {"mapId": str(stage.map.pk), "ids": [str(proposal.pk)]},
            ("api/v1/proposals/dismiss", "POST"): {"ids": [str(proposal.pk)]},
            ("api/v1/agents/<uuid:agent_id>/commands", "POST"): {"command": UPTIME},
            ("api/v1/agents/<uuid:agent_id>/quarantine", "POST"): {"reason": "strange"},
            ("api/v1/agents/<uuid:agent_id>/revoke", "POST"): {"reason": "stolen"},
            ("api/v1/agents/<uuid:agent_id>/settings", "PATCH"): {"logLevel": "debug"},
            ("api/v1/gateways/<uuid:gateway_id>/revoke", "POST"): {"reason": "stolen"},
            ("api/v1/fleet/settings", "PATCH"): {"filter": {"all": True}, "settings": {"logLevel": "debug"}},
            ("api/v1/fleet/discover", "POST"): {"filter": {"all": True}},
            ("api/v1/enrolment-tokens", "POST"): {"role": "agent"},
            ("api/v1/broadcasts", "POST"): {"command": UPTIME, "filter": {"all": True}},
        },
    )


def walk(patterns: list[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every route with every method that its view has a handler for."""
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            if route not in LEFT_OUT:
                yield from walk(pattern.url_patterns, route)
        else:
            assert isinstance(pattern, URLPattern)
            view = getattr(pattern.callback, "view_class", None) or getattr(pattern.callback, "cls", None)
            assert view is not None, f"{route} is no class: list its methods here"
            names = set(view.http_method_names) - {"options", "head"}
            yield from ((route, name.upper()) for name in names if hasattr(view, name))


def test_every_url_and_method_is_listed() -> None:
    found = set(walk(get_resolver().url_patterns))
    assert found - set(CASES) == set(), "addresses that nobody has thought about"
    assert set(CASES) - found == set(), "addresses that are gone"


def test_an_outsider_gets_404_from_every_object() -> None:
    for route, method in CASES:
        if "<" in route:
            assert URLS[route][method].split()[ROLES.index("outsider")] == "404", route


def test_every_role_gets_what_the_table_says(world: World) -> None:
    got: dict[str, dict[str, str]] = {}
    for route, method in CASES:
        statuses = []
        for role in ROLES:
            with transaction.atomic():
                statuses.append(str(world.ask(role, method, route).status_code))
                # Each asks the same world.
                transaction.set_rollback(True)
        got.setdefault(route, {})[method] = " ".join(statuses)
    assert got == URLS


def without_csrf(page: bytes) -> bytes:
    """The token in a page's form is masked anew each time."""
    return re.sub(rb"\b[A-Za-z0-9]{64}\b", b"", page)


def test_an_outsider_cannot_tell_a_foreign_object_from_none(world: World) -> None:
    nothing = {name: str(uuid.uuid4()) if name.endswith("_id") else "nothing" for name in world.arguments}
    for route, method in (case for case in CASES if "<" in case[0]):
        foreign = world.ask("outsider", method, route)
        missing = world.ask("outsider", method, route, nothing)
        assert foreign.status_code == missing.status_code == 404, route
        assert without_csrf(foreign.content) == without_csrf(missing.content), route
        assert dict(foreign.headers) == dict(missing.headers), route


def routes_of(application: Any, prefix: str = "") -> Iterator[str]:
    """Every socket route, through whatever wraps the routers."""
    while not isinstance(application, URLRouter):
        application = getattr(application, "inner", None) or getattr(application, "application", None)
        if application is None:
            yield prefix
            return
    for route in application.routes:
        yield from routes_of(route.callback, prefix + str(route.pattern))


def test_every_socket_is_listed() -> None:
    found = list(routes_of(get_default_application().application_mapping["websocket"]))
    assert sorted(found) == sorted(SOCKETS)


async def outcome_of(path: str, cookie: str | None) -> str:
    """Open, or the code with which the application closes it."""
    headers = [(b"origin", b"http://localhost")] + ([(b"cookie", f"sessionid={cookie}".encode())] if cookie else [])
    communicator = Communicator(get_default_application(), path, headers=headers)
    is_accepted, code = await communicator.connect(timeout=5)
    if not is_accepted:
        return str(code)
    outcome = "open"
    if not await communicator.receive_nothing(timeout=0.1):
        output = await communicator.receive_output(timeout=5)
        outcome = str(output["code"]) if output["type"] == "websocket.close" else "open"
    await communicator.disconnect(timeout=5)
    return outcome


@pytest.mark.django_db(transaction=True)
async def test_every_role_s_socket_comes_to_what_the_table_says(world: World) -> None:
    def cookie_of(role: str) -> str | None:
        if world.people[role] is None:
            return None
        client = Client()
        client.force_login(world.people[role])
        return client.cookies["sessionid"].value

    cookies = [await database_sync_to_async(cookie_of)(role) for role in ROLES]
    got = {}
    for route in SOCKETS:
        got[route] = " ".join([await outcome_of(world.address(route), cookie) for cookie in cookies])
    assert got == SOCKETS
