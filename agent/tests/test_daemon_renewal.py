"""When certificates are renewed, and how loudly it is told if they are not."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest

from opsmap_daemon.renewal import RenewalError, Renewer
from opsmap_daemon.tls import Validity

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
LIFE = timedelta(days=90)


class Bench:
    """A renewer with a clock of its own, which sleeping moves."""

    def __init__(self, failures: int = 0, draw: float = 0.5, start: timedelta = timedelta(0)) -> None:
        self.now = BEGIN + start
        self.validity = Validity(BEGIN, BEGIN + LIFE)
        self.attempts: list[datetime] = []
        self.slept_s: list[float] = []
        self._failures = failures
        self._renewed = asyncio.Event()
        self.renewer = Renewer(
            validity=lambda: self.validity,
            renew=self._renew,
            clock=lambda: self.now,
            draw=lambda: draw,
            sleep=self._sleep,
        )

    async def until_renewed(self) -> None:
        running = asyncio.create_task(self.renewer.run())
        async with asyncio.timeout(10):
            await self._renewed.wait()
        running.cancel()
        await asyncio.wait([running])

    async def _sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now += timedelta(seconds=seconds)
        await asyncio.sleep(0)

    async def _renew(self) -> None:
        self.attempts.append(self.now)
        if len(self.attempts) <= self._failures:
            raise RenewalError("the backend is away")
        self.validity = Validity(self.now, self.now + LIFE)
        self._renewed.set()


@pytest.mark.parametrize(("draw", "share"), [(0.0, 2 / 3 - 0.03), (0.5, 2 / 3), (1.0, 2 / 3 + 0.03)])
async def test_at_two_thirds_of_life_more_or_less(draw: float, share: float) -> None:
    bench = Bench(draw=draw)
    await bench.until_renewed()
    assert abs(bench.attempts[0] - (BEGIN + LIFE * share)) < timedelta(seconds=1)
    assert max(bench.slept_s) <= 3600, "a clock that is set is noticed"


async def test_at_once_if_that_is_past() -> None:
    bench = Bench(start=LIFE * 0.8)
    await bench.until_renewed()
    assert bench.attempts == [BEGIN + LIFE * 0.8]


async def test_failures_are_tried_again_ever_more_slowly_and_do_not_stop() -> None:
    bench = Bench(failures=12, draw=1.0)
    await bench.until_renewed()
    pauses = [(b - a).total_seconds() for a, b in zip(bench.attempts, bench.attempts[1:], strict=False)]
    assert pauses[:4] == [60, 120, 240, 480]
    assert pauses[-1] == 3600
    assert bench.renewer.last_failure is None


async def test_short_lives_are_tried_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(failures=3, draw=1.0)
    bench.validity = Validity(BEGIN, BEGIN + timedelta(seconds=60))
    await bench.until_renewed()
    pauses = [(b - a).total_seconds() for a, b in zip(bench.attempts, bench.attempts[1:], strict=False)]
    assert pauses == [1, 2, 3]


@pytest.mark.parametrize(
    ("share", "level", "words"),
    [
        (0.7, logging.WARNING, "is not renewed yet: the backend is away"),
        (0.95, logging.ERROR, "THE CERTIFICATE ENDS SOON, AT 2025-04-01"),
        (1.05, logging.ERROR, "THE CERTIFICATE ENDED AT 2025-04-01"),
    ],
)
async def test_the_nearer_the_end_the_louder(
    share: float, level: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(failures=1, start=LIFE * share)
    with caplog.at_level(logging.WARNING):
        await bench.until_renewed()
    assert caplog.records[0].levelno == level
    assert words in caplog.records[0].getMessage()
