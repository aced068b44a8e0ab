"""Hints by the channel layer from synchronous code, without waiting for Redis.

A request must not pay for a hint (an event loop of its own, 2 ms): one thread of the process has a loop that stays.
Hints may be lost, so nothing is tried twice; whoever listens also looks for itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from typing import Any

from channels.layers import get_channel_layer

logger = logging.getLogger(__name__)

MAX_WAITING = 1000
"""Hints under way while Redis does not answer; more are left out."""


class _Sender:
    """An event loop in a thread, with the channel layer's connection to Redis."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._waiting = 0
        self._has_failed = False
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="hints", daemon=True).start()

    def send(self, group: str, message: dict[str, Any]) -> None:
        if self._waiting < MAX_WAITING:
            self._waiting += 1
            asyncio.run_coroutine_threadsafe(self._send(group, message), self._loop)

    async def _send(self, group: str, message: dict[str, Any]) -> None:
        layer = get_channel_layer()
        assert layer is not None
        try:
            await layer.group_send(group, message)
            self._has_failed = False
        except Exception:
            # Told once: with Redis away there are many.
            if not self._has_failed:
                logger.warning("hints cannot be sent", exc_info=True)
            self._has_failed = True
        finally:
            self._waiting -= 1


_lock = threading.Lock()
_sender: _Sender | None = None


def send_hint(group: str, message: dict[str, Any]) -> None:
    """Tell a channel group, soon. Returns at once, from whatever thread."""
    global _sender  # noqa: PLW0603 - one for the process
    with _lock:
        # A fork has the object, but not its thread.
        if _sender is None or _sender.pid != os.getpid():
            _sender = _Sender()
    _sender.send(group, message)
