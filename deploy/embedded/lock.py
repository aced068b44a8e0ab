"""Two locks the kernel releases whatever happens to the supervisor, even kill -9.

`SupervisorLock` allows one supervisor per state folder. `Lease` is what the demonstration's processes watch:
they are detached from the agents by design, so nothing but this lock tells them that OpsMap has gone.
"""

import fcntl
import json
import os
import time
from pathlib import Path
from types import TracebackType

from deploy.embedded.errors import AlreadyRunningError, EmbeddedError


class SupervisorLock:
    """An exclusive lock on a file that also says who holds it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def __enter__(self) -> "SupervisorLock":
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise AlreadyRunningError(self._describe_holder()) from None
        self._descriptor = descriptor
        self.describe(None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def describe(self, url: str | None) -> None:
        """Say in the file which address this supervisor serves, for a second one that finds the lock held."""
        assert self._descriptor is not None
        text = json.dumps({"pid": os.getpid(), "url": url}).encode("ascii")
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text, 0)

    def _describe_holder(self) -> str:
        try:
            holder = json.loads(self._path.read_text(encoding="ascii"))
            pid, url = int(holder["pid"]), holder["url"]
        except (OSError, ValueError, KeyError):
            # The holder is between taking the lock and writing its name.
            return f"OpsMap already runs here: {self._path.parent} is in use."
        return f"OpsMap already runs here (pid {pid}{f', {url}' if url else ''})."


class Lease:
    """The demonstration's reason to live: a lock, held for as long as the supervisor wants it up."""

    # A watcher tests the lock by taking it for an instant, so the first attempts may meet one.
    ACQUIRE_TIMEOUT_S = 5.0
    RETRY_S = 0.02

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        deadline = time.monotonic() + self.ACQUIRE_TIMEOUT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    raise EmbeddedError(f"{self.path} is locked by another process.") from None
                time.sleep(self.RETRY_S)
            else:
                self._descriptor = descriptor
                return

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
