"""The folder of one job: the records that shim.sh keeps, seen from the agent. See shim.sh for what each file means."""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from opsmap_agent.host.processes import ProcessIdentity
from opsmap_agent.jobs.log import JobLog, LogSlice


@dataclass(frozen=True, slots=True)
class JobFolder:
    path: Path

    def create(self) -> None:
        """Only the agent's user may look inside: output may hold secrets."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self.path)

    @property
    def log_path(self) -> Path:
        return self.path / "output.log"

    def remove_partial_claim(self) -> None:
        """Clears what a shim left that died while claiming. For the holder of the lock."""
        (self.path / "claim").unlink(missing_ok=True)

    def take_lock(self) -> int | None:
        """The locked descriptor, for the shim to inherit or the caller to close; None while a shim holds the lock."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def has_shim(self) -> bool:
        """Whether a shim is alive, by its lock: also true in the moment before it has claimed the job."""
        if not self.path.is_dir():
            return False
        descriptor = self.take_lock()
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    def is_claimed(self) -> bool:
        """Whether the command may have begun. A claim cut short was never synced, so its command never began."""
        return self.shim() is not None

    def shim(self) -> ProcessIdentity | None:
        return ProcessIdentity.parse(self._read("claim"))

    def process(self) -> ProcessIdentity | None:
        return ProcessIdentity.parse(self._read("pid"))

    def exit_code(self) -> int | None:
        record = self._read("exit")
        return int(record) if record.endswith("\n") else None

    def claimed_at(self) -> datetime | None:
        try:
            return datetime.fromtimestamp((self.path / "claim").stat().st_mtime, UTC)
        except FileNotFoundError:
            return None

    def read_log(self, max_bytes: int, offset: int | None = None) -> LogSlice:
        """Up to `max_bytes` of output from `offset`, or its end; see `JobLog.read`."""
        return JobLog(self.log_path).read(max_bytes, offset)

    def log_tail(self, max_bytes: int) -> str:
        return self.read_log(max_bytes).text

    def _read(self, name: str) -> str:
        try:
            return (self.path / name).read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return ""
