"""The supervisor: services that must stay up, daemons that are started again, one-shots that are waited for.

It knows nothing of what it runs; `stack` is the table of that.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Collection, Iterator

from deploy.embedded.errors import EmbeddedError, ServiceError
from deploy.embedded.leftovers import Record
from deploy.embedded.output import Output
from deploy.embedded.process import Child, ProcessSpec, describe_end

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 15.0
# A daemon that has run this long was well: its next death starts with the shortest delay again.
STEADY_S = 30.0

Sleep = Callable[[float], Awaitable[None]]


def restart_delays() -> Iterator[float]:
    """0.5 s, doubled up to 15 s."""
    delay = FIRST_DELAY_S
    while True:
        yield delay
        delay = min(delay * 2, MAX_DELAY_S)


class Supervisor:
    """Every child of one run. `failure` is set by the first thing that makes going on pointless."""

    def __init__(self, output: Output, record: Record, *, sleep: Sleep = asyncio.sleep) -> None:
        self._output = output
        self._record = record
        self._sleep = sleep
        self._children: dict[str, Child] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.failure: asyncio.Future[EmbeddedError] = asyncio.get_running_loop().create_future()
        self.hurry = asyncio.Event()

    def start_service(self, spec: ProcessSpec) -> Child:
        """Start something the rest stands on: its end is the end of the run."""
        child = self._start(spec)
        self._watch(spec.name, self._expect_no_end(child))
        return child

    def keep(self, spec: ProcessSpec) -> None:
        """Start a daemon, and start it again with growing delays whenever it ends."""
        self._watch(spec.name, self._restart(spec, self._start(spec)))

    async def run_once(self, spec: ProcessSpec) -> int:
        """Run it to its end; the exit status as subprocess gives it."""
        return await self._start(spec).wait()

    async def stop_restarting(self) -> None:
        """From now on nothing is started again, and no end is a failure."""
        tasks = tuple(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self, names: Collection[str]) -> None:
        """Stop these, all at once; whatever of them does not run is skipped. `stop_restarting` comes first."""
        children = [child for name in names if (child := self._children.pop(name, None)) and not child.has_ended]
        codes = await asyncio.gather(*(child.stop(self.hurry) for child in children))
        for child, code in zip(children, codes, strict=True):
            if code == -signal.SIGKILL and not self.hurry.is_set():
                self._output.warn(f"{child.spec.name} did not stop in time and was killed.")

    async def stop_all(self) -> None:
        """Stop whatever has not been stopped in order."""
        await self.stop_restarting()
        await self.stop(tuple(self._children))

    def _start(self, spec: ProcessSpec) -> Child:
        def show(line: str) -> None:
            self._output.line(spec.name, line, is_shown=spec.is_line_shown(line))

        child = Child(spec, show)
        self._children[spec.name] = child
        self._record.add(child)
        return child

    def _watch(self, name: str, work: Awaitable[None]) -> None:
        async def watched() -> None:
            try:
                await work
            except EmbeddedError as error:
                if not self.failure.done():
                    self.failure.set_result(error)

        self._tasks[name] = asyncio.create_task(watched(), name=name)

    async def _expect_no_end(self, child: Child) -> None:
        code = await child.wait()
        name = child.spec.name
        last = "".join(f"\n    {line}" for line in self._output.tail(name))
        raise ServiceError(f"{name} ended unexpectedly ({describe_end(code)}). Its last lines:{last or ' none'}")

    async def _restart(self, spec: ProcessSpec, child: Child) -> None:
        clock = asyncio.get_running_loop()
        delays = restart_delays()
        while True:
            began = clock.time()
            code = await child.wait()
            if clock.time() - began >= STEADY_S:
                delays = restart_delays()
            delay = next(delays)
            self._output.fail(
                f"{spec.name} ended unexpectedly ({describe_end(code)}): starting it again in {delay:g} s."
            )
            await self._sleep(delay)
            child = self._start(spec)
