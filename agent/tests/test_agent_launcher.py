"""Detached processes: begun once, out of reach of the agent, their end on disk."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from opsmap_agent.commands.refusals import NotStartedError
from opsmap_agent.host.processes import ProcessIdentity, boot_id, signal_group, wait_for_end
from opsmap_agent.jobs import launcher
from opsmap_agent.jobs.folder import JobFolder
from opsmap_agent.jobs.launcher import LaunchUnknownError, is_shim, launch
from opsmap_agent.rules.program import Program

ENV = {"PATH": "/usr/bin:/bin", "COLOUR": "blue"}


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(tmp_path / "job_1")


def sh(text: str, **fields: object) -> Program:
    return Program(["/bin/sh", "-c", text], ENV, **fields)  # type: ignore[arg-type]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def run(program: Program, folder: JobFolder) -> int | None:
    """Launch and wait for the end; its exit code."""
    launch(program, folder)
    until(lambda: not folder.has_shim())
    return folder.exit_code()


def output(folder: JobFolder) -> str:
    return folder.log_path.read_text()


@pytest.mark.parametrize(
    ("text", "code"), [("exit 0", 0), ("exit 3", 3), ("exit 125", 125), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
)
def test_exit_code_is_kept_on_disk(folder: JobFolder, text: str, code: int) -> None:
    assert run(sh(text), folder) == code


def test_command_has_nothing_but_its_log(folder: JobFolder) -> None:
    held = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        run(sh("cat; ls /proc/self/fd; readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2"), folder)
    finally:
        os.close(held)
    inherited = {int(entry.name) for entry in Path("/proc/self/fd").iterdir() if _is_inheritable(int(entry.name))}
    descriptors = {int(line) for line in output(folder).splitlines() if line.isdigit()}
    assert descriptors - inherited - {0, 1, 2} <= {3}  # ls has the folder open that it lists
    log = str(folder.log_path)
    assert output(folder).splitlines()[-3:] == ["/dev/null", log, log]


def _is_inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False


def test_command_leads_a_session_of_its_own_below_init(folder: JobFolder) -> None:
    launched = launch(sh("exec sleep 60"), folder)
    process, shim = psutil.Process(launched.process.pid), psutil.Process(launched.shim.pid)
    try:
        until(lambda: process.name() == "sleep")
        assert os.getsid(process.pid) == os.getpgid(process.pid) == process.pid
        assert os.getsid(shim.pid) == os.getpgid(shim.pid) == shim.pid
        assert process.ppid() == shim.pid
        assert shim.ppid() != os.getpid()
        assert process.pid not in [child.pid for child in psutil.Process().children(recursive=True)]
    finally:
        process.kill()
    until(lambda: not folder.has_shim())
    assert folder.exit_code() == 137


def test_no_zombies(folder: JobFolder) -> None:
    run(sh("exit 0"), folder)
    children = psutil.Process().children()
    assert [child for child in children if child.status() == psutil.STATUS_ZOMBIE] == []


def test_signals_are_as_a_program_expects_them(folder: JobFolder) -> None:
    run(sh("grep SigIgn /proc/self/status"), folder)
    ignored = int(output(folder).split()[1], 16)
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGXFSZ):
        assert not ignored & (1 << (number - 1)), number


def test_environment_and_folder_are_the_given_ones(folder: JobFolder, tmp_path: Path) -> None:
    work = tmp_path / "a folder; with 'quotes' $HOME"
    work.mkdir()
    run(Program(["/usr/bin/env"], ENV, str(work)), folder)
    lines = dict(line.split("=", 1) for line in output(folder).splitlines())
    assert lines == ENV | {"PWD": str(work)}


def test_arguments_are_data(folder: JobFolder) -> None:
    hostile = ["$(id)", "`id`", "; id", "a\nb", "*", "", "-n", "\x1b[31m<script>é"]
    code = "import sys; sys.stdout.write(repr(sys.argv[1:]))"
    run(Program([sys.executable, "-c", code, *hostile], {**ENV, "PYTHONIOENCODING": "utf-8"}), folder)
    assert output(folder) == repr(hostile)


def test_path_of_the_command_does_not_break_the_shim(folder: JobFolder) -> None:
    assert run(Program(["/bin/sh", "-c", "exit 4"], {"PATH": "/nowhere"}), folder) == 4


def test_records_name_the_processes_for_ever(folder: JobFolder) -> None:
    launched = launch(sh("exec sleep 60"), folder)
    assert launched.process == ProcessIdentity.of(launched.process.pid)
    assert launched.process.boot_id == boot_id()
    assert launched.process.is_alive()
    assert not ProcessIdentity(launched.process.pid, launched.process.start_time - 1, boot_id()).is_alive()
    assert not ProcessIdentity(launched.process.pid, launched.process.start_time, "another boot").is_alive()
    assert signal_group(launched.process, signal.SIGTERM)
    until(lambda: not folder.has_shim())
    assert not signal_group(launched.process, signal.SIGTERM)


def test_job_runs_once_whoever_asks_again(folder: JobFolder) -> None:
    program = sh("echo ran")
    assert run(program, folder) == 0
    with pytest.raises(LaunchUnknownError, match="begun before"):
        launch(program, folder)
    assert output(folder) == "ran\n"


def test_command_begins_although_its_agent_died(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    # The reader of its pipe is gone before the shim says that the command begins.
    monkeypatch.setattr(launcher, "_wait_for_start", lambda reading: True)
    shell = folder.path.parent / "slow-shim.sh"
    shim = Path(launcher.SHIM).read_text(encoding="utf-8")
    shell.write_text(shim.replace("set -C\n", "sleep 0.2\nset -C\n", 1), encoding="utf-8")
    monkeypatch.setattr(launcher, "SHIM", str(shell))
    with pytest.raises(LaunchUnknownError):
        launch(sh("echo begun; kill -PIPE $$; echo ignored"), folder)
    until(lambda: not folder.has_shim())
    # And SIGPIPE is as a program expects it.
    assert (output(folder), folder.exit_code()) == ("begun\n", 141)


def test_shim_that_finds_a_claim_runs_nothing(folder: JobFolder) -> None:
    folder.create()
    (folder.path / "claim").write_text("somebody else was first\n")
    arguments = ["/bin/sh", launcher.SHIM, str(folder.path), "/", "/usr/bin/setsid", "", "/bin/sh", "-c", "echo ran"]
    ended = subprocess.run(arguments, capture_output=True, check=False)
    assert ended.returncode == 125
    assert not folder.log_path.exists()


def test_half_a_claim_means_that_nothing_began(folder: JobFolder) -> None:
    folder.create()
    (folder.path / "claim").write_text("123 4")
    assert not folder.is_claimed()
    assert run(sh("exit 6"), folder) == 6


def test_second_launch_at_the_same_time_is_refused(folder: JobFolder) -> None:
    launched = launch(sh("exec sleep 60"), folder)
    try:
        assert folder.has_shim()
        with pytest.raises(LaunchUnknownError, match="another shim"):
            launch(sh("exec sleep 60"), folder)
    finally:
        os.kill(launched.process.pid, signal.SIGKILL)


def test_folder_that_went_away_is_told(folder: JobFolder) -> None:
    with pytest.raises(NotStartedError, match="gone"):
        launch(Program(["/bin/true"], ENV, "/no/gone/folder"), folder)


def test_program_that_went_away_has_an_exit_code_and_a_reason(folder: JobFolder) -> None:
    assert run(Program(["/no/such/program"], ENV), folder) == 127
    assert "No such file" in output(folder)


def test_too_many_arguments_are_told(folder: JobFolder) -> None:
    with pytest.raises(NotStartedError, match="Argument list too long"):
        launch(Program(["/bin/true", "x" * 3_000_000], ENV), folder)
    assert not folder.has_shim()


def test_input_of_a_command(folder: JobFolder) -> None:
    assert run(Program(["/bin/sh", "-s", "a b"], ENV, input=b'echo "got $1"'), folder) == 0
    assert output(folder) == "got a b\n"


async def test_end_of_a_foreign_process_is_noticed(folder: JobFolder) -> None:
    launched = await asyncio.to_thread(launch, sh("sleep 0.1"), folder)
    async with asyncio.timeout(5):
        await wait_for_end(launched.shim)
    assert folder.exit_code() == 0
    async with asyncio.timeout(1):
        await wait_for_end(launched.shim)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSYS])
async def test_end_is_noticed_without_a_descriptor_to_spare(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(pid: int) -> int:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    monkeypatch.setattr("opsmap_agent.host.processes._POLL_INTERVAL_S", 0.01)
    launched = await asyncio.to_thread(launch, sh("sleep 0.1"), folder)
    async with asyncio.timeout(5):
        await wait_for_end(launched.shim)
    assert not launched.shim.is_alive()


def test_log_is_read_in_whole_characters(folder: JobFolder) -> None:
    folder.create()
    folder.log_path.write_bytes("aé€😀".encode() + b"\xff\x1b[0m<i>")
    whole = folder.read_log(1000)
    assert (whole.text, whole.offset, whole.is_truncated) == ("aé€😀\ufffd\x1b[0m<i>", 0, False)
    offset, text = 0, ""
    while offset < whole.size:
        piece = folder.read_log(5, offset)
        text += piece.text
        offset = piece.next_offset
    assert text == whole.text
    tail = folder.read_log(9)
    assert (tail.text, tail.is_truncated) == ("\ufffd\x1b[0m<i>", True)
    assert JobFolder(folder.path / "none").read_log(10).text == ""


def test_shim_of_another_copy_of_the_agent_is_known(folder: JobFolder) -> None:
    assert is_shim(["/bin/sh", "/opt/old/opsmap_agent/shim.sh", "/var/log/opsmap/detached/job_1", "/", "setsid"])
    assert not is_shim(["/bin/sh", "/opt/tools/shim.sh", "start"])
    assert not is_shim(["vi", "shim.sh"])
    assert not is_shim([])
    launched = launch(sh("exec sleep 60"), folder)
    try:
        assert is_shim(psutil.Process(launched.shim.pid).cmdline())
        assert not is_shim(psutil.Process(launched.process.pid).cmdline())
    finally:
        os.kill(launched.process.pid, signal.SIGKILL)
