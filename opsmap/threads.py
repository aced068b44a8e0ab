"""Django's ASGI application with threads that are lent to requests.

Under ASGI, Django starts a thread for each request, and a second one that waits for the first one's end: more work than
what most requests do in it. Here a request borrows a thread when it first needs one, has it to itself, and gives it
back in the end, or earlier when it has nothing to do for long (`give_back_thread`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_started
from django.db import close_old_connections, reset_queries

Send = Callable[[Mapping[str, Any]], Awaitable[None]]

MAX_IDLE = 32
"""Threads that are kept for requests to come."""

_idle: list[ThreadPoolExecutor] = []
"""The one that was given back last is lent first. Only event loops touch it, never a thread."""


class LentThread(Executor):
    """Runs what it is given in one thread, which it borrows when it gets something to do."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._is_answered = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._thread is None and self._is_answered:
            return _run_here(partial(fn, *args, **kwargs))
        if self._thread is None:
            self._thread = _idle.pop() if _idle else ThreadPoolExecutor(1, thread_name_prefix="request")
        return self._thread.submit(fn, *args, **kwargs)

    def watch(self, send: Send) -> Send:
        """`send` as it is, but with the end of the answer noticed. All that Django does after that is to close what the
        request has open; without a thread that is nothing, and not worth a trip to one.
        """

        async def watched(message: Mapping[str, Any]) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._is_answered = True

        return watched

    def give_back(self) -> None:
        """Nothing may be under way in it. What is submitted later runs in another thread."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if len(_idle) < MAX_IDLE:
            _idle.append(thread)
        else:
            thread.shutdown(wait=False)


def _run_here(call: Callable[[], Any]) -> Future[Any]:
    done: Future[Any] = Future()
    try:
        done.set_result(call())
    except Exception as error:
        done.set_exception(error)
    return done


def give_back_thread() -> None:
    """The request that runs here needs no thread for a while, or any more, and has no database connection."""
    context = SyncToAsync.thread_sensitive_context.get(None)
    lent = SyncToAsync.context_to_thread_executor.get(context) if context else None
    if isinstance(lent, LentThread):
        lent.give_back()


class Application(ASGIHandler):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        lent = LentThread()
        try:
            async with ThreadSensitiveContext(executor=lent):
                # The context of the base class is within this one, and has no effect.
                await super().__call__(scope, receive, lent.watch(send))
        finally:
            lent.give_back()


def leave_out_empty_beginnings() -> None:
    """A request's thread has no database connections when it begins: each request closes its own at its end. To look
    for old ones all the same would cost each request a trip to its thread and back. For servers, not for tests.
    """
    request_started.disconnect(close_old_connections)
    if not settings.DEBUG:
        request_started.disconnect(reset_queries)
