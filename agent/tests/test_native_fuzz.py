"""Whatever the parameters are, a native command answers, or says clearly why not; nothing else ever comes out of it."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.configuration import NativeCommands
from opsmap_agent.host.process_table import ProcessTable
from opsmap_agent.native import NativeCommand, NativeCommandError, NativeContext, Natives, native_commands
from opsmap_protocol.codec import encode
from opsmap_protocol.enums import CommandOutcome
from opsmap_protocol.messages import CommandResult
from testing_frames import FUZZ

_HARMLESS = NativeCommands(service_control=False, process_kill=False)
_LOOKS_ELSEWHERE = {"port_check", "http_check", "dns_lookup", "job_log", "service_status", "service_list"}
"""They have tests of their own; here they would ask other machines, or need a journal."""

_COMMANDS = [
    command for command in native_commands() if command.name not in _LOOKS_ELSEWHERE and fields(command.parameters)
]

_NASTY = [
    "",
    "/",
    "/.." * 300,
    "/proc/self/mem",
    "/proc/self/fd/0",
    "/proc/kmsg",
    "/proc/kcore",
    "/dev/zero",
    "/dev/tty",
    "/sys/kernel/debug/tracing/trace_pipe",
    "/etc/passwd",
    "/proc/self/root/dev/zero",
    "/a\0b",
    "\0",
    "~",
    "$(reboot)",
    "; reboot",
    "<b>" * 5_000,
    "/" + "a/" * 5_000,
    "\x1b[2J\r\n",
    "/ÿ\udcff",
    "/\u202e",
]
_VALUES = st.one_of(
    st.sampled_from(_NASTY),
    st.text(max_size=50),
    st.text(max_size=50).map("/".__add__),
    st.integers(),
    st.sampled_from([0, -1, 1, os.getpid(), 2**31, 2**63 - 1, -(2**63)]),
    st.booleans(),
    st.none(),
    st.floats(),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@st.composite
def calls(draw: st.DrawFn) -> tuple[NativeCommand, dict[str, Any]]:
    command = draw(st.sampled_from(_COMMANDS))
    names = [field.name for field in fields(command.parameters)]
    return command, draw(st.dictionaries(st.sampled_from([*names, *names, "other"]), _VALUES, max_size=4))


@given(calls())
@settings(FUZZ, max_examples=300)
def test_any_parameters(call: tuple[NativeCommand, dict[str, Any]]) -> None:
    command, params = call
    asyncio.run(check(command, params))


@pytest.mark.parametrize("path", _NASTY)
@pytest.mark.parametrize("name", ["file_exists", "file_stat", "file_read", "file_checksum", "dir_list"])
async def test_any_path(name: str, path: str) -> None:
    (command,) = (each for each in _COMMANDS if each.name == name)
    await check(command, {"path": path})


async def check(command: NativeCommand, params: dict[str, Any]) -> None:
    with ThreadPoolExecutor(1) as executor:
        prober: Any = SimpleNamespace(processes=ProcessTable(executor))
        journal: Any = None
        context = NativeContext(prober, journal, pytest.fail, (str(Path(__file__)),))
        try:
            answer = await Natives(context, _HARMLESS).run(command.name, params, 5.0)
        except (RejectedError, NativeCommandError) as refusal:
            reason = str(refusal)
        else:
            reason = "fine"
            result = CommandResult("r-1", True, CommandOutcome.SUCCEEDED, result=answer.result, error=answer.remark)
            assert len(encode(result)) < 3 * 1024 * 1024
    assert 0 < len(reason) < 500
    assert reason.isprintable()
    assert "no answer within" not in reason
