"""Which WebSockets of browsers are let in to be looked at further."""

from __future__ import annotations

from typing import Any

import pytest
from channels.testing import WebsocketCommunicator

from opsmap.lib.origins import RequireOrigin

PATIENCE_S = 20


async def _accept(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})


async def _is_let_in(*headers: tuple[bytes, bytes]) -> bool:
    socket = WebsocketCommunicator(RequireOrigin(_accept), "/ws/maps/", headers=list(headers))
    connected, _ = await socket.connect(timeout=PATIENCE_S)
    await socket.disconnect(timeout=PATIENCE_S)
    return bool(connected)


async def test_one_real_origin_is_let_in() -> None:
    assert await _is_let_in((b"host", b"ops.example.com"), (b"origin", b"https://ops.example.com"))


@pytest.mark.parametrize(
    "origins",
    [(), (b"null",), (b"",), (b"https://ops.example.com", b"https://evil.example")],
    ids=["missing", "null", "empty", "two"],
)
async def test_missing_or_doubtful_origin_is_denied(origins: tuple[bytes, ...]) -> None:
    assert not await _is_let_in((b"host", b"ops.example.com"), *((b"origin", value) for value in origins))
