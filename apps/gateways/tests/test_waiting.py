"""Requests that wait for commands, through the application that a server runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any
from unittest.mock import patch

import pytest
from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async
from django.db import transaction
from django.test import Client

from apps.gateways import waiting
from apps.gateways.dispatch import announce_ends_on_commit
from apps.gateways.enums import CommandState
from apps.gateways.models import Command
from apps.gateways.tests.factories import make_gateway, queue
from apps.gateways.tests.fleets import make_fleet
from conftest import Cast
from opsmap.threads import Application

pytestmark = pytest.mark.django_db(transaction=True)


class Site:
    """The application without a server, for somebody who is signed in."""

    def __init__(self, user: Any) -> None:
        client = Client()
        client.force_login(user)
        self.cookie = f"sessionid={client.cookies['sessionid'].value}"
        self.application = Application()

    def ask(self, path: str) -> ApplicationCommunicator:
        path, _, query = path.partition("?")
        headers = [(b"host", b"localhost"), (b"cookie", self.cookie.encode())]
        scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": path, "scheme": "http"}
        return ApplicationCommunicator(self.application, scope | {"query_string": query.encode(), "headers": headers})

    async def get(self, path: str) -> Any:
        request = self.ask(path)
        await request.send_input({"type": "http.request", "body": b""})
        start = await request.receive_output(timeout=20)
        body = await request.receive_output(timeout=20)
        await request.wait(timeout=20)
        return start["status"], json.loads(body["body"])


@transaction.atomic
def end(commands: Iterable[Command], *, is_told: bool = True) -> None:
    """The commands have ended; with a hint, as an ingester gives it, or without."""
    ids = [command.pk for command in commands]
    Command.objects.filter(pk__in=ids).update(state=CommandState.SUCCEEDED)
    if is_told:
        announce_ends_on_commit(ids)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


def count_waiters() -> int:
    return sum(len(room._waiters) for room in waiting._rooms.values())


async def until_waiting(count: int) -> None:
    await until(lambda: count_waiters() >= count)


@database_sync_to_async
def make_site(cast: Cast, count: int) -> tuple[Site, list[Command]]:
    [agent] = make_fleet(make_gateway(cast.acme), "srv-1")
    return Site(cast.viewer), [queue(agent) for _ in range(count)]


async def test_hundreds_who_wait_hold_up_nobody_and_all_hear_of_the_end(cast: Cast) -> None:
    site, commands = await make_site(cast, 300)
    threads_before = threading.active_count()
    waits = [asyncio.create_task(site.get(f"/api/v1/commands/{command.pk}?wait=30")) for command in commands]
    await until_waiting(300)
    assert threading.active_count() < threads_before + 50
    # More of these than there are database connections, while everybody waits.
    others = await asyncio.gather(*(site.get("/api/v1/agents") for _ in range(20)))
    assert {status for status, _ in others} == {200}
    assert not any(wait.done() for wait in waits)
    await database_sync_to_async(end)(commands)
    answers = await asyncio.gather(*waits)
    assert {(status, shown["state"]) for status, shown in answers} == {(200, "succeeded")}


async def test_an_end_that_no_hint_told_is_seen_all_the_same(cast: Cast) -> None:
    site, [command] = await make_site(cast, 1)
    with patch.object(waiting, "LOOK_INTERVAL_S", 0.05):
        wait = asyncio.create_task(site.get(f"/api/v1/commands/{command.pk}?wait=30"))
        await until_waiting(1)
        await database_sync_to_async(end)([command], is_told=False)
        status, shown = await wait
    assert (status, shown["state"]) == (200, "succeeded")


async def test_a_hint_alone_is_enough(cast: Cast) -> None:
    """Many wait in one room: the look of each second must not be what they wait for."""
    site, commands = await make_site(cast, 2)
    looks: list[Any] = []

    def look(command_ids: Any) -> set[Any]:
        looks.append(set(command_ids))
        return set(command_ids)

    with patch.object(waiting, "list_open_ids", look), patch.object(waiting, "LOOK_INTERVAL_S", 60):
        waits = [asyncio.create_task(site.get(f"/api/v1/commands/{command.pk}?wait=30")) for command in commands]
        await until_waiting(2)
        await until(lambda: any(len(asked) == 2 for asked in looks))
        # It listens: what is told from here on is heard.
        await database_sync_to_async(end)(commands[:1])
        status, shown = await waits[0]
        assert (status, shown["state"]) == (200, "succeeded")
        assert not waits[1].done()
        await database_sync_to_async(end)(commands[1:])
        await waits[1]


async def test_who_comes_in_after_the_hint_has_missed_nothing(cast: Cast) -> None:
    """A command may end between the look at it and the wait for it."""
    site, [first, second, *_] = await make_site(cast, 2)
    wait = asyncio.create_task(site.get(f"/api/v1/commands/{first.pk}?wait=30"))
    await until_waiting(1)
    room = waiting._rooms[asyncio.get_running_loop()]
    await until(lambda: room._heard.reaches(time.monotonic()))
    seen_open_at = time.monotonic()
    await database_sync_to_async(end)([second])
    await until(lambda: second.pk in room._heard.ended)
    with patch.object(waiting, "list_open_ids", side_effect=AssertionError("a look")):
        await asyncio.wait_for(waiting.wait_for_ends([second.pk], timeout_s=30, seen_open_at=seen_open_at), 5)
    await database_sync_to_async(end)([first])
    await wait


async def test_who_saw_theirs_open_before_the_room_listened_is_looked_for(cast: Cast) -> None:
    _, [command] = await make_site(cast, 1)
    seen_open_at = time.monotonic()
    await database_sync_to_async(end)([command], is_told=False)
    with patch.object(waiting, "LOOK_INTERVAL_S", 60):
        await asyncio.wait_for(waiting.wait_for_ends([command.pk], timeout_s=30, seen_open_at=seen_open_at), 5)


def test_a_room_forgets() -> None:
    memory, early, late = waiting._Memory(), uuid.uuid4(), uuid.uuid4()
    with patch.object(waiting, "time") as clock:
        clock.monotonic.return_value = 100.0
        assert not memory.reaches(100.0)
        memory.begin()
        memory.add({early})
        assert (memory.reaches(100.0), memory.reaches(99.9), memory.ended) == (True, False, {early})
        clock.monotonic.return_value = 100.0 + waiting.MEMORY_S + 0.1
        memory.add({late})
        assert (memory.reaches(100.0), memory.reaches(101.0), memory.ended) == (False, True, {late})
        memory.end()
        assert (memory.reaches(101.0), memory.ended) == (False, set())


async def test_without_redis_a_wait_still_ends(cast: Cast) -> None:
    site, [command] = await make_site(cast, 1)

    async def refuse(*arguments: Any) -> None:
        raise ConnectionError("no Redis")

    with (
        patch("channels_redis.pubsub.RedisPubSubChannelLayer.new_channel", refuse, create=True),
        patch.object(waiting, "LOOK_INTERVAL_S", 0.05),
        patch.object(waiting, "logger") as logger,
    ):
        wait = asyncio.create_task(site.get(f"/api/v1/commands/{command.pk}?wait=30"))
        await until_waiting(1)
        await database_sync_to_async(end)([command], is_told=False)
        _, shown = await wait
    assert shown["state"] == "succeeded"
    logger.warning.assert_called_once()


async def test_a_wait_ends_when_its_time_is_over(cast: Cast) -> None:
    site, [command] = await make_site(cast, 1)
    status, shown = await site.get(f"/api/v1/commands/{command.pk}?wait=1")
    assert (status, shown["state"]) == (200, "queued")
    assert count_waiters() == 0


async def test_who_hangs_up_waits_no_longer(cast: Cast) -> None:
    site, [command] = await make_site(cast, 1)
    request = site.ask(f"/api/v1/commands/{command.pk}?wait=30")
    await request.send_input({"type": "http.request", "body": b""})
    await until_waiting(1)
    await request.send_input({"type": "http.disconnect"})
    with contextlib.suppress(asyncio.CancelledError):
        await request.wait(timeout=5)
    assert count_waiters() == 0


async def test_an_empty_room_is_closed(cast: Cast) -> None:
    site, [command] = await make_site(cast, 1)
    with patch.object(waiting, "LINGER_S", 0.01):
        await site.get(f"/api/v1/commands/{command.pk}?wait=1")
    room = waiting._rooms[asyncio.get_running_loop()]
    await asyncio.sleep(0.1)
    assert room._tasks == []
