"""A listening socket that holds back whoever has not said who it is.

Anybody who reaches the port can open connections, and each costs a TLS handshake's memory before it has to say a word.
Behind a door only so many are unfinished at a time, and none for long; the finished ones are not counted.

    door = Door("0.0.0.0", 8443)
    server = await asyncio.get_running_loop().create_server(factory, sock=door, ssl=context)
    ...
    door.admit(transport)       # it has said who it is

It is a socket with another `accept`, so whatever serves by `sock=` can have one: `websockets.serve`, `uvicorn`. It
needs an event loop of asyncio, which accepts in Python (uvloop does not). Imports nothing of the daemons: the
backend's listener has the same door.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MAX_UNFINISHED = 256
_BACKLOG = 2_048
"""Connections that the kernel holds for us: after a restart all peers come at once."""
_MAX_ACCEPTED_PER_TURN = 32
"""Each costs a third of a millisecond soon after: who is connected already must get its turn in between."""


def collect_dead_connections_soon() -> None:
    """For a process with a door, once, when it has loaded what it needs.

    asyncio leaves a cycle of references for each connection that ends before its TLS handshake does, and 70 KB hang on
    it. The garbage collector counts objects, not bytes, and lets two thousand of them gather: 10,000 connections in a
    row took 168 MB at their height, with this 76 (limit 256). What is loaded already is left out of the more frequent
    collections, so that they stay short.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 3)


class Dropped(StrEnum):
    """Why a connection had to leave before it said who it is."""

    TOO_MANY = "too_many"
    TOO_SLOW = "too_slow"


@dataclass(frozen=True, slots=True)
class _Guest:
    connection: socket.socket
    host: str
    deadline: asyncio.TimerHandle


class Door(socket.socket):
    """Accepts everybody, and drops one that has not finished when there are too many.

    That one is the oldest of the host that has most of them: somebody who opens thousands of connections does not push
    out the only one of somebody else.

    Args:
        host: an address to listen on. A name is looked up, its first address counts.
        port: 0 means any; see `getsockname`.
        limit: how many connections may be unfinished at a time.
        timeout_s: how long one may be unfinished.
        on_drop: called for each connection that had to leave.

    Raises:
        OSError: the address cannot be had.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        limit: int = MAX_UNFINISHED,
        timeout_s: float = 10.0,
        on_drop: Callable[[Dropped], None] = lambda reason: None,
    ) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        super().__init__(family, kind, protocol)
        self._limit = limit
        self._timeout_s = timeout_s
        self._on_drop = on_drop
        self._guests: dict[int, _Guest] = {}
        """The unfinished ones by file descriptor, the oldest first."""
        self._accepted_in_turn = 0
        try:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                self.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self.bind(address)
        except OSError as error:
            self.close()
            raise OSError(error.errno, f"{host} port {port}: {error.strerror}") from None

    @property
    def unfinished(self) -> int:
        """How many connections have not said who they are."""
        self._forget_closed()
        return len(self._guests)

    def listen(self, backlog: int = _BACKLOG, /) -> None:
        """asyncio asks for as many as it accepts in one turn, which is another question."""
        super().listen(max(backlog, _BACKLOG))

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection.

        Raises:
            BlockingIOError: there is none, or the others have to get their turn first.
        """
        if self._accepted_in_turn >= _MAX_ACCEPTED_PER_TURN:
            raise BlockingIOError
        connection, address = super().accept()
        loop = asyncio.get_running_loop()
        if self._accepted_in_turn == 0:
            loop.call_soon(self._begin_turn)
        self._accepted_in_turn += 1
        self._make_room()
        number = connection.fileno()
        self._forget(number)
        deadline = loop.call_later(self._timeout_s, self._drop, number, Dropped.TOO_SLOW)
        self._guests[number] = _Guest(connection, str(address[0]), deadline)
        return connection, address

    def admit(self, transport: asyncio.BaseTransport) -> None:
        """The peer has said who it is, and has nothing to fear from this door any more."""
        its_socket = transport.get_extra_info("socket")
        if its_socket is not None:
            self._forget(its_socket.fileno())

    def close(self) -> None:
        """Listen no more, and see off everybody who has not finished: nobody waits for them to go by themselves."""
        for number, guest in list(self._guests.items()):
            self._forget(number)
            if guest.connection.fileno() == number:
                _shut_down(guest.connection)
        super().close()

    def _begin_turn(self) -> None:
        self._accepted_in_turn = 0

    def _make_room(self) -> None:
        if len(self._guests) < self._limit:
            return
        self._forget_closed()
        if len(self._guests) >= self._limit:
            (busiest, _), *_ = Counter(guest.host for guest in self._guests.values()).most_common(1)
            oldest = next(number for number, guest in self._guests.items() if guest.host == busiest)
            self._drop(oldest, Dropped.TOO_MANY)

    def _drop(self, number: int, reason: Dropped) -> None:
        guest = self._guests[number]
        self._forget(number)
        if guest.connection.fileno() == number:
            # Its owner sees the end of the connection and tidies up; to close what is another's would be a fault.
            _shut_down(guest.connection)
            self._on_drop(reason)

    def _forget_closed(self) -> None:
        closed = [number for number, guest in self._guests.items() if guest.connection.fileno() != number]
        for number in closed:
            self._forget(number)

    def _forget(self, number: int) -> None:
        guest = self._guests.pop(number, None)
        if guest is not None:
            guest.deadline.cancel()


def _shut_down(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The peer was faster.
        return
