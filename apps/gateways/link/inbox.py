"""What a gateway has said and nobody has looked at yet: bounded in frames and in bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

MAX_FRAMES = 1000
MAX_CHARACTERS = 16 * 1024 * 1024
BATCH_FRAMES = 100
BATCH_CHARACTERS = 4 * 1024 * 1024


class Inbox:
    """A queue between the reader of a socket and the one task that stores."""

    def __init__(self) -> None:
        self._frames: deque[tuple[dict[str, Any], int]] = deque()
        self._characters = 0
        self._is_filled = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def put(self, data: dict[str, Any], characters: int) -> None:
        """Waits while it is full; so does the socket, and through it the sender."""
        while not self._has_room.is_set():
            await self._has_room.wait()
        self._frames.append((data, characters))
        self._characters += characters
        self._is_filled.set()
        if len(self._frames) >= MAX_FRAMES or self._characters >= MAX_CHARACTERS:
            self._has_room.clear()

    async def take(self) -> list[dict[str, Any]]:
        """What is there, one frame when idle and a batch under load."""
        await self._is_filled.wait()
        batch: list[dict[str, Any]] = []
        taken = 0
        while self._frames and len(batch) < BATCH_FRAMES and taken < BATCH_CHARACTERS:
            data, characters = self._frames.popleft()
            batch.append(data)
            taken += characters
        self._characters -= taken
        if not self._frames:
            self._is_filled.clear()
        if len(self._frames) < MAX_FRAMES and self._characters < MAX_CHARACTERS:
            self._has_room.set()
        return batch
