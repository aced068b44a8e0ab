"""Staying connected: which address, when again, and what an exception means."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.frames import Close
from websockets.http11 import Response

from opsmap_daemon import tls
from opsmap_daemon.backoff import Reconnect
from opsmap_daemon.connection import (
    Addresses,
    Dialler,
    GaveUpError,
    Keepalive,
    PeerRefusedError,
    PeerUnavailableError,
    Verdict,
    judge,
    with_default_path,
)
from opsmap_protocol.errors import CloseCode, FatalError, InvalidIdentityError

if TYPE_CHECKING:
    from conftest import Listen, Pki

RECONNECT = Reconnect(initial_delay_ms=1_000, max_delay_ms=30_000, multiplier=2.0)
Session = Callable[[ClientConnection], Awaitable[None]]


class Pauses:
    """Stands in for sleeping: notes each delay and ends the test after so many."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.delays: list[float] = []

    async def sleep(self, delay_s: float) -> None:
        self.delays.append(delay_s)
        if len(self.delays) == self.limit:
            raise asyncio.CancelledError


def accept_anybody(certificate: dict[str, Any]) -> None:
    assert certificate["subjectAltName"]


def refuse_everybody(certificate: dict[str, Any]) -> None:
    raise InvalidIdentityError("not whom we wanted")


def dialler_to(pki: Pki, *ports: int, **options: Any) -> Dialler:
    leaf = pki.agent("srv-1")
    defaults: dict[str, Any] = {"verify_peer": accept_anybody, "reconnect": RECONNECT, "draw": lambda: 1.0}
    return Dialler(
        urls=[f"wss://localhost:{port}/agent/" for port in ports],
        tls_context=tls.client_context(leaf.cert, leaf.key, pki.gateway_ca.ca),
        **(defaults | options),
    )


async def until_cancelled(dialler: Dialler, session: Session) -> None:
    with suppress(asyncio.CancelledError):
        await dialler.run(session)


async def no_session(socket: ClientConnection) -> None:
    raise AssertionError("nobody should be there")


async def test_unreachable_addresses_are_tried_in_turn_with_growing_delays(
    pki: Pki, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    pauses = Pauses(4)
    await until_cancelled(dialler_to(pki, free_port, 1, sleep=pauses.sleep), no_session)
    assert pauses.delays == [1.0, 2.0, 4.0, 8.0]
    tried = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [f":{free_port}/" in line for line in tried] == [True, False] * 4


async def test_fallback_follows_at_once_and_success_resets_the_delay(pki: Pki, listen: Listen, free_port: int) -> None:
    pauses = Pauses(3)
    async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as gateway:

        async def session(socket: ClientConnection) -> None:
            dialler.established()
            await socket.send("hello")

        dialler = dialler_to(pki, free_port, gateway.port, sleep=pauses.sleep)
        await until_cancelled(dialler, session)
        for _ in range(3):
            assert await (await gateway.accept()).next_frame() == "hello"
    assert pauses.delays == [1.0, 1.0, 1.0]


async def test_session_that_is_never_established_counts_as_failure(pki: Pki, listen: Listen) -> None:
    pauses = Pauses(3)
    async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as gateway:

        async def session(socket: ClientConnection) -> None:
            await socket.send("hello")

        await until_cancelled(dialler_to(pki, gateway.port, sleep=pauses.sleep), session)
    assert pauses.delays == [1.0, 2.0, 4.0]


async def test_diallers_that_share_addresses_never_meet(pki: Pki, listen: Listen) -> None:
    addresses = Addresses()
    async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as gateway:

        async def stay(socket: ClientConnection) -> None:
            await socket.wait_closed()

        first = asyncio.create_task(until_cancelled(dialler_to(pki, gateway.port, addresses=addresses), stay))
        await gateway.accept()
        url = f"wss://localhost:{gateway.port}/agent/"
        assert not addresses.are_free([url])
        assert addresses.are_free([url, "wss://elsewhere/"])
        pauses = Pauses(3)
        second = dialler_to(
            pki, gateway.port, addresses=addresses, sleep=pauses.sleep, reconnect=Reconnect(max_attempts=1)
        )
        await until_cancelled(second, no_session)
        # There was nobody to ask: that is no failed attempt, and no refusal.
        assert pauses.delays == [1.0, 2.0, 4.0]
        first.cancel()
        await asyncio.wait([first])
        assert addresses.are_free([url])


async def test_peer_that_is_full_is_asked_again_soon(pki: Pki, listen: Listen) -> None:
    pauses = Pauses(1)

    async def session(socket: ClientConnection) -> None:
        raise PeerUnavailableError("it is about to stop")

    async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as gateway:
        await until_cancelled(dialler_to(pki, gateway.port, sleep=pauses.sleep), session)
    assert pauses.delays == [1.0]


async def test_fatal_error_says_its_close_code(pki: Pki, listen: Listen) -> None:
    async def session(socket: ClientConnection) -> None:
        raise FatalError(CloseCode.BAD_MESSAGE, "malformed_message", "nonsense")

    pauses = Pauses(1)
    async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as gateway:
        await until_cancelled(dialler_to(pki, gateway.port, sleep=pauses.sleep), session)
        assert await (await gateway.accept()).close_code() == CloseCode.BAD_MESSAGE
    assert pauses.delays == [30.0]


async def test_refusal_waits_the_longest_delay(pki: Pki, listen: Listen, caplog: pytest.LogCaptureFixture) -> None:
    pauses = Pauses(2)

    async def session(socket: ClientConnection) -> None:
        raise PeerRefusedError("it speaks version 2")

    async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as gateway:
        await until_cancelled(dialler_to(pki, gateway.port, sleep=pauses.sleep), session)
    assert pauses.delays == [30.0, 30.0]
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [f"wss://localhost:{gateway.port}/agent/: it speaks version 2"] * 2


async def test_refusal_by_one_of_two_waits_the_usual_delay(pki: Pki, listen: Listen, free_port: int) -> None:
    pauses = Pauses(1)
    async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as gateway:
        dialler = dialler_to(pki, gateway.port, free_port, sleep=pauses.sleep, verify_peer=refuse_everybody)
        await until_cancelled(dialler, no_session)
        assert await (await gateway.accept()).close_code() == CloseCode.IDENTITY_MISMATCH
    assert pauses.delays == [1.0]


async def test_certificate_of_another_branch_is_refused(pki: Pki, listen: Listen) -> None:
    """Under the same root, but not under the Gateway CA that the agent trusts."""
    pauses = Pauses(1)
    async with listen(pki.backend(), pki.agent_ca.ca) as impostor:
        await until_cancelled(dialler_to(pki, impostor.port, sleep=pauses.sleep), no_session)
    assert pauses.delays == [30.0]


async def test_gives_up_after_max_attempts_if_told_to(pki: Pki, free_port: int) -> None:
    pauses = Pauses(10)
    reconnect = Reconnect(initial_delay_ms=1_000, max_attempts=3)
    with pytest.raises(GaveUpError, match="gave up after 3 attempts"):
        await dialler_to(pki, free_port, reconnect=reconnect, sleep=pauses.sleep).run(no_session)
    assert len(pauses.delays) == 2


async def test_fault_of_ours_is_not_hidden(pki: Pki, listen: Listen) -> None:
    async def session(socket: ClientConnection) -> None:
        raise KeyError("a bug")

    async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as gateway:
        with pytest.raises(KeyError):
            await dialler_to(pki, gateway.port).run(session)


async def test_cancelling_closes_in_order(pki: Pki, listen: Listen) -> None:
    is_serving = asyncio.Event()

    async def session(socket: ClientConnection) -> None:
        is_serving.set()
        await socket.wait_closed()

    async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as gateway:
        running = asyncio.create_task(dialler_to(pki, gateway.port).run(session))
        wire = await gateway.accept()
        await is_serving.wait()
        running.cancel()
        assert await wire.close_code() == 1001
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_half_open_connection_is_found_dead(pki: Pki, listen: Listen) -> None:
    pauses = Pauses(1)
    async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as gateway:

        async def session(socket: ClientConnection) -> None:
            async for _ in socket:
                pass

        keepalive = Keepalive(interval_s=0.05, timeout_s=0.05)
        dialler = dialler_to(pki, gateway.port, keepalive=keepalive, sleep=pauses.sleep, close_timeout_s=0.05)
        running = asyncio.create_task(until_cancelled(dialler, session))
        wire = await gateway.accept()
        wire.socket.transport.pause_reading()
        async with asyncio.timeout(2):
            await running
        wire.socket.transport.abort()
    assert pauses.delays == [1.0]


async def test_local_address_is_asked_for_each_attempt(pki: Pki, listen: Listen) -> None:
    asked: list[str] = []

    def local_address() -> tuple[str, int]:
        asked.append("again")
        return ("127.0.0.1", 0)

    async def session(socket: ClientConnection) -> None:
        assert socket.local_address[0] == "127.0.0.1"

    pauses = Pauses(2)
    async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as gateway:
        dialler = dialler_to(pki, gateway.port, local_address=local_address, sleep=pauses.sleep)
        await until_cancelled(dialler, session)
    assert len(asked) == 2


def closed(code: int | None = None, reason: str = "", cause: BaseException | None = None) -> ConnectionClosedError:
    error = ConnectionClosedError(Close(code, reason) if code else None, None)
    error.__cause__ = cause
    return error


def status(code: int) -> InvalidStatus:
    return InvalidStatus(Response(code, "", Headers()))


def alert() -> ssl.SSLError:
    error = ssl.SSLError(1, "alert")
    error.reason = "TLSV1_ALERT_UNKNOWN_CA"
    return error


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (PeerRefusedError("no"), Verdict("no", True)),
        (InvalidIdentityError("who?"), Verdict("who?", True)),
        (alert(), Verdict("TLS failed: tlsv1 alert unknown ca", True)),
        (closed(4401, "who?"), Verdict("it closed the connection: who? (4401)", True)),
        (closed(4403, "who?"), Verdict("it closed the connection: who? (4403)", True)),
        (closed(4406, "old"), Verdict("it closed the connection: old (4406)", True)),
        (closed(4409, "replaced"), Verdict("it closed the connection: replaced (4409)")),
        (closed(4429), Verdict("it closed the connection: no reason given (4429)")),
        (closed(1001), Verdict("it closed the connection: no reason given (1001)")),
        (closed(), Verdict("connection lost")),
        (closed(cause=alert()), Verdict("TLS failed: tlsv1 alert unknown ca", True)),
        (closed(cause=ConnectionResetError()), Verdict("connection lost")),
        (status(403), Verdict("it answers HTTP 403", True)),
        (status(502), Verdict("it answers HTTP 502")),
        (ConnectionRefusedError(111, "Connection refused"), Verdict("Connection refused")),
        (TimeoutError("too late"), Verdict("too late")),
        (TimeoutError(), Verdict("TimeoutError")),
        (ExceptionGroup("", [closed(), PeerRefusedError("no")]), Verdict("no", True)),
        (ExceptionGroup("", [closed(), closed(1001)]), Verdict("connection lost")),
        (ExceptionGroup("", [closed(), KeyError("bug")]), None),
        (KeyError("bug"), None),
        (asyncio.CancelledError(), None),
    ],
    ids=repr,
)
def test_verdicts(error: BaseException, verdict: Verdict | None) -> None:
    assert judge(error) == verdict


@pytest.mark.parametrize("error", [ConnectionResetError(), InvalidMessage("did not receive a valid HTTP response")])
def test_early_end_hints_at_our_certificate(error: Exception) -> None:
    verdict = judge(error)
    assert verdict is not None
    assert "perhaps it does not accept our certificate" in verdict.text
    assert not verdict.is_refusal


def test_peer_that_is_no_websocket_server_is_a_refusal() -> None:
    verdict = judge(InvalidHandshake("no upgrade"))
    assert verdict == Verdict("it does not speak WebSocket as expected: no upgrade", True)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("wss://h:1", "wss://h:1/agent/"),
        ("wss://h:1/", "wss://h:1/agent/"),
        ("wss://h:1/elsewhere", "wss://h:1/elsewhere"),
        ("wss://[::1]:1", "wss://[::1]:1/agent/"),
    ],
)
def test_default_path(url: str, expected: str) -> None:
    assert with_default_path(url, "/agent/") == expected
