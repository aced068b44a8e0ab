"""A WebSocket client of the application, without a server."""

from __future__ import annotations

from typing import Any

from asgiref.testing import ApplicationCommunicator
from channels.testing import WebsocketCommunicator


class Communicator(WebsocketCommunicator):
    """Channels' own one lets pool threads keep their database connections, for tests within one transaction.

    Tests of sockets commit, and a connection that is kept is in the way of whoever drops the database.
    """

    async def send_input(self, message: dict[str, Any]) -> None:
        await ApplicationCommunicator.send_input(self, message)

    async def receive_output(self, timeout: float = 1) -> dict[str, Any]:  # noqa: ASYNC109 - Channels has it so  # noqa: ASYNC109 - Channels' own
        output: dict[str, Any] = await ApplicationCommunicator.receive_output(self, timeout)
        return output
