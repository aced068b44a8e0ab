"""The live feed through the whole application: who may watch, and what they see."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from channels.db import database_sync_to_async
from channels.routing import get_default_application
from django.conf import settings
from django.test import Client

from apps.gateways.tests.sockets import Communicator
from apps.maps.actions import bump_version
from apps.operations import consumers
from apps.operations.actions.states import touch_map
from apps.operations.enums import OperationKind
from apps.operations.payloads import describe_changes
from apps.operations.tests import feed
from apps.operations.tests.factories import DIAMOND, Stage, document, make_map, make_stage, plain
from apps.orgs.models import Membership, User
from conftest import Cast

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/ws/maps/"


def socket(path: str, person: User | None, *origins: str) -> Communicator:
    """A browser's socket, with its session cookie and Origin."""
    headers = [(b"origin", origin.encode()) for origin in origins]
    if person is not None:
        client = Client()
        client.force_login(person)
        headers.append((b"cookie", f"sessionid={client.cookies['sessionid'].value}".encode()))
    return Communicator(get_default_application(), path, headers=headers)


def address(map_id: Any) -> str:
    return f"/ws/maps/{map_id}/"


@database_sync_to_async
def in_database(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    return function(*arguments, **keywords)


async def watch(path: str, person: User | None) -> Communicator:
    communicator = await in_database(socket, path, person, "http://localhost:8000")
    assert (await communicator.connect(timeout=5))[0]
    return communicator


async def close_code(communicator: Communicator) -> int:
    output = await communicator.receive_output(timeout=5)
    assert output["type"] == "websocket.close", output
    await communicator.disconnect(timeout=5)
    code: int = output["code"]
    return code


async def hear(communicator: Communicator) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await communicator.receive_from(timeout=5))
    return message


async def say_since(communicator: Communicator, version: int) -> None:
    await communicator.send_to(json.dumps({"type": "since", "version": version}))


@pytest.fixture
def stage(cast: Cast) -> Stage:
    return make_stage(cast)


async def test_nobody_is_told_to_sign_in(stage: Stage) -> None:
    for path in (address(stage.map.pk), LIST):
        assert await close_code(await watch(path, None)) == 4401


async def test_a_person_who_was_switched_off_is_told_to_sign_in(cast: Cast, stage: Stage) -> None:
    communicator = await in_database(socket, LIST, cast.viewer, "http://localhost")
    await in_database(User.objects.filter(pk=cast.viewer.pk).update, is_active=False)
    await communicator.connect(timeout=5)
    assert await close_code(communicator) == 4401


async def test_a_foreign_or_missing_map_is_not_found(cast: Cast, stage: Stage) -> None:
    assert await close_code(await watch(address(stage.map.pk), cast.outsider)) == 4404
    assert await close_code(await watch(address(uuid.uuid4()), cast.viewer)) == 4404


async def test_a_page_from_elsewhere_cannot_open_a_socket(cast: Cast, stage: Stage) -> None:
    elsewhere: list[tuple[str, ...]] = [
        (),
        ("null",),
        ("",),
        ("https://evil.example",),
        ("http://localhost.evil.example",),
        ("http://localhost", "https://evil.example"),
        ("not an origin",),
    ]
    for path in (address(stage.map.pk), LIST):
        for origins in elsewhere:
            communicator = await in_database(socket, path, cast.owner, *origins)
            assert not (await communicator.connect(timeout=5))[0], origins


async def test_since_is_answered_with_what_changed_after_it(cast: Cast, stage: Stage) -> None:
    version = (await in_database(stage.fresh)).version
    await in_database(lambda: stage.agent.tell_health(stage.component("db").pk, "healthy"))
    communicator = await watch(address(stage.map.pk), cast.viewer)
    assert await communicator.receive_nothing(timeout=0.02), "silent until it has said what it has"
    await say_since(communicator, version)
    message = await hear(communicator)
    assert message == await in_database(lambda: plain(describe_changes(stage.fresh(), version)))
    assert [component["name"] for component in message["components"]] == ["db"]
    await communicator.disconnect(timeout=5)


async def test_a_page_with_an_older_structure_is_told_to_reload(cast: Cast, stage: Stage) -> None:
    communicator = await watch(address(stage.map.pk), cast.viewer)
    await say_since(communicator, 0)
    message = await hear(communicator)
    assert message == {"type": "reload", "version": (await in_database(stage.fresh)).version}
    await communicator.disconnect(timeout=5)


async def test_who_asks_gets_an_answer_also_when_nothing_is_new(cast: Cast, stage: Stage) -> None:
    version = (await in_database(stage.fresh)).version
    communicator = await watch(address(stage.map.pk), cast.viewer)
    for _ in range(2):
        await say_since(communicator, version)
        message = await hear(communicator)
        assert (message["type"], message["version"], message["components"]) == ("changes", version, [])
    assert await communicator.receive_nothing(timeout=0.15)
    await communicator.disconnect(timeout=5)


async def test_what_happens_is_pushed_until_the_page_shows_what_is(cast: Cast, stage: Stage) -> None:
    shown = await in_database(feed.load, stage.map.pk, cast.viewer)
    communicator = await watch(address(stage.map.pk), cast.viewer)
    await say_since(communicator, shown["version"])

    def operate() -> None:
        operation = stage.start(OperationKind.START)
        stage.succeed(operation, "start db", "start cache", "start queue", "start web")
        stage.agent.disconnect()

    await in_database(operate)
    fresh = await in_database(feed.load, stage.map.pk, cast.viewer)
    messages = 0
    while shown["version"] < fresh["version"]:
        shown = feed.apply(shown, await hear(communicator))
        messages += 1
    assert shown == fresh
    assert messages < fresh["version"] / 3, "what happens within a moment is one message"
    assert await communicator.receive_nothing(timeout=0.15)
    await communicator.disconnect(timeout=5)


async def test_a_hint_that_was_lost_is_made_up_for(cast: Cast, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "SAFETY_S", 0.02)
    communicator = await watch(address(stage.map.pk), cast.viewer)
    version = (await in_database(stage.fresh)).version
    await say_since(communicator, version)
    # Nobody is told of this change.
    await in_database(bump_version, stage.map.pk)
    assert (await hear(communicator))["version"] == version + 1
    await communicator.disconnect(timeout=5)


async def test_who_loses_access_is_cut_off_with_the_next_change(cast: Cast, stage: Stage) -> None:
    communicator = await watch(address(stage.map.pk), cast.viewer)
    await say_since(communicator, (await in_database(stage.fresh)).version)
    await in_database(Membership.objects.filter(user=cast.viewer).delete)
    await in_database(stage.agent.disconnect)
    assert await close_code(communicator) == 4404


async def test_a_frame_that_is_not_understood_ends_the_socket(cast: Cast, stage: Stage) -> None:
    for frame in (
        "",
        "not json",
        "[]",
        "7",
        '{"type": "since"}',
        '{"type": "since", "version": "1"}',
        '{"type": "since", "version": true}',
        '{"type": "until", "version": 1}',
        '{"version": 1}',
    ):
        communicator = await watch(address(stage.map.pk), cast.viewer)
        await communicator.send_input({"type": "websocket.receive", "text": frame})
        assert await close_code(communicator) == 4400, frame


async def test_a_version_from_nowhere_is_put_right(cast: Cast, stage: Stage) -> None:
    communicator = await watch(address(stage.map.pk), cast.viewer)
    await say_since(communicator, 10**40)
    message = await hear(communicator)
    assert (message["type"], message["components"]) == ("changes", [])
    assert message["version"] == (await in_database(stage.fresh)).version
    await communicator.disconnect(timeout=5)


async def test_the_list_is_sent_at_once_and_then_what_changed(cast: Cast, stage: Stage) -> None:
    await in_database(make_map, cast.production, cast.owner, [document("other", host="srv-2")], "Another")
    communicator = await watch(LIST, cast.viewer)
    message = await hear(communicator)
    assert message["type"] == "maps"
    assert [map["name"] for map in message["maps"]] == ["Another", "Trading Platform"]
    await in_database(stage.agent.disconnect)
    message = await hear(communicator)
    assert [(map["name"], map["state"]) for map in message["maps"]] == [("Trading Platform", "unreachable")]
    assert message["maps"][0]["counts"] == {"unreachable": len(DIAMOND)}
    await communicator.disconnect(timeout=5)


async def test_the_list_shows_nothing_of_other_organizations(cast: Cast, stage: Stage) -> None:
    communicator = await watch(LIST, cast.outsider)
    await in_database(stage.agent.disconnect)
    assert await communicator.receive_nothing(timeout=0.15)
    await communicator.disconnect(timeout=5)


async def test_a_fault_ends_the_socket_instead_of_leaving_it_silent(
    cast: Cast, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    communicator = await watch(address(stage.map.pk), cast.viewer)
    await say_since(communicator, 1)
    await hear(communicator)
    await in_database(lambda: stage.map.components.filter(name="db").update(state="nonsense"))
    await in_database(lambda: touch_map(stage.fresh()))
    assert await close_code(communicator) == 1011
    assert "a live feed failed" in caplog.text


def test_idle_sockets_are_never_cut_off_by_redis() -> None:
    # redis-py's own default of 5 s ends idle subscribers (channels_redis#422).
    [host] = settings.CHANNEL_LAYERS["default"]["CONFIG"]["hosts"]
    assert host["socket_timeout"] is None
