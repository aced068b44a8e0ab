"""What systemd hears of a daemon, by a socket that stands for it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsmap_daemon import lifecycle, service_manager


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


def test_ready_and_stopping(heard: socket.socket) -> None:
    async def main() -> None:
        service_manager.tell_ready()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(5)

    lifecycle.run(main)
    assert [heard.recv(100), heard.recv(100)] == [b"READY=1", b"STOPPING=1"]


def test_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"opsmap-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        service_manager.tell_ready()
        assert listener.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "vsock:2:1234", "@" + "x" * 500])
def test_nobody_to_hear_is_no_fault(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    service_manager.tell_ready()


async def test_signs_of_life_come_twice_in_the_time_that_is_given(
    heard: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "40000")
    heard.settimeout(None)
    heard.setblocking(False)
    living = asyncio.create_task(service_manager.give_signs_of_life())
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.timeout(5):
        for _ in range(4):
            assert await loop.sock_recv(heard, 100) == b"WATCHDOG=1"
    assert loop.time() - begun >= 0.05
    living.cancel()


@pytest.mark.parametrize(("limit", "pid"), [("", ""), ("0", ""), ("soon", ""), ("40000", "1")])
async def test_none_are_given_that_nobody_asks_for(
    heard: socket.socket, monkeypatch: pytest.MonkeyPatch, limit: str, pid: str
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", limit)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    await service_manager.give_signs_of_life()
    heard.setblocking(False)
    with pytest.raises(BlockingIOError):
        heard.recv(100)
