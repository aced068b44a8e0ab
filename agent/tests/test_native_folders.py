"""What is in a folder, compared with find."""

from __future__ import annotations

import os
import subprocess
import tempfile
from datetime import datetime
from pathlib import Path

import pytest

from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.native.bounds import MAX_ENTRIES
from testing_natives import RunNative


def by_find(path: Path, depth: int) -> dict[str, tuple[bool, int, float]]:
    command = ["find", str(path), "-mindepth", "1", "-maxdepth", str(depth), "-printf", "%p\\0%y\\0%s\\0%T@\\0"]
    fields = (
        subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8", "surrogateescape").split("\0")
    )
    rows = zip(*[iter(fields[:-1])] * 4, strict=True)
    return {path: (kind == "d", int(size), float(time)) for path, kind, size, time in rows}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    for name in ("a/b/c/d", "e"):
        (folder / name).mkdir(parents=True)
    (folder / "a" / "file").write_text("12345")
    (folder / "a" / "b" / "<b>\n\x1b[2J").write_text("x")
    (folder / os.fsdecode(b"latin\xe9")).touch()
    (folder / "out").symlink_to("/etc")
    (folder / "a" / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize(
    ("params", "depth"), [({}, 1), ({"recursive": True}, 99), ({"recursive": True, "max_depth": 2}, 2)]
)
async def test_it_is_what_find_says(native: RunNative, tree: Path, params: dict[str, object], depth: int) -> None:
    found = await native("dir_list", path=str(tree), **params)
    assert {
        each["path"]: (each["is_dir"], each["size"], pytest.approx(datetime.fromisoformat(each["mtime"]).timestamp()))
        for each in found
    } == by_find(tree, depth)
    assert all(each["name"] == Path(each["path"]).name for each in found)
    assert not any(each["path"].startswith(f"{tree}/out/") for each in found)


async def test_a_folder_with_100_000_entries(native: RunNative, tmp_path: Path) -> None:
    memory = Path("/dev/shm")  # noqa: S108 - quicker than a disk, and removed at the end
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        descriptor = os.open(folder, os.O_RDONLY)
        for number in range(100_000):
            os.mknod(str(number), dir_fd=descriptor)
        os.close(descriptor)
        answer = await native.answer("dir_list", path=folder)
    assert answer.remark == f"not all: these are the first {len(answer.result)} entries"
    assert 1_000 < len(answer.result) <= MAX_ENTRIES


async def test_a_chain_of_folders_deeper_than_the_limit(native: RunNative, tmp_path: Path) -> None:
    path = tmp_path
    for _ in range(50):
        path /= "d"
    path.mkdir(parents=True)
    assert len(await native("dir_list", path=str(tmp_path / "d"), recursive=True)) == 8
    assert len(await native("dir_list", path=str(tmp_path / "d"), recursive=True, max_depth=32)) == 32
    for depth in (0, -1, 33, 2**60):
        with pytest.raises(RejectedError, match="max_depth is between 1 and 32"):
            await native("dir_list", path=str(tmp_path), recursive=True, max_depth=depth)


async def test_no_descriptor_is_left_open(native: RunNative, tree: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        await native("dir_list", path=str(tree), recursive=True)
        await native("file_read", path=str(tree / "a" / "file"))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


async def test_an_empty_folder(native: RunNative, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert await native("dir_list", path=str(tmp_path / "none"), recursive=True) == []
