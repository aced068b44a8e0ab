"""From start to signal."""

from __future__ import annotations

import asyncio
import os
import resource
import signal

import pytest

from opsmap_daemon import lifecycle


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_cancels_and_waits_for_the_clean_up(number: signal.Signals) -> None:
    steps: list[str] = []

    async def main() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(5)
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    lifecycle.run(main)
    assert steps == ["cleaned up"]


def test_winding_down_comes_before_the_end() -> None:
    steps: list[str] = []

    async def main() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(5)
        finally:
            steps.append("ended")

    async def wind_down() -> None:
        steps.append("winding down")
        await asyncio.sleep(0.01)
        steps.append("wound down")

    lifecycle.run(main, wind_down)
    assert steps == ["winding down", "wound down", "ended"]


def test_fault_in_winding_down_ends_it_all_the_same_and_propagates() -> None:
    async def main() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(5)

    async def wind_down() -> None:
        raise OSError("no such luck")

    with pytest.raises(OSError, match="no such luck"):
        lifecycle.run(main, wind_down)


def test_failure_while_winding_down_is_not_waited_for() -> None:
    async def main() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.01)
        raise RuntimeError("broken")

    async def wind_down() -> None:
        await asyncio.sleep(60)

    with pytest.raises(RuntimeError, match="broken"):
        lifecycle.run(main, wind_down)


def test_limit_of_open_files_is_raised_and_never_lowered(caplog: pytest.LogCaptureFixture) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        lifecycle.allow_open_files(300)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, before[1])
        lifecycle.allow_open_files(200)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, before[1])
        assert caplog.text == ""
        if before[1] != resource.RLIM_INFINITY:
            lifecycle.allow_open_files(before[1] + 1)
            assert "the system allows" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_failure_propagates() -> None:
    async def main() -> None:
        raise OSError("no such luck")

    with pytest.raises(OSError, match="no such luck"):
        lifecycle.run(main)


def test_end_without_a_signal_is_an_end() -> None:
    async def main() -> None:
        await asyncio.sleep(0)

    lifecycle.run(main)


def test_being_cancelled_otherwise_is_no_normal_end() -> None:
    async def main() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        lifecycle.run(main)
