"""Batches that the backend has not acknowledged, on disk: bounded, the oldest out first, and each loss is counted.

Each batch is a file of its own, written aside, synced and renamed: after a crash it is there as a whole or not at all.
What cannot be written stays in memory, as far as there is room.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from opsmap_daemon.sparing import SparingLog
from opsmap_gateway.counters import Counters, Loss
from opsmap_protocol.codec import parse
from opsmap_protocol.errors import ProtocolError

_logger = logging.getLogger(__name__)

MAX_MEMORY_BYTES = 16 * 1024 * 1024
_BLOCK_BYTES = 4_096
"""The least that a file takes of a disk."""
_NAME = re.compile(r"(?P<number>\d{12})-(?P<results>\d{1,9})-(?P<batch_id>[0-9a-f]{32})\.json")
_UNFINISHED = ".new"


@dataclass(slots=True)
class _Batch:
    """A batch of `results` discovery results. `frame` is None if it is on disk, in `file`."""

    results: int
    size: int
    file: Path | None
    frame: str | None


class Buffer:
    """Keeps frames by batch id. Its methods touch the disk and may be called from threads.

    Args:
        folder: where the files are; None keeps all in memory.
        max_bytes: what the files may take of the disk, or the frames of memory if that is less than it may take.
    """

    def __init__(self, *, folder: Path | None, max_bytes: int, counters: Counters) -> None:
        self._folder = folder
        self._max_disk_bytes = max_bytes
        self._max_memory_bytes = min(max_bytes, MAX_MEMORY_BYTES)
        self._counters = counters
        self._log = SparingLog(_logger, logging.ERROR)
        self._batches: dict[str, _Batch] = {}
        """The oldest first."""
        self._next_number = 0
        self._lock = threading.Lock()

    @property
    def records(self) -> int:
        """How many discovery results wait."""
        return sum(batch.results for batch in list(self._batches.values()))

    @property
    def used_bytes(self) -> int:
        return sum(batch.size for batch in list(self._batches.values()))

    def ids(self) -> list[str]:
        """Of all batches, the oldest first."""
        return list(self._batches)

    def load(self) -> None:
        """Find what an earlier process has left."""
        if self._folder is None:
            return
        with self._lock:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                for file in sorted(self._folder.iterdir()):
                    self._find(file)
            except OSError as error:
                self._log.write("the buffer %s cannot be used, results are kept in memory: %s", self._folder, error)
            self._make_room(0, on_disk=True)

    def keep(self, batch_id: str, frame: str, results: int) -> None:
        """Keep a batch until `forget`; older ones may have to go for it."""
        with self._lock:
            size = _on_disk(len(frame.encode()))
            if self._folder is not None and size <= self._max_disk_bytes:
                self._make_room(size, on_disk=True)
                file = self._folder / f"{self._next_number:012d}-{results}-{batch_id}.json"
                if self._write(file, frame):
                    self._next_number += 1
                    self._batches[batch_id] = _Batch(results, size, file, None)
                    return
            self._keep_in_memory(batch_id, frame, results)

    def read(self, batch_id: str) -> str | None:
        """The frame, or None if it is gone, or no frame any more."""
        with self._lock:
            batch = self._batches.get(batch_id)
            if batch is None or batch.file is None:
                return None if batch is None else batch.frame
            try:
                frame = batch.file.read_text(encoding="utf-8")
                if parse(frame).get("batch_id") == batch_id:
                    return frame
                problem = "it is another batch"
            except (OSError, UnicodeDecodeError, ProtocolError) as error:
                problem = str(error)
            self._log.write("%s cannot be read and is given up: %s", batch.file, problem)
            self._counters.count(Loss.DISCOVERY_UNREADABLE, batch.results)
            self._remove(batch_id)
            return None

    def forget(self, batch_id: str) -> int:
        """The backend has it, or does not want it. How many results it held."""
        with self._lock:
            return self._remove(batch_id)

    def close(self) -> None:
        """Count what is in memory only, and ends with this process."""
        with self._lock:
            unsaved = sum(batch.results for batch in self._batches.values() if batch.file is None)
            if unsaved:
                self._counters.count(Loss.DISCOVERY_UNSAVED, unsaved)
                _logger.warning("%d discovery results were in memory only and are lost", unsaved)

    def _find(self, file: Path) -> None:
        match = _NAME.fullmatch(file.name.removesuffix(_UNFINISHED))
        if match is None:
            _logger.warning("%s is not a file of the buffer and is left alone", file)
            return
        results = int(match["results"])
        if file.name.endswith(_UNFINISHED):
            self._log.write("%s was not finished before the gateway ended, and is given up", file)
            self._counters.count(Loss.DISCOVERY_UNREADABLE, results)
            file.unlink()
            return
        self._batches[match["batch_id"]] = _Batch(results, _on_disk(file.stat().st_size), file, None)
        self._next_number = int(match["number"]) + 1

    def _keep_in_memory(self, batch_id: str, frame: str, results: int) -> None:
        size = len(frame)
        if size > self._max_memory_bytes:
            self._counters.count(Loss.DISCOVERY_TOO_MUCH, results)
            return
        self._make_room(size, on_disk=False)
        self._batches[batch_id] = _Batch(results, size, None, frame)

    def _make_room(self, size: int, *, on_disk: bool) -> None:
        limit = self._max_disk_bytes if on_disk else self._max_memory_bytes
        batches = {name: batch for name, batch in self._batches.items() if (batch.file is not None) is on_disk}
        used = sum(batch.size for batch in batches.values())
        for batch_id, batch in batches.items():
            if used + size <= limit:
                return
            used -= batch.size
            self._counters.count(Loss.DISCOVERY_TOO_MUCH, self._remove(batch_id))

    def _remove(self, batch_id: str) -> int:
        batch = self._batches.pop(batch_id, None)
        if batch is None:
            return 0
        if batch.file is not None:
            try:
                batch.file.unlink(missing_ok=True)
            except OSError as error:
                # It will be sent again after a restart: the backend knows a batch by its id.
                self._log.write("%s cannot be removed: %s", batch.file, error)
        return batch.results

    def _write(self, file: Path, frame: str) -> bool:
        unfinished = file.with_name(file.name + _UNFINISHED)
        try:
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
                stream.write(frame.encode())
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(file)
            _sync_folder(file.parent)
        except OSError as error:
            self._log.write("%s cannot be written, it is kept in memory: %s", file, error)
            self._discard(unfinished)
            return False
        return True

    def _discard(self, unfinished: Path) -> None:
        try:
            unfinished.unlink(missing_ok=True)
        except OSError as error:
            _logger.debug("%s cannot be removed: %s", unfinished, error)


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
