"""Batches on disk: what survives, what has to go, and that each loss is counted."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

import pytest

from opsmap_gateway import buffer as buffer_module
from opsmap_gateway.buffer import Buffer
from opsmap_gateway.counters import Counters, Loss

BLOCK = 4_096
PLENTY = 1024 * 1024


def batch(size: int = 100) -> tuple[str, str]:
    """An id, and a frame with so much in it."""
    batch_id = uuid.uuid4().hex
    return batch_id, f'{{"type":"discovery_batch","batch_id":"{batch_id}","padding":"{"x" * size}"}}'


class Kept:
    """A buffer, and what was put into it."""

    def __init__(self, folder: Path | None, max_bytes: int = PLENTY) -> None:
        self.counters = Counters()
        self.buffer = Buffer(folder=folder, max_bytes=max_bytes, counters=self.counters)
        self.buffer.load()
        self.frames: dict[str, str] = {}

    def put(self, size: int = 100, results: int = 1) -> str:
        batch_id, frame = batch(size)
        self.frames[batch_id] = frame
        self.buffer.keep(batch_id, frame, results)
        return batch_id

    def lost(self) -> dict[str, int]:
        return self.counters.totals()


def test_it_survives_a_restart_in_order(tmp_path: Path) -> None:
    before = Kept(tmp_path / "buffer")
    names = [before.put(results=number) for number in (3, 1, 2)]
    after = Kept(tmp_path / "buffer")
    assert after.buffer.ids() == names
    assert [after.buffer.read(name) for name in names] == list(before.frames.values())
    assert (after.buffer.records, after.buffer.used_bytes) == (6, 3 * BLOCK)
    newest = after.put()
    assert Kept(tmp_path / "buffer").buffer.ids() == [*names, newest]
    assert after.lost() == {}


def test_what_is_acknowledged_is_gone_for_good(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    first, second = kept.put(), kept.put(results=5)
    assert kept.buffer.forget(first) == 1
    assert kept.buffer.forget(first) == 0
    assert kept.buffer.read(first) is None
    assert Kept(tmp_path).buffer.ids() == [second]
    assert kept.lost() == {}


def test_the_oldest_make_room_and_are_counted(tmp_path: Path) -> None:
    kept = Kept(tmp_path, max_bytes=3 * BLOCK)
    names = [kept.put(results=2) for _ in range(5)]
    assert kept.buffer.ids() == names[2:]
    assert kept.buffer.used_bytes <= 3 * BLOCK
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 3 * BLOCK
    assert kept.lost() == {Loss.DISCOVERY_TOO_MUCH: 4}


def test_a_smaller_limit_holds_after_a_restart(tmp_path: Path) -> None:
    names = [Kept(tmp_path).put() for _ in range(4)]
    kept = Kept(tmp_path, max_bytes=2 * BLOCK)
    assert kept.buffer.ids() == names[2:]
    assert kept.lost() == {Loss.DISCOVERY_TOO_MUCH: 2}


def test_what_was_not_written_to_the_end_is_counted_and_removed(tmp_path: Path) -> None:
    whole = Kept(tmp_path).put()
    torn = tmp_path / f"000000000009-7-{uuid.uuid4().hex}.json.new"
    torn.write_text('{"type":"discov')
    kept = Kept(tmp_path)
    assert kept.buffer.ids() == [whole]
    assert kept.lost() == {Loss.DISCOVERY_UNREADABLE: 7}
    assert not torn.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"type":"discovery_batch","batch_id":"another"}', b"[]"])
def test_a_damaged_file_is_counted_and_the_others_are_sent(tmp_path: Path, content: bytes) -> None:
    before = Kept(tmp_path)
    damaged, whole = before.put(results=3), before.put()
    next(file for file in tmp_path.iterdir() if damaged in file.name).write_bytes(content)
    kept = Kept(tmp_path)
    assert kept.buffer.read(damaged) is None
    assert kept.buffer.read(whole) == before.frames[whole]
    assert kept.buffer.ids() == [whole]
    assert kept.lost() == {Loss.DISCOVERY_UNREADABLE: 3}


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    assert Kept(tmp_path).buffer.ids() == []
    assert other.read_text() == "mine"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_takes_nothing_is_no_loss_while_there_is_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    kept = Kept(tmp_path)

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(buffer_module.os, "fsync", fail)
    name = kept.put(results=4)
    assert kept.buffer.read(name) == kept.frames[name]
    assert list(tmp_path.iterdir()) == []
    assert kept.lost() == {}
    assert "it is kept in memory" in caplog.text
    monkeypatch.undo()
    kept.put()
    kept.buffer.close()
    assert kept.lost() == {Loss.DISCOVERY_UNSAVED: 4}, "only what never got to the disk"


def test_memory_is_bounded_and_its_losses_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer_module, "MAX_MEMORY_BYTES", 1_000)
    kept = Kept(None)
    names = [kept.put(size=300) for _ in range(5)]
    assert kept.buffer.ids() == names[3:]
    assert kept.buffer.used_bytes <= 1_000
    kept.put(size=2_000)
    assert kept.buffer.ids() == names[3:], "what never fits pushes nobody out"
    assert kept.lost() == {Loss.DISCOVERY_TOO_MUCH: 4}


def test_a_place_that_cannot_be_used_is_reported_and_harmless(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    kept = Kept(tmp_path / "file" / "buffer")
    name = kept.put()
    assert kept.buffer.read(name) == kept.frames[name]
    assert "cannot be used" in caplog.text


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    Kept(tmp_path / "buffer").put()
    (file,) = (tmp_path / "buffer").iterdir()
    assert (tmp_path / "buffer").stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600
