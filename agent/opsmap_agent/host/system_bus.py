"""The D-Bus system bus: method calls and the signals that come meanwhile, over one connection at a time.

jeepney knows the wire format and does no I/O here; it is imported at the first use, since most agents at rest never
need it. A connection lives as long as one question: that costs a millisecond, and a bus that was restarted is nobody's
concern.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jeepney import Message

_MAX_REPLY_BYTES = 16 * 1024 * 1024
"""A thousand times what systemd says of an ordinary host."""

_READ_BYTES = 64 * 1024
_PARSED_ELSEWHERE_BYTES = 32 * 1024
"""From here on a reply is read in a thread: a pure Python parser would hold up the event loop."""

_MAX_SIGNALS = 1_000


class BusError(Exception):
    """There is no bus, or it does not behave. The message says what is missing."""


class RefusedByBusError(Exception):
    """The other side answered with an error. `name` is that of D-Bus, the message is for people."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Bus:
    """An open connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from jeepney.low_level import Parser

        self._reader = reader
        self._writer = writer
        self._parser = Parser()
        self._unread = 0
        self._serial = 0
        self._signals: deque[Message] = deque(maxlen=_MAX_SIGNALS)

    async def call(self, message: Message) -> tuple[Any, ...]:
        """What the method answers.

        Raises:
            RefusedByBusError: it answers with an error.
            BusError: it cannot answer.
        """
        (answer,) = await self.call_all([message])
        return answer

    async def call_all(self, messages: list[Message]) -> list[tuple[Any, ...]]:
        """The answers to several calls that are sent at once, in their order; raises for the first error among them."""
        serials = [self._send(message) for message in messages]
        await self._writer.drain()
        answers: dict[int, Message] = {}
        while len(answers) < len(serials):
            message = await self._receive()
            number = _reply_serial(message)
            if number is None:
                self._signals.append(message)
            elif number in serials:
                answers[number] = message
        return [_body(answers[serial]) for serial in serials]

    async def next_signal(self, member: str) -> tuple[Any, ...]:
        """The content of the next signal of that name, also of one that came while calls were answered."""
        from jeepney.low_level import HeaderFields

        while True:
            message = self._signals.popleft() if self._signals else await self._receive()
            if message.header.fields.get(HeaderFields.member) == member:
                return tuple(message.body)

    def _send(self, message: Message) -> int:
        self._serial += 1
        self._writer.write(message.serialise(self._serial))
        return self._serial

    async def _receive(self) -> Message:
        while True:
            message = await self._parsed()
            if message is not None:
                self._unread = 0
                return message
            data = await self._reader.read(_READ_BYTES)
            if not data:
                raise BusError("the D-Bus system bus has closed the connection")
            self._unread += len(data)
            if self._unread > _MAX_REPLY_BYTES:
                raise BusError(f"an answer on the D-Bus system bus is larger than {_MAX_REPLY_BYTES // 1024**2} MiB")
            self._parser.add_data(data)

    async def _parsed(self) -> Message | None:
        try:
            if self._unread < _PARSED_ELSEWHERE_BYTES:
                return self._parser.get_next_message()
            return await asyncio.to_thread(self._parser.get_next_message)
        except (ValueError, LookupError, TypeError, struct.error) as error:
            raise BusError(f"an answer on the D-Bus system bus is not understood: {error}") from None


@asynccontextmanager
async def open_system_bus() -> AsyncIterator[Bus]:
    """A connection to the system bus. The caller sets the time limit.

    Raises:
        BusError: there is none, or it lets this user not in.
    """
    from jeepney.bus import find_system_bus

    try:
        path = find_system_bus()
        reader, writer = await asyncio.open_unix_connection(path)
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BusError(f"this host has no D-Bus system bus: {reason}") from None
    try:
        bus = await _greet(reader, writer)
        yield bus
    except OSError as error:
        raise BusError(f"the D-Bus system bus cannot be talked to: {error}") from None
    finally:
        writer.transport.abort()


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Bus:
    from jeepney.auth import BEGIN, AuthenticationError, Authenticator
    from jeepney.bus_messages import message_bus

    login = Authenticator()
    try:
        for line in login:
            writer.write(line)
            data = await reader.read(1024)
            if not data:
                raise BusError("the D-Bus system bus does not let this user in")
            login.feed(data)
    except AuthenticationError as error:
        raise BusError(f"the D-Bus system bus does not let this user in: {error}") from None
    writer.write(BEGIN)
    bus = Bus(reader, writer)
    await bus.call(message_bus.Hello())
    return bus


def _reply_serial(message: Message) -> int | None:
    from jeepney.low_level import HeaderFields

    number = message.header.fields.get(HeaderFields.reply_serial)
    return number if isinstance(number, int) else None


def _body(reply: Message) -> tuple[Any, ...]:
    from jeepney.low_level import HeaderFields, MessageType

    if reply.header.message_type is MessageType.error:
        text = reply.body[0] if reply.body and isinstance(reply.body[0], str) else ""
        name = str(reply.header.fields.get(HeaderFields.error_name, ""))
        raise RefusedByBusError(name, text or name)
    return tuple(reply.body)
