"""`python -m deploy.embedded services -- CMD`: PostgreSQL and Valkey for as long as one command runs."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.embedded import leftovers, services
from deploy.embedded.errors import EmbeddedError
from deploy.embedded.lock import SupervisorLock
from deploy.embedded.output import Output
from deploy.embedded.process import die_with_parent
from deploy.embedded.state import StateFolder
from deploy.embedded.stopping import SIGNALS
from deploy.embedded.supervisor import Supervisor
from deploy.embedded.waiting import first_of

EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_SIGNALLED = 128
GRACE_S = 10.0


def run_with_services(state_path: Path, argv: Sequence[str]) -> int:
    """Run the command in the foreground with the services up; its exit code, as a shell gives it."""
    state = StateFolder.create(state_path)
    with SupervisorLock(state.path / "supervisor.lock"):
        # Standard output belongs to the command, and what it does to the database is its own to tell.
        output = Output(sys.stderr, state.logs, environment=os.environ, names=services.NAMES, is_quiet=True)
        try:
            return asyncio.run(_execute(state, output, argv))
        finally:
            output.close()


async def _execute(state: StateFolder, output: Output, argv: Sequence[str]) -> int:
    record_path = state.path / "children.json"
    await leftovers.sweep(record_path, output.say)
    record = leftovers.Record(record_path)
    supervisor = Supervisor(output, record)
    signals = _Signals()
    signals.listen()
    try:
        starting = asyncio.create_task(services.Services(state, supervisor, record, output, os.environ).start())
        await first_of(starting, signals.first)
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return EXIT_SIGNALLED + signals.first.result()
        return await _run_command(argv, starting.result(), supervisor, signals)
    except EmbeddedError as error:
        for line in str(error).splitlines():
            output.fail(line)
        return error.exit_code
    finally:
        await supervisor.stop_restarting()
        await supervisor.stop(services.NAMES)
        await supervisor.stop_all()
        record.close()


async def _run_command(
    argv: Sequence[str], environment: Mapping[str, str], supervisor: Supervisor, signals: "_Signals"
) -> int:
    try:
        command = _Command(argv, environment)
    except FileNotFoundError:
        print(f"opsmap: {argv[0]}: there is no such program.", file=sys.stderr)
        return EXIT_NOT_FOUND
    except PermissionError:
        print(f"opsmap: {argv[0]}: this file cannot be executed.", file=sys.stderr)
        return EXIT_NOT_EXECUTABLE
    signals.forward_to(command)
    await first_of(command.ended, supervisor.failure)
    if not command.ended.done():
        # Without its services the command can only fail, slowly.
        command.signal(signal.SIGTERM)
        await first_of(command.ended, timeout_s=GRACE_S)
        command.signal(signal.SIGKILL)
        await command.ended
        raise supervisor.failure.result()
    code = command.ended.result()
    return code if code >= 0 else EXIT_SIGNALLED - code


class _Command:
    """The command: it keeps the terminal, our standard streams and our process group."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        parent = os.getpid()
        self._process = subprocess.Popen(
            argv,
            env=dict(environment),  # Safe: this process has one thread.
            preexec_fn=lambda: die_with_parent(signal.SIGTERM, parent),  # noqa: PLW1509
        )
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def _reap(self) -> None:
        code = self._process.poll()
        if code is None:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.ended.set_result(code)


class _Signals:
    """Passes signals on to the command; `first` is the first one that came before there was a command."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._command: _Command | None = None
        self.first: asyncio.Future[int] = self._loop.create_future()

    def listen(self) -> None:
        for number in SIGNALS:
            self._loop.add_signal_handler(number, self._receive, number)

    def forward_to(self, command: _Command) -> None:
        self._command = command
        if self.first.done():
            command.signal(self.first.result())

    def _receive(self, number: signal.Signals) -> None:
        if self._command is None:
            if not self.first.done():
                self.first.set_result(number)
        elif not (number == signal.SIGINT and _is_terminal_foreground()):
            self._command.signal(number)


def _is_terminal_foreground() -> bool:
    """Whether a Ctrl-C in the terminal reaches the command too: then passing it on would double it."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
