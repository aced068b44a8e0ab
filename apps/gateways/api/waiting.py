"""Answers that may come later: when commands have ended, or the time that `?wait=` allows is over."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.db import close_old_connections, connection
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.gateways.waiting import wait_for_ends
from opsmap.threads import give_back_thread

MAX_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class _Awaited:
    command_ids: Collection[uuid.UUID]
    timeout_s: float
    answer: Callable[[], Response]


class WaitingView(APIView):
    """A view whose handlers may say `answer_later`, or `answer_if_asked`.

    Handlers are ordinary ones and run in the thread of their request. While its answer waits, a request has no thread
    and no database connection: hundreds may wait without holding up anybody.
    """

    view_is_async = True
    _awaited: _Awaited | None = None

    def answer_if_asked(self, command_ids: Collection[uuid.UUID], answer: Callable[[], Response]) -> None:
        """If the request asks to wait and there is something to wait for, `answer` takes the place of the response."""
        wait = self.request.query_params.get("wait", "")
        # Only a whole number of seconds is one; Python would also read "²", and numbers of thousands of digits.
        timeout_s = min(float(wait[:6]), MAX_WAIT_S) if wait.isascii() and wait.isdecimal() else 0
        if command_ids and timeout_s:
            self.answer_later(command_ids, answer, timeout_s=timeout_s)

    def answer_later(
        self, command_ids: Collection[uuid.UUID], answer: Callable[[], Response], *, timeout_s: float
    ) -> None:
        """When the commands have ended, or the time is up, `answer` takes the place of the handler's response."""
        self._awaited = _Awaited(command_ids, timeout_s, answer)

    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        began = time.monotonic()
        response = await self._in_thread(super().dispatch, request, *args, **kwargs)
        if (awaited := self._awaited) is None:
            return response
        await wait_for_ends(awaited.command_ids, timeout_s=awaited.timeout_s, seen_open_at=began)
        return await self._in_thread(self._answer, awaited)

    async def _in_thread(self, step: Callable[..., HttpResponseBase], *args: Any, **kwargs: Any) -> HttpResponseBase:
        """A step of the request in a thread, which has neither the thread nor a connection when it is done."""
        response = await sync_to_async(_and_close_connections)(step, *args, **kwargs)
        give_back_thread()
        return response

    def _answer(self, awaited: _Awaited) -> HttpResponseBase:
        try:
            response = awaited.answer()
        except Exception as error:
            response = self.handle_exception(error)
        return self.finalize_response(self.request, response, *self.args, **self.kwargs)


def _and_close_connections(step: Callable[..., HttpResponseBase], *args: Any, **kwargs: Any) -> HttpResponseBase:
    try:
        return step(*args, **kwargs)
    finally:
        # Within a transaction we are in a test, whose thread and connection are not the request's to give back.
        if not connection.in_atomic_block:
            close_old_connections()
