"""`python -m deploy.embedded run`: the whole stack, from an empty folder to a page, until it is stopped."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded import demonstration, leftovers, ports, services
from deploy.embedded.configuration import write_configuration
from deploy.embedded.errors import EmbeddedError
from deploy.embedded.lock import Lease, SupervisorLock
from deploy.embedded.output import Output
from deploy.embedded.process import describe_end
from deploy.embedded.ready import (
    seconds_since_start,
    show_box,
    wait_until_listening,
    wait_until_ready,
    write_ready_file,
)
from deploy.embedded.stack import AGENT_NAMES, BOOTSTRAP, NAMES, STOP_ORDER, Stack
from deploy.embedded.state import StateFolder
from deploy.embedded.stopping import StopRequest
from deploy.embedded.supervisor import Supervisor
from deploy.embedded.waiting import first_of
from opsmap.lib.health_key import health_key

DEMONSTRATION_PATIENCE_S = 15.0


@dataclass(frozen=True)
class RunOptions:
    """What the command line asks for."""

    state: Path
    web_port: int | None = None
    is_any_port_free: bool = False
    has_demonstration: bool = True
    ready_file: Path | None = None


def run(options: RunOptions) -> int:
    """Run until stopped; the exit code of the command."""
    state = StateFolder.create(options.state)
    with SupervisorLock(state.path / "supervisor.lock") as lock:
        output = Output(sys.stdout, state.logs, environment=os.environ, names=(*services.NAMES, *NAMES))
        try:
            return asyncio.run(_execute(options, state, lock, output))
        finally:
            output.close()


async def _execute(options: RunOptions, state: StateFolder, lock: SupervisorLock, output: Output) -> int:
    record_path = state.path / "children.json"
    await leftovers.sweep(record_path, output.say)
    this = Run(options, state, lock, output, leftovers.Record(record_path))
    return await this.execute()


class Run:
    """One run: brings the stack up, waits for a reason to stop, takes it down in reverse order."""

    def __init__(
        self,
        options: RunOptions,
        state: StateFolder,
        lock: SupervisorLock,
        output: Output,
        record: leftovers.Record,
    ) -> None:
        self._options = options
        self._state = state
        self._lock = lock
        self._output = output
        self._record = record
        self._supervisor = Supervisor(output, record)
        self._stop = StopRequest(self._supervisor.hurry)
        self._lease = Lease(state.lease)

    async def execute(self) -> int:
        self._stop.listen()
        self._output.on_gone = self._stop.ask
        self._forget_readiness()
        work = asyncio.create_task(self._bring_up())
        asked = asyncio.create_task(self._stop.wait())
        try:
            await first_of(work, asked, self._supervisor.failure)
            if self._supervisor.failure.done() and not self._stop.is_asked:
                raise self._supervisor.failure.result()
            if work.done():
                work.result()
            await self._until_over(asked)
            self._output.say("Stopping. The data are kept. (Ctrl-C once more to hurry)")
            return 0
        except EmbeddedError as error:
            for line in str(error).splitlines():
                self._output.fail(line)
            return error.exit_code
        finally:
            work.cancel()
            asked.cancel()
            await asyncio.gather(work, asked, return_exceptions=True)
            await self._shut_down()

    async def _until_over(self, asked: asyncio.Task[None]) -> None:
        await first_of(asked, self._supervisor.failure)
        if not self._stop.is_asked:
            raise self._supervisor.failure.result()

    async def _bring_up(self) -> None:
        """1. ports and documents  2. services  3. bootstrap  4. daemons  5. ready."""
        chosen = await self._prepare()
        url = f"http://{ports.HOST}:{chosen[ports.WEB]}/"
        self._lock.describe(url)
        environment = await services.Services(
            self._state, self._supervisor, self._record, self._output, os.environ
        ).start()
        if self._options.has_demonstration:
            demonstration.render(self._state, _demonstration_ports(chosen), self._lease.path)
        write_configuration(self._state, chosen)
        stack = Stack(self._state, chosen, environment)
        setup = asyncio.create_task(self._set_up(stack))
        for daemon in stack.daemons():
            for need in daemon.after:
                if need == BOOTSTRAP:
                    await setup
                else:
                    await wait_until_listening(need, chosen[need], remind=self._output.warn)
            self._supervisor.keep(daemon.spec)
        key = health_key(environment[services.SECRET_KEY])
        await wait_until_ready(chosen[ports.WEB], key=key, agents=len(AGENT_NAMES), remind=self._output.warn)
        self._announce(url, chosen)

    async def _set_up(self, stack: Stack) -> None:
        code = await self._supervisor.run_once(stack.bootstrap(has_demonstration=self._options.has_demonstration))
        if code != 0:
            raise EmbeddedError(f"OpsMap cannot be set up: bootstrap ended with {describe_end(code)}; see above.")

    async def _prepare(self) -> dict[str, int]:
        """Wait for what an earlier run left to end, take the lease, choose the ports."""
        names: tuple[str, ...] = ()
        if self._options.has_demonstration:
            self._state.with_folders(self._state.demo, self._state.demo_run)
            await self._wait_for_demonstration("an earlier run's")
            self._lease.acquire()
            names = demonstration.port_names()
        return ports.choose(
            self._state.path / "ports.json",
            demonstration=names,
            web_port=self._options.web_port,
            is_any_free=self._options.is_any_port_free,
        )

    def _announce(self, url: str, chosen: Mapping[str, int]) -> None:
        ready_s = seconds_since_start()
        credentials = json.loads(self._state.credentials.read_text(encoding="utf-8"))
        show_box(
            self._output,
            (
                ("Open", url),
                ("Sign in", f"{credentials['email']}   password: {credentials['password']}"),
                ("Stop", "Ctrl-C (the data are kept for the next run)"),
                ("Logs", _shown(self._state.logs)),
                ("Data", _shown(self._state.path)),
            ),
            title="OpsMap is ready",
        )
        self._output.say(f"ready in {ready_s:.1f} s")
        if self._options.ready_file is not None:
            write_ready_file(self._options.ready_file, url=url, pid=os.getpid(), ports=chosen, ready_s=ready_s)

    async def _shut_down(self) -> None:
        """Agents, gateway, the rest, the services. The demonstration ends by itself once its lease is free."""
        self._forget_readiness()
        await self._supervisor.stop_restarting()
        first, *others = STOP_ORDER
        await self._supervisor.stop(first)
        self._lease.release()
        waiting = asyncio.create_task(self._wait_for_demonstration("the demonstration's"))
        for group in others:
            await self._supervisor.stop(group)
        await waiting
        await self._supervisor.stop(services.NAMES)
        await self._supervisor.stop_all()
        self._record.close()
        self._output.say("Stopped.")
        self._stop.stop_listening()

    async def _wait_for_demonstration(self, whose: str) -> None:
        run_folder = self._state.demo_run
        if not demonstration.processes(run_folder):
            return
        self._output.say(f"Waiting for {whose} processes to end.")
        left = await demonstration.wait_until_gone(
            run_folder, timeout_s=DEMONSTRATION_PATIENCE_S, hurry=self._supervisor.hurry
        )
        if left:
            self._output.warn(f"Still running: {', '.join(left)}.")

    def _forget_readiness(self) -> None:
        if self._options.ready_file is not None:
            self._options.ready_file.unlink(missing_ok=True)


def _demonstration_ports(chosen: Mapping[str, int]) -> dict[str, int]:
    return {name: port for name, port in chosen.items() if name not in ports.DEFAULTS}


def _shown(path: Path) -> str:
    """As a person in this directory would type it."""
    current = Path.cwd()
    return str(path.relative_to(current)) if path.is_relative_to(current) else str(path)
