"""When a certificate is renewed: at two thirds of its life, and again, ever more slowly, until it has worked."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Generic, NoReturn, TypeVar

from opsmap_daemon.backoff import Reconnect
from opsmap_daemon.tls import Validity

_logger = logging.getLogger(__name__)
T = TypeVar("T")

DUE_SHARE = 2 / 3
_JITTER_SHARE = 0.06
"""Hosts that were enrolled together must not all come at once."""
_URGENT_SHARE = 0.9
_ANSWER_SHARE, _MIN_ANSWER_S, _MAX_ANSWER_S = 1 / 20, 1.0, 20.0
_LOOK_AGAIN_S = 3600.0
"""A clock that was set shows after so long."""
_MIN_PAUSE_S, _MAX_FIRST_PAUSE_S, _MAX_PAUSE_S = 1.0, 60.0, 3600.0
"""Between attempts: from a sixtieth of a life at first to a twentieth, within these bounds."""


def answer_timeout_s(validity: Validity) -> float:
    """How long to wait for an answer: of the third of a life that is left, there is time for several attempts.

    A request that meets a change of sessions is lost, by itself or because the answer is.
    """
    return min(max(validity.life_s * _ANSWER_SHARE, _MIN_ANSWER_S), _MAX_ANSWER_S)


class RenewalError(Exception):
    """There is no new certificate, and the present one goes on; the message says why."""


class Question(Generic[T]):
    """A question whose answer comes by itself, from whichever connection is there by then. One at a time."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[T] | None = None

    def answered(self, answer: T) -> None:
        """An answer that nobody waits for any more is for a key that is gone."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    async def ask(self, send: Callable[[], Awaitable[object]], timeout_s: float) -> T:
        """The answer to what `send` sends. Raises RenewalError."""
        self._answer = asyncio.get_running_loop().create_future()
        try:
            await send()
            async with asyncio.timeout(timeout_s):
                return await self._answer
        except TimeoutError:
            raise RenewalError(f"the backend has not answered within {timeout_s:g} s") from None
        finally:
            self._answer = None


def refused(code: str, reason: str) -> RenewalError:
    return RenewalError(f"the backend refuses: {reason[:500]} ({code[:80]})")


class Renewer:
    """Calls `renew` when it is time. What `renew` does is the daemon's own.

    Args:
        validity: of the certificate in use at the moment.
        renew: gets a new one and brings it into use; raises RenewalError or OSError.
        clock, draw, sleep: time and random numbers, for tests.
    """

    def __init__(
        self,
        *,
        validity: Callable[[], Validity],
        renew: Callable[[], Awaitable[None]],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        draw: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._validity = validity
        self._renew = renew
        self._clock = clock
        self._draw = draw
        self._sleep = sleep
        self._offset = 0.0
        self._draw_offset()
        self.last_failure: str | None = None
        """Why the last attempt failed; None when it worked or there was none."""

    @property
    def due_at(self) -> datetime:
        """When the present certificate is renewed. In the past: it is tried again and again."""
        validity = self._validity()
        return validity.begins + timedelta(seconds=validity.life_s * (DUE_SHARE + self._offset))

    async def run(self) -> NoReturn:
        """Until cancelled."""
        while True:
            await self._until_due()
            await self._until_renewed()
            self._draw_offset()

    def _draw_offset(self) -> None:
        self._offset = (self._draw() - 0.5) * _JITTER_SHARE

    async def _until_due(self) -> None:
        while (left_s := (self.due_at - self._clock()).total_seconds()) > 0:
            await self._sleep(min(left_s, _LOOK_AGAIN_S))

    async def _until_renewed(self) -> None:
        for pause_s in _pauses(self._validity().life_s).delays(self._draw):
            try:
                await self._renew()
            except (RenewalError, OSError) as error:
                self.last_failure = str(error)
                self._report(error, pause_s)
                await self._sleep(pause_s)
            else:
                self.last_failure = None
                _logger.info("the certificate is renewed, until %s", _text(self._validity().ends))
                return

    def _report(self, error: Exception, pause_s: float) -> None:
        validity, now = self._validity(), self._clock()
        tail = f"{error}; the next attempt is in {pause_s:.0f} s"
        if now >= validity.ends:
            _logger.error("THE CERTIFICATE ENDED AT %s AND IS NOT RENEWED: %s", _text(validity.ends), tail)
        elif validity.spent(now) > _URGENT_SHARE:
            _logger.error("THE CERTIFICATE ENDS SOON, AT %s, AND IS NOT RENEWED: %s", _text(validity.ends), tail)
        else:
            _logger.warning("the certificate, good until %s, is not renewed yet: %s", _text(validity.ends), tail)


def _pauses(life_s: float) -> Reconnect:
    first_s = min(max(life_s / 60, _MIN_PAUSE_S), _MAX_FIRST_PAUSE_S)
    longest_s = max(first_s, min(life_s / 20, _MAX_PAUSE_S))
    return Reconnect(initial_delay_ms=int(1000 * first_s), max_delay_ms=int(1000 * longest_s))


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
