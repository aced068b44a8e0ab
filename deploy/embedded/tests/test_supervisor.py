"""Children under the supervisor: prefixed lines, restarts with back-off, orderly and hurried ends."""

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path

import psutil
import pytest

from deploy.embedded.leftovers import Record, sweep
from deploy.embedded.liveness import is_alive
from deploy.embedded.output import LogFile, Output
from deploy.embedded.process import Child, ProcessSpec, describe_end
from deploy.embedded.state import write_json
from deploy.embedded.supervisor import Supervisor, restart_delays
from deploy.embedded.waiting import first_of

DEADLINE_S = 20.0
IGNORE = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
STUBBORN = f"{IGNORE}; print('up', flush=True); time.sleep(600)"
WITH_CHILD = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}])"
STUBBORN_WITH_CHILD = f"{IGNORE}; {WITH_CHILD}"


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator["Scene"]:
    made = Scene(tmp_path)
    yield made
    await made.end()


def spec(code: str, **changes: object) -> ProcessSpec:
    fields: dict[str, object] = {
        "name": "child",
        "argv": (sys.executable, "-c", code),
        "environment": dict(os.environ),
        "cwd": Path("/"),
    }
    return ProcessSpec(**(fields | changes))  # type: ignore[arg-type]


class Scene:
    """A supervisor whose terminal is a string and whose delays are noted, not waited for."""

    def __init__(self, folder: Path) -> None:
        self.terminal = io.StringIO()
        self.delays: list[float] = []
        self.record_path = folder / "children.json"
        self.output = Output(self.terminal, folder / "logs", environment={}, names=("child",))
        self.supervisor = Supervisor(self.output, Record(self.record_path), sleep=self._sleep)

    async def end(self) -> None:
        self.supervisor.hurry.set()
        await self.supervisor.stop_all()
        self.output.close()

    async def until_shown(self, text: str, *, times: int = 1) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while self.terminal.getvalue().count(text) < times:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.01)

    async def _sleep(self, seconds: float) -> None:
        self.delays.append(seconds)
        await asyncio.sleep(0)


def test_delays_double_up_to_a_limit() -> None:
    assert list(islice(restart_delays(), 7)) == [0.5, 1, 2, 4, 8, 15, 15]


async def test_a_daemon_is_started_again_with_growing_delays(scene: Scene) -> None:
    scene.supervisor.keep(spec("print('hello'); raise SystemExit(3)"))
    await scene.until_shown("| hello", times=3)
    await scene.supervisor.stop_all()
    assert scene.delays[:2] == [0.5, 1.0]
    assert "child ended unexpectedly (exit code 3): starting it again in 0.5 s." in scene.terminal.getvalue()


async def test_the_end_of_a_service_is_the_failure_with_its_last_lines(scene: Scene) -> None:
    scene.supervisor.start_service(spec("print('disk full'); raise SystemExit(1)"))
    async with asyncio.timeout(DEADLINE_S):
        failure = await scene.supervisor.failure
    assert "child ended unexpectedly (exit code 1)" in str(failure)
    assert "disk full" in str(failure)


async def test_a_program_that_does_not_exist_is_one_line(scene: Scene) -> None:
    with pytest.raises(Exception, match=r"child cannot be started: .*/nonexistent"):
        scene.supervisor.keep(spec("", argv=("/nonexistent",)))


@pytest.mark.parametrize("leader", [f"{STUBBORN_WITH_CHILD}; time.sleep(600)", f"{WITH_CHILD}; time.sleep(600)"])
@pytest.mark.parametrize("is_hurried", [True, False])
async def test_a_stopped_child_is_gone_with_its_group(scene: Scene, leader: str, is_hurried: bool) -> None:
    scene.supervisor.keep(spec(leader, stop=((signal.SIGTERM, 600.0 if is_hurried else 0.2),)))
    await scene.until_shown("| up")
    below = psutil.Process().children(recursive=True)
    assert len(below) == 2
    if is_hurried:
        scene.supervisor.hurry.set()  # the second Ctrl-C
    async with asyncio.timeout(DEADLINE_S):
        await scene.supervisor.stop_all()
        while any(is_alive(child) for child in below):  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.01)


async def test_lines_come_whole_in_order_and_without_control_characters(scene: Scene, tmp_path: Path) -> None:
    code = r"print('one\ntwo \x1b[31mred\x1b[0m \x07'); print('no newline', end='')"
    assert await scene.supervisor.run_once(spec(code)) == 0
    assert scene.terminal.getvalue().splitlines() == [
        "child  | one",
        "child  | two red ",
        "child  | no newline",
    ]
    assert (tmp_path / "logs" / "child.log").read_text(encoding="utf-8").startswith("one\ntwo \x1b[31mred")


async def test_a_child_has_no_terminal_no_input_and_a_session_of_its_own(scene: Scene) -> None:
    code = (
        "import os, sys; print(os.getsid(0) == os.getpid(), repr(sys.stdin.read()));"
        "print(len(os.listdir('/proc/self/fd')))"
    )
    await scene.supervisor.run_once(spec(code))
    shown = scene.terminal.getvalue().splitlines()
    assert shown == ["child  | True ''", "child  | 4"]  # the three, and the listing itself


async def test_a_recycled_pid_of_an_old_record_is_left_alone(tmp_path: Path) -> None:
    record = tmp_path / "children.json"
    me = psutil.Process()
    entry = {"name": "web", "pid": me.pid, "started_at": me.create_time() - 60}
    write_json(record, {"children": [entry], "temporary": []})
    said: list[str] = []
    await sweep(record, said.append)
    assert said == []
    assert not record.exists()


async def test_what_an_old_record_names_is_ended(scene: Scene) -> None:
    child = Child(spec(STUBBORN), lambda line: scene.output.line("child", line))
    Record(scene.record_path).add(child)
    await scene.until_shown("| up")
    said: list[str] = []
    sweeping = asyncio.create_task(sweep(scene.record_path, said.append, patience_s=0.1))
    await asyncio.wait_for(first_of(sweeping), DEADLINE_S)
    assert await child.wait() == -signal.SIGKILL
    assert said == ["An earlier run was killed: ending what is left of it (child)."]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (1, "exit code 1"),
        (-11, "killed by SIGSEGV"),
        (-64, "killed by SIGRTMAX"),
        (-99, "killed by signal 99"),
    ],
)
def test_ends_in_words(code: int, text: str) -> None:
    assert describe_end(code) == text


def test_a_log_file_is_private_and_bounded(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "web.log", max_bytes=20)
    for number in range(5):
        log.write(f"line {number} xx")
    log.close()
    assert (tmp_path / "web.log").read_text(encoding="ascii") == "line 4 xx\n"
    assert (tmp_path / "web.log.1").read_text(encoding="ascii") == "line 2 xx\nline 3 xx\n"
    assert (tmp_path / "web.log").stat().st_mode & 0o777 == 0o600
