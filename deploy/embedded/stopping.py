"""How a person or the system asks the supervisor to stop: first in order, then at once."""

import asyncio
import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Set by Ctrl-C, SIGTERM or a closed terminal; a second request sets `hurry` as well."""

    def __init__(self, hurry: asyncio.Event) -> None:
        self._hurry = hurry
        self._asked = asyncio.Event()

    def listen(self) -> None:
        """Take over the signals, also those that a shell has set to be ignored for a background job."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.ask)

    def stop_listening(self) -> None:
        """All is stopped: one more Ctrl-C changes nothing, not even the exit code."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def ask(self) -> None:
        if self._asked.is_set():
            self._hurry.set()
        self._asked.set()

    @property
    def is_asked(self) -> bool:
        return self._asked.is_set()

    async def wait(self) -> None:
        await self._asked.wait()
