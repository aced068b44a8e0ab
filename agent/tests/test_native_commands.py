"""Native commands as the backend sends them: how their answers travel."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from opsmap_agent.native import folders
from opsmap_agent.native.bounds import Cut
from opsmap_protocol.specs import NativeCommand

OpenHost = Callable[..., AbstractAsyncContextManager[Any]]


async def test_what_is_left_out_is_said_beside_the_result(
    open_host: OpenHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounded = folders.bounded
    monkeypatch.setattr(folders, "bounded", lambda entries, what: bounded(entries, what, 2))
    folder = tmp_path / "three"
    folder.mkdir()
    for name in "abc":
        (folder / name).touch()
    async with open_host() as host:
        result = await host.gateway.run(NativeCommand("dir_list", {"path": str(folder)}))
    assert (result["outcome"], len(result["result"])) == ("succeeded", 2)
    assert result["error"] == "not all: these are the first 2 entries"
    assert isinstance(bounded(iter("abc"), "letters", 2), Cut)


async def test_a_command_that_says_no_tells_what_it_found(open_host: OpenHost) -> None:
    async with open_host() as host:
        result = await host.gateway.run(NativeCommand("service_start", {"name": "nowhere"}))
        assert (result["outcome"], result["success"]) == ("failed", False)
        assert result["result"] == {"success": False, "message": result["error"]}
        result = await host.gateway.run(NativeCommand("process_kill", {"pid": os.getpid()}))
        assert (result["outcome"], result["error"]) == (
            "rejected",
            "native command 'process_kill' is switched off in native_commands",
        )


async def test_the_key_of_the_agent_stays_with_it(open_host: OpenHost, tmp_path: Path) -> None:
    async with open_host() as host:
        journal = next(host.configuration.buffer.path.iterdir())
        for private in (host.configuration.tls.key_file, journal):
            result = await host.gateway.run(NativeCommand("file_read", {"path": str(private)}))
            assert result["outcome"] == "rejected"
            assert result["error"].endswith("is the agent's own: nobody reads it through the agent")
