"""Threads that are lent to requests: one at a time for each, used again, and none for those that wait."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.http import HttpResponse
from django.urls import path

from opsmap import threads
from opsmap.threads import Application, LentThread, give_back_thread

used: list[threading.Thread] = []


def note(request: Any) -> HttpResponse:
    used.append(threading.current_thread())
    time.sleep(0.01)
    return HttpResponse("noted")


async def note_twice(request: Any) -> HttpResponse:
    await sync_to_async(note)(request)
    give_back_thread()
    await asyncio.sleep(0.05)
    return await sync_to_async(note)(request)


urlpatterns = [path("note", note), path("note-twice", note_twice)]
pytestmark = pytest.mark.urls(__name__)


@pytest.fixture(autouse=True)
def _afresh(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(threads, "_idle", [])
    used.clear()
    yield
    for thread in threads._idle:
        thread.shutdown()


async def get(address: str) -> int:
    scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": address, "query_string": b""}
    request = ApplicationCommunicator(Application(), scope | {"headers": [(b"host", b"localhost")]})
    await request.send_input({"type": "http.request", "body": b""})
    start = await request.receive_output(timeout=5)
    await request.receive_output(timeout=5)
    await request.wait(timeout=5)
    return int(start["status"])


async def test_one_request_after_the_other_uses_the_same_thread() -> None:
    assert [await get("/note") for _ in range(3)] == [200] * 3
    assert len(set(used)) == 1
    assert used[0] is not threading.current_thread()


async def test_requests_at_the_same_time_have_threads_of_their_own() -> None:
    assert await asyncio.gather(*(get("/note") for _ in range(5))) == [200] * 5
    assert len(set(used)) == 5


async def test_who_gives_back_its_thread_leaves_it_to_others() -> None:
    waiting = asyncio.create_task(get("/note-twice"))
    while not threads._idle:  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.001)
    assert await get("/note") == 200
    assert await waiting == 200
    assert len(used) == 3
    assert len(set(used)) == 1


async def test_no_more_threads_are_kept_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MAX_IDLE", 2)
    await asyncio.gather(*(get("/note") for _ in range(5)))
    assert len(threads._idle) == 2


def test_an_error_in_what_comes_after_the_answer_is_told() -> None:
    lent = LentThread()
    lent._is_answered = True
    with pytest.raises(ZeroDivisionError):
        lent.submit(lambda: 1 / 0).result(timeout=1)


async def test_nothing_is_run_in_the_event_loop_before_the_end_of_the_answer() -> None:
    lent, sent = LentThread(), []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    watched = lent.watch(send)
    for message in ({"type": "http.response.start"}, {"type": "http.response.body", "more_body": True}):
        await watched(message)
        assert lent.submit(threading.current_thread).result(timeout=1) is not threading.current_thread()
        lent.give_back()
    await watched({"type": "http.response.body"})
    assert lent.submit(threading.current_thread).result(timeout=1) is threading.current_thread()
    assert len(sent) == 3
