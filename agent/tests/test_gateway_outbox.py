"""The bounded queue of frames to one peer."""

from __future__ import annotations

import asyncio

import pytest

from opsmap_gateway.outbox import Outbox, Quota


async def sent_by(outbox: Outbox, count: int) -> list[str]:
    """The next frames that come out, with a peer that takes them at once."""
    frames: list[str] = []
    is_enough = asyncio.Event()

    async def send(frame: str) -> None:
        frames.append(frame)
        if len(frames) == count:
            is_enough.set()

    writer = asyncio.create_task(outbox.write_to(send, timeout_s=1))
    async with asyncio.timeout(1):
        await is_enough.wait()
    writer.cancel()
    return frames


async def test_frames_leave_in_order() -> None:
    outbox = Outbox(max_frames=10, max_bytes=100, first=["hello"])
    assert outbox.offer("a")
    assert await outbox.put("b")
    assert await sent_by(outbox, 3) == ["hello", "a", "b"]
    assert len(outbox) == 0


async def test_offer_refuses_beyond_the_number_of_frames() -> None:
    outbox = Outbox(max_frames=2, max_bytes=100)
    assert [outbox.offer("a") for _ in range(3)] == [True, True, False]


async def test_offer_refuses_beyond_the_size() -> None:
    outbox = Outbox(max_frames=10, max_bytes=5)
    assert [outbox.offer("abc"), outbox.offer("abc"), outbox.offer("ab")] == [True, False, True]


async def test_one_frame_is_let_in_whatever_its_size() -> None:
    outbox = Outbox(max_frames=10, max_bytes=2)
    assert outbox.offer("large")
    assert not outbox.offer("a")
    assert await sent_by(outbox, 1) == ["large"]
    assert outbox.offer("large")


async def test_put_waits_for_room() -> None:
    outbox = Outbox(max_frames=1, max_bytes=100)
    await outbox.put("a")
    waiting = asyncio.create_task(outbox.put("b"))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await sent_by(outbox, 2) == ["a", "b"]
    assert await waiting


async def test_closing_hands_back_what_was_not_sent_and_lets_go() -> None:
    quota = Quota(limit=10)
    outbox = Outbox(max_frames=1, max_bytes=100, quota=quota, first=["hello", "a"])
    waiting = asyncio.create_task(outbox.put("b"))
    await asyncio.sleep(0)
    assert quota.used == 2
    assert outbox.close() == ["hello", "a"]
    assert not await waiting
    assert not outbox.offer("c")
    assert quota.used == 0


async def test_peer_that_takes_too_long_is_told_apart() -> None:
    outbox = Outbox(max_frames=1, max_bytes=100, first=["hello"])

    async def send(frame: str) -> None:
        await asyncio.sleep(5)

    with pytest.raises(TimeoutError):
        await outbox.write_to(send, timeout_s=0.01)


async def test_quota_is_shared() -> None:
    quota = Quota(limit=2)
    one, two, three = (Outbox(max_frames=10, max_bytes=100, quota=quota) for _ in range(3))
    one.offer("a")
    assert not quota.is_full_for(one)
    two.offer("b")
    assert quota.is_full_for(one)
    assert not quota.is_full_for(three), "nothing waits for it yet"
    await sent_by(one, 1)
    assert (quota.used, quota.used_bytes) == (1, 1)
    assert not quota.is_full_for(two)


async def test_quota_of_bytes_holds_for_everybody() -> None:
    """A broadcast fills thousands of outboxes before the first of them is emptied."""
    quota = Quota(limit=1_000, max_bytes=10)
    one, two = (Outbox(max_frames=10, max_bytes=100, quota=quota) for _ in range(2))
    one.offer("0123456789")
    assert quota.is_full_for(two)
    one.close()
    assert not quota.is_full_for(two)
