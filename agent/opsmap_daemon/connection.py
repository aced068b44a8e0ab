"""Staying connected: the dialling side of a link, for ever, through every address that may answer.

    dialler = Dialler(urls=..., tls_context=..., verify_peer=..., reconnect=..., keepalive=...)
    await dialler.run(session)

`session(socket)` is called with each new connection and serves it until it ends; once the peer has accepted
us it calls `dialler.established()`. A *round* tries the addresses one after another; between rounds comes the
back-off. `judge` alone decides what an exception means.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.frames import CloseCode as StandardCloseCode

from opsmap_daemon import tls
from opsmap_daemon.backoff import Reconnect
from opsmap_protocol import MAX_FRAME_BYTES
from opsmap_protocol.errors import CloseCode, FatalError, InvalidIdentityError

_logger = logging.getLogger(__name__)

Session = Callable[[ClientConnection], Awaitable[None]]
VerifyPeer = Callable[[dict[str, Any]], None]
"""Looks at the verified certificate of the other side; raises InvalidIdentityError if we do not want it."""

_REFUSALS = {
    CloseCode.UNAUTHENTICATED,
    CloseCode.IDENTITY_MISMATCH,
    CloseCode.VERSION_UNSUPPORTED,
}
_CLIENT_ERRORS = range(400, 500)
_REVOKED_PAUSE_S = 300.0
"""Between two attempts of one that was revoked. It hears the same each time, until somebody enrols it anew."""
# asyncio's TLS server drops a client whose certificate it refuses without the alert that would say so.
_CLOSED_EARLY = "it closed the connection during the handshake; perhaps it does not accept our certificate"


class PeerRefusedError(Exception):
    """The other side will not serve us as we are: somebody has to change something, here or there."""


class RevokedError(PeerRefusedError):
    """The other side says that our certificate was revoked: what has happened, and what is to be done."""

    def __init__(self, reason: str) -> None:
        told = reason or "no reason given"
        super().__init__(f"our certificate was revoked ({told}): nothing is left but to enrol anew")


class PeerUnavailableError(Exception):
    """The other side cannot serve us now: it is full, or about to stop."""


class GaveUpError(Exception):
    """`max_attempts` rounds failed one after another."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a connection ended. After a refusal, trying again soon is pointless: it waits the longest delay.

    After a revocation it waits for minutes.
    """

    text: str
    is_refusal: bool = False
    is_revocation: bool = False


@dataclass(frozen=True, slots=True)
class Keepalive:
    """WebSocket pings: a connection without an answer is dead after `interval_s + timeout_s`.

    Pings wait in the same buffer as everything else, so whoever sends must bound the time of a `send` as well.
    """

    interval_s: float = 20.0
    timeout_s: float = 20.0


def judge(error: BaseException) -> Verdict | None:
    """Try again soon, try again slowly, or give up: what an exception of a connection means.

    Returns:
        None for an exception that has nothing to do with the connection: a fault of ours, to be raised.
    """
    if isinstance(error, BaseExceptionGroup):
        return _judge_group(error)
    if isinstance(error, RevokedError):
        return Verdict(str(error), is_refusal=True, is_revocation=True)
    if isinstance(error, (PeerRefusedError, InvalidIdentityError, FatalError)):
        return Verdict(str(error), is_refusal=True)
    if isinstance(error, PeerUnavailableError):
        return Verdict(str(error))
    if isinstance(error, ssl.SSLCertVerificationError):
        return Verdict(f"its certificate is not accepted: {tls.describe(error)}", is_refusal=True)
    if isinstance(error, ssl.SSLError):
        # An alert is the peer's answer to our certificate or TLS version; anything else may be a broken
        # network.
        return Verdict(f"TLS failed: {tls.describe(error)}", is_refusal="alert" in tls.describe(error))
    if isinstance(error, ConnectionClosed):
        return _judge_close(error)
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        return Verdict(f"it answers HTTP {status}", is_refusal=status in _CLIENT_ERRORS)
    if isinstance(error, InvalidMessage):
        return Verdict(_CLOSED_EARLY)
    if isinstance(error, InvalidHandshake):
        return Verdict(f"it does not speak WebSocket as expected: {error}", is_refusal=True)
    if isinstance(error, ConnectionResetError):
        return Verdict(_CLOSED_EARLY)
    if isinstance(error, OSError):  # TimeoutError is one of them
        return Verdict(error.strerror or str(error) or type(error).__name__)
    return None


def _judge_group(group: BaseExceptionGroup[BaseException]) -> Verdict | None:
    verdicts = [judge(error) for error in group.exceptions]
    known = [verdict for verdict in verdicts if verdict is not None]
    if len(known) < len(verdicts):
        return None
    return max(known, key=lambda verdict: (verdict.is_revocation, verdict.is_refusal))


def _judge_close(error: ConnectionClosed) -> Verdict:
    if error.rcvd is not None:
        if error.rcvd.code == CloseCode.REVOKED:
            return Verdict(str(RevokedError(error.rcvd.reason)), is_refusal=True, is_revocation=True)
        text = f"it closed the connection: {error.rcvd.reason or 'no reason given'} ({error.rcvd.code})"
        return Verdict(text, is_refusal=error.rcvd.code in _REFUSALS)
    cause = error.__cause__
    if isinstance(cause, OSError):
        verdict = judge(cause)
        if verdict is not None and verdict.is_refusal:
            return verdict
    if error.sent is not None:
        return Verdict(f"connection lost: {error.sent.reason or 'closed without an answer'}")
    return Verdict("connection lost")


async def close_within(timeout_s: float, socket: Connection, code: int, reason: str = "") -> None:
    """Close in order, or drop the socket if that takes too long.

    The library bounds the answer to a close, but not the way to it: behind data that the peer does not read, its
    `close()` waits for ever.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await socket.close(code, reason)
    except TimeoutError:
        socket.transport.abort()


def with_default_path(url: str, path: str) -> str:
    """The URL with `path` if it names none: configurations name hosts, the link decides the path."""
    parts = urlsplit(url)
    return url if parts.path not in ("", "/") else parts._replace(path=path).geturl()


class Addresses:
    """Which addresses somebody holds or is dialling, so that diallers that share them never meet at one."""

    def __init__(self) -> None:
        self._holders: dict[str, object] = {}

    def are_free(self, urls: Iterable[str]) -> bool:
        """Whether one of `urls` is free."""
        return not self._holders.keys() >= set(urls)

    def take(self, url: str, holder: object) -> bool:
        """False if somebody else has it."""
        return self._holders.setdefault(url, holder) is holder

    def hand_over(self, url: str, holder: object) -> None:
        """The address is another's from now on, whoever has it; that one gives back nothing any more."""
        self._holders[url] = holder

    def give_back(self, url: str, holder: object) -> None:
        if self._holders.get(url) is holder:
            del self._holders[url]


class Dialler:
    """Keeps one session alive through `urls`, the preferred one first.

    Args:
        urls: full `wss://` URLs.
        addresses: shared by diallers that must not be connected to the same URL.
        tls_context: from `opsmap_daemon.tls.client_context`.
        verify_peer: called with the peer's certificate before the session sees the socket.
        local_address: called before each attempt; the (host, port) to connect from, or None.
        close_timeout_s: how long an orderly close may take before the socket is dropped.
        draw, sleep: random numbers and time, for tests.
    """

    def __init__(
        self,
        *,
        urls: Sequence[str],
        tls_context: ssl.SSLContext,
        verify_peer: VerifyPeer,
        reconnect: Reconnect,
        keepalive: Keepalive = Keepalive(),
        local_address: Callable[[], tuple[str, int] | None] = lambda: None,
        addresses: Addresses | None = None,
        open_timeout_s: float = 10.0,
        close_timeout_s: float = 2.0,
        draw: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._urls = tuple(urls)
        self._tls_context = tls_context
        self._verify_peer = verify_peer
        self._reconnect = reconnect
        self._keepalive = keepalive
        self._local_address = local_address
        self._addresses = addresses or Addresses()
        self._open_timeout_s = open_timeout_s
        self._close_timeout_s = close_timeout_s
        self._draw = draw
        self._sleep = sleep
        self._is_established = False
        self.url = ""
        """The address in use or being dialled."""

    def established(self) -> None:
        """The peer accepted us: forget earlier failures."""
        self._is_established = True

    async def run(self, session: Session, first: str | None = None) -> NoReturn:
        """Connect, serve, and connect again until cancelled. Cancelling closes the socket in order.

        Args:
            first: the address to begin with, instead of the preferred one.

        Raises:
            GaveUpError: only if `max_attempts` is set.
            Exception: whatever `judge` does not know, a fault of ours.
        """
        delays = self._reconnect.delays(self._draw)
        failed_rounds = 0
        urls = self._urls if first is None else (first, *(url for url in self._urls if url != first))
        while True:
            was_established, verdicts = await self._round(session, urls)
            urls = self._urls
            if was_established:
                delays = self._reconnect.delays(self._draw)
                failed_rounds = 0
            elif verdicts:
                failed_rounds += 1
                if failed_rounds == self._reconnect.max_attempts:
                    raise GaveUpError(f"gave up after {failed_rounds} attempts: {verdicts[-1].text}")
            delay_s = next(delays)
            if verdicts and all(verdict.is_refusal for verdict in verdicts):
                delay_s = max(delay_s, self._reconnect.max_delay_s)
            if verdicts and all(verdict.is_revocation for verdict in verdicts):
                delay_s = _REVOKED_PAUSE_S * (0.5 + self._draw())
            level = logging.INFO if verdicts else logging.DEBUG
            _logger.log(level, "connecting again in %.1f s", delay_s)
            await self._sleep(delay_s)

    async def _round(self, session: Session, urls: Sequence[str]) -> tuple[bool, list[Verdict]]:
        """Try the free addresses until one has served a session; whether one did, and how each ended."""
        verdicts: list[Verdict] = []
        for url in urls:
            if not self._addresses.take(url, self):
                continue
            self._is_established = False
            self.url = url
            try:
                verdict = await self._attempt(url, session)
            finally:
                self._addresses.give_back(url, self)
            verdicts.append(verdict)
            level = logging.ERROR if verdict.is_refusal else logging.WARNING
            _logger.log(level, "%s: %s", url, verdict.text)
            if self._is_established:
                return True, verdicts
        return False, verdicts

    async def _attempt(self, url: str, session: Session) -> Verdict:
        try:
            socket = await self._open(url)
            await self._serve(socket, session)
        except Exception as error:
            verdict = judge(error)
            if verdict is None:
                raise
            return verdict
        return Verdict("the session ended")

    async def _open(self, url: str) -> ClientConnection:
        return await connect(
            url,
            ssl=self._tls_context,
            local_addr=self._local_address(),
            compression=None,
            # A link is direct by design; a proxy that some shell exported must not get between.
            proxy=None,
            open_timeout=self._open_timeout_s,
            close_timeout=self._close_timeout_s,
            ping_interval=self._keepalive.interval_s,
            ping_timeout=self._keepalive.timeout_s,
            max_size=MAX_FRAME_BYTES,
        )

    async def _serve(self, socket: ClientConnection, session: Session) -> None:
        code: int = StandardCloseCode.GOING_AWAY
        try:
            self._verify_peer(tls.peer_certificate(socket))
            await session(socket)
        except InvalidIdentityError:
            code = CloseCode.IDENTITY_MISMATCH
            raise
        except FatalError as error:
            code = error.close_code
            raise
        finally:
            # Also when cancelled: a peer that is told does not have to wait for a timeout.
            await close_within(2 * self._close_timeout_s, socket, code)
