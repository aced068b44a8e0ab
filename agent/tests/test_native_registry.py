"""What holds for every native command: name, switch, parameters, limits, and the shape of its answer."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import typing
from collections.abc import Iterator

import pytest

from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.configuration import NativeCommands
from opsmap_agent.native import NativeCommandError, native_commands, registry
from opsmap_agent.native.blocking import MAX_HANGING, MAX_WORKING
from opsmap_agent.native.bounds import Cut, bounded
from testing_natives import RunNative

REFERENCE = {
    "os_info": "os_type os_release hostname kernel arch uptime_secs",
    "disk_space": "mount device fs_type total_gb used_gb avail_gb pct",
    "memory_usage": "total_mb used_mb free_mb cached_mb swap_total_mb swap_used_mb",
    "cpu_load": "load_1m load_5m load_15m cpu_count cpu_usage_pct",
    "uptime": "uptime_secs boot_time",
    "network_interfaces": "name mac ipv4 ipv6 status speed_mbps",
    "port_check": "reachable latency_ms error",
    "http_check": "status_code latency_ms body_preview headers",
    "dns_lookup": "addresses ttl resolved_in_ms",
    "listening_ports": "port protocol pid process_name address",
    "process_list": "pid ppid name user cpu_pct mem_mb status cmd",
    "process_info": "pid name exe cwd env open_files connections threads",
    "process_find": "pid name cmd",
    "process_kill": "success",
    "service_status": "name status pid enabled description",
    "service_start": "success message",
    "service_stop": "success message",
    "service_restart": "success message",
    "service_list": "name status enabled description",
    "file_exists": "exists is_file is_dir",
    "file_read": "content size truncated",
    "file_stat": "size mode uid gid mtime atime ctime",
    "file_checksum": "checksum algorithm",
    "dir_list": "name path is_dir size mtime",
    "discover_services": "name type status ports dependencies",
    "discover_processes_with_ports": "pid name user ports connections",
    "discover_docker": "id name image status ports",
    "discover_kubernetes": "name namespace status containers node",
}
"""Result fields as the reference's 6.1 has them."""

PARAMETERS = {
    "port_check": "host port timeout_ms",
    "http_check": "url method expected_status timeout_ms insecure",
    "dns_lookup": "hostname",
    "process_info": "pid",
    "process_find": "pattern",
    "process_kill": "pid signal",
    "service_status": "name",
    "service_start": "name",
    "service_stop": "name",
    "service_restart": "name",
    "file_exists": "path",
    "file_read": "path max_bytes offset",
    "file_stat": "path",
    "file_checksum": "path algorithm",
    "dir_list": "path recursive max_depth",
    "discover_kubernetes": "namespace",
}
ADDED_FIELDS = {"service_status": {"error"}, "file_read": {"encoding", "offset", "next_offset"}}
ADDED_PARAMETERS = {"process_kill": {"name"}}


def fields_of_result(command: registry.NativeCommand) -> set[str]:
    """The keys of the answer, or of its entries."""
    hint = typing.get_type_hints(command.function)["return"]
    whole = next((each for each in typing.get_args(hint) if typing.get_origin(each) is list), hint)
    (entry,) = typing.get_args(whole) or (whole,)
    return set(typing.get_type_hints(entry))


@pytest.mark.parametrize("command", native_commands(), ids=lambda command: command.name)
def test_parameters_and_fields_are_those_of_the_reference(command: registry.NativeCommand) -> None:
    if command.name == "job_log":
        return  # An addition to the reference.
    assert fields_of_result(command) == set(REFERENCE[command.name].split()) | ADDED_FIELDS.get(command.name, set())
    expected = set(PARAMETERS.get(command.name, "").split()) | ADDED_PARAMETERS.get(command.name, set())
    assert {field.name for field in dataclasses.fields(command.parameters)} == expected
    assert 5 <= command.limit_s <= 60
    assert command.function.__doc__


def test_every_command_of_the_reference_exists() -> None:
    assert {command.name for command in native_commands()} == {*REFERENCE, "job_log"}


def test_every_switch_switches_something_and_only_killing_is_off() -> None:
    keys = {field.name: field.default for field in dataclasses.fields(NativeCommands)}
    assert {switch for command in native_commands() for switch in command.switches} == set(keys)
    assert [key for key, default in keys.items() if default is not True] == ["process_kill"]
    assert [command.name for command in native_commands() if not command.switches] == ["job_log"]


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(NativeCommands)])
async def test_what_is_switched_off_is_refused(native: RunNative, key: str) -> None:
    native.switches = NativeCommands(**({"process_kill": True} | {key: False}))
    switched = [command for command in native_commands() if key in command.switches]
    for command in switched:
        with pytest.raises(RejectedError, match=f"native command '{command.name}' is switched off in native_commands"):
            await native(command.name)


async def test_what_is_off_is_not_offered(native: RunNative) -> None:
    native.switches = NativeCommands(service_control=False)
    offered = native.natives().offered()
    everything = {command.name for command in native_commands()}
    assert everything - set(offered) == {"process_kill", "service_start", "service_stop", "service_restart"}


async def test_unknown_name_is_refused(native: RunNative) -> None:
    with pytest.raises(RejectedError, match="no native command 'format_disk'"):
        await native("format_disk")
    with pytest.raises(RejectedError) as refusal:
        await native("x" * 100_000)
    assert len(str(refusal.value)) < 200


async def test_parameters_are_checked(native: RunNative) -> None:
    with pytest.raises(RejectedError, match="'port_check': port: expected an integer, found \"80\""):
        await native("port_check", port="80")
    with pytest.raises(RejectedError, match="'port_check': port: expected a value"):
        await native("port_check")
    with pytest.raises(RejectedError, match="'uptime' has no parameter 'verbose'; it takes none"):
        await native("uptime", verbose=True)
    with pytest.raises(RejectedError, match="has no parameter 'context'"):
        await native("file_stat", context=1, path="/")


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """A native command `stuck` that hangs until the event is set, whatever else happens."""
    event = threading.Event()

    @registry.native("stuck", switches=())
    def hang(context: registry.NativeContext) -> dict[str, bool]:
        event.wait()
        return {"was_abandoned": context.is_abandoned.is_set()}

    try:
        yield event
    finally:
        event.set()
        del registry._registry["stuck"]


async def test_stuck_threads_hold_nobody_up_and_are_bounded(native: RunNative, stuck: threading.Event) -> None:
    natives = native.natives()
    for _ in range(MAX_HANGING):
        with pytest.raises(NativeCommandError, match=r"no answer within 0\.01 s"):
            await natives.run("stuck", {}, 0.01)
    with pytest.raises(NativeCommandError, match=f"{MAX_HANGING} calls of 'stuck' hang on this host"):
        await natives.run("stuck", {}, 0.01)
    assert sum(thread.name == "native stuck" for thread in threading.enumerate()) == MAX_HANGING
    assert (await natives.run("uptime", {}, 5)).result["uptime_secs"] > 0
    stuck.set()
    for thread in threading.enumerate():
        if thread.name == "native stuck":
            await asyncio.to_thread(thread.join)
    assert (await natives.run("stuck", {}, 5)).result == {"was_abandoned": False}


async def test_many_that_hang_at_once_hold_up_no_other_command(native: RunNative, stuck: threading.Event) -> None:
    natives = native.natives()
    hanging = [asyncio.create_task(natives.run("stuck", {}, 0.3)) for _ in range(100)]
    await asyncio.sleep(0)
    assert (await natives.run("uptime", {}, 5)).result["uptime_secs"] > 0
    assert not any(task.done() for task in hanging)
    for task in hanging:
        with pytest.raises(NativeCommandError, match=r"no answer within|hang on this host"):
            await task
    assert sum(thread.name == "native stuck" for thread in threading.enumerate()) <= MAX_WORKING + MAX_HANGING


async def test_cancelled_command_leaves_its_thread_behind(native: RunNative, stuck: threading.Event) -> None:
    natives = native.natives()
    running = asyncio.create_task(natives.run("stuck", {}, 60))
    while not any(thread.name == "native stuck" for thread in threading.enumerate()):  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_hundreds_at_once(native: RunNative) -> None:
    natives = native.natives()
    answers = await asyncio.gather(*(natives.run("file_exists", {"path": "/etc"}, 10) for _ in range(500)))
    assert all(answer.result["is_dir"] for answer in answers)


def test_lists_are_cut_by_count_and_by_size() -> None:
    assert bounded(iter(range(3)), "numbers", 3) == [0, 1, 2]
    assert bounded([], "numbers") == []
    assert bounded(iter(range(4)), "numbers", 3) == Cut([0, 1, 2], "not all: these are the first 3 numbers")
    assert isinstance(bounded([{"text": "x" * 1000}] * 5000, "texts"), Cut)
    escaped = bounded([{"text": "\x1b" * 1000}] * 5000, "texts")
    assert isinstance(escaped, Cut)
    assert len(escaped.entries) < 200
