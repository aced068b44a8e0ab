"""Files, compared with stat and sha256sum, and every kind of file that must not be opened."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import socket
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path

import pytest

from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.native import NativeCommandError, opening
from testing_natives import RunNative

READERS = ("file_read", "file_checksum")


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("12345")
    path.chmod(0o640)
    return path


async def test_file_exists(native: RunNative, path: Path) -> None:
    assert await native("file_exists", path=str(path)) == {"exists": True, "is_file": True, "is_dir": False}
    assert await native("file_exists", path=str(path.parent)) == {"exists": True, "is_file": False, "is_dir": True}
    nothing = {"exists": False, "is_file": False, "is_dir": False}
    (path.parent / "dangling").symlink_to("nowhere")
    for none in (f"{path}/x", "/none/x", f"{path.parent}/dangling", "/a\0b"):
        assert await native("file_exists", path=none) == nothing


async def test_file_stat_is_what_stat_says(native: RunNative, path: Path) -> None:
    found = await native("file_stat", path=str(path))
    size, mode, uid, gid, *times = run("stat", "--format=%s %a %u %g %.6Y %.6X %.6Z", str(path)).split()
    assert (found["size"], found["mode"]) == (int(size), f"0{mode}")
    assert (found["uid"], found["gid"]) == (int(uid), int(gid))
    for name, time in zip(("mtime", "atime", "ctime"), times, strict=True):
        assert datetime.fromisoformat(found[name]).timestamp() == pytest.approx(float(time), abs=0.001)


async def test_times_beyond_any_calendar(native: RunNative, path: Path) -> None:
    os.utime(path, (2**34, -(2**31)))
    found = await native("file_stat", path=str(path))
    expected = [int(each) for each in run("stat", "--format=%Y %X", str(path)).split()]
    assert [int(datetime.fromisoformat(found[name]).timestamp()) for name in ("mtime", "atime")] == expected


@pytest.mark.parametrize("algorithm", ["md5", "sha256", "sha512"])
async def test_checksum_is_what_everybody_gets(native: RunNative, path: Path, algorithm: str) -> None:
    path.write_bytes(os.urandom(3_000_001))
    found = await native("file_checksum", path=str(path), algorithm=algorithm)
    assert found == {"checksum": run(f"{algorithm}sum", str(path)).split()[0], "algorithm": algorithm}
    with pytest.raises(RejectedError, match="algorithm is one of md5, sha256, sha512"):
        await native("file_checksum", path=str(path), algorithm="crc32")


async def test_checksum_of_a_file_that_is_too_large_for_its_time(native: RunNative, path: Path) -> None:
    os.truncate(path, 2**40)
    natives = native.natives()
    with pytest.raises(NativeCommandError, match=r"no answer within 0\.05 s"):
        await natives.run("file_checksum", {"path": str(path)}, 0.05)
    # Its thread has noticed, and is there for others.
    for thread in threading.enumerate():
        if thread.name == "native file_checksum":
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive()


async def test_reading_a_text_piece_by_piece(native: RunNative, path: Path) -> None:
    text = "größer als 5 €\n" * 50
    path.write_text(text, encoding="utf-8")
    read, offset, is_more = "", 0, True
    while is_more:
        piece = await native("file_read", path=str(path), max_bytes=7, offset=offset)
        assert (piece["encoding"], piece["size"], piece["offset"]) == ("utf-8", len(text.encode()), offset)
        assert piece["next_offset"] > offset
        read, offset, is_more = read + piece["content"], piece["next_offset"], piece["truncated"]
    assert read == text
    beyond = await native("file_read", path=str(path), offset=10**12)
    assert (beyond["content"], beyond["truncated"]) == ("", False)


@pytest.mark.parametrize("data", [b"\x89PNG\0\0", b"\xff\xfe", b"a\0b", "ü".encode()[:1], b"\x80" * 100])
async def test_what_is_no_text_comes_as_base64(native: RunNative, path: Path, data: bytes) -> None:
    path.write_bytes(data)
    found = await native("file_read", path=str(path))
    assert (found["encoding"], base64.b64decode(found["content"])) == ("base64", data)


async def test_an_answer_is_never_larger_than_it_may_be(native: RunNative, path: Path) -> None:
    path.write_bytes(b"\x1b" * 3_000_000)
    found = await native("file_read", path=str(path), max_bytes=2**40)
    assert (len(found["content"]), found["next_offset"], found["truncated"]) == (256 * 1024, 256 * 1024, True)
    with pytest.raises(RejectedError, match="max_bytes is at least 1"):
        await native("file_read", path=str(path), max_bytes=0)
    with pytest.raises(RejectedError, match="offset at least 0"):
        await native("file_read", path=str(path), offset=-1)


async def test_files_of_proc_have_no_size_and_can_be_read(native: RunNative) -> None:
    found = await native("file_read", path="/proc/meminfo")
    assert found["content"].startswith("MemTotal:")
    assert not found["truncated"]
    first = await native("file_read", path="/proc/meminfo", max_bytes=10)
    assert (first["content"], first["truncated"]) == (found["content"][:10], True)
    assert (await native("file_checksum", path="/proc/version"))["checksum"] == hashlib.sha256(
        Path("/proc/version").read_bytes()
    ).hexdigest()


@pytest.mark.parametrize("command", READERS)
async def test_what_is_no_file_is_never_opened(native: RunNative, tmp_path: Path, command: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to-zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for path, kind in (
            ("/dev/zero", "device"),
            ("/dev/null", "device"),
            (tmp_path / "to-zero", "device"),
            (tmp_path / "pipe", "pipe"),
            (tmp_path / "socket", "socket"),
            (tmp_path, "folder"),
        ):
            with pytest.raises(NativeCommandError, match=f"is a {kind}, not a file to read"):
                await native.within(5, command, path=str(path))


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize(
    "path",
    [
        "/proc/self/environ",
        "/proc/self/mem",
        "/proc/thread-self/environ",
        "/proc/1/environ",
        "/proc/self/task/../environ",
        "/proc/self/root/proc/self/environ",
        "/dev/../proc/self/cmdline",
    ],
)
async def test_the_inside_of_processes_is_private(native: RunNative, command: str, path: str) -> None:
    with pytest.raises((RejectedError, NativeCommandError), match=r"shows the inside of a process|Permission denied"):
        await native(command, path=path)


async def test_the_inside_of_processes_by_another_mount(native: RunNative, tmp_path: Path) -> None:
    """A second /proc, as a container or a chroot has it, is the same one."""
    code = (
        f"mount -t proc proc {tmp_path} && cd /work 2>/dev/null; exec {sys.executable} -c "
        "'from opsmap_agent.native import opening, NativeContext\n"
        "from opsmap_agent.commands.refusals import RejectedError\n"
        "try:\n"
        f'    with opening.regular_file(NativeContext(None, None, None), "{tmp_path}/self/environ"): print("read")\n'
        'except RejectedError as error: print("refused")\''
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(["unshare", "--mount", "sh", "-c", code], capture_output=True, text=True, env=environment)
    if "unshare" in found.stderr or "mount:" in found.stderr:
        pytest.skip("this machine allows no mount namespaces")
    assert found.stdout == "refused\n", found.stderr


@pytest.mark.parametrize("command", READERS)
async def test_the_agents_key_and_journal_are_private(native: RunNative, tmp_path: Path, command: str) -> None:
    key, journal = (Path(each) for each in native.context.private_paths)
    (tmp_path / "link").symlink_to(key)
    (tmp_path / "hardlink").hardlink_to(key)
    (tmp_path / "folder").symlink_to(journal)
    database = next(journal.iterdir())
    (tmp_path / "database").hardlink_to(database)
    roundabout = f"{key.parent}/../{key.parent.name}/./{key.name}"
    for path in (
        key,
        tmp_path / "link",
        tmp_path / "hardlink",
        roundabout,
        database,
        tmp_path / "folder" / database.name,
        tmp_path / "database",
    ):
        with pytest.raises(RejectedError, match="is the agent's own"):
            await native(command, path=str(path))


@pytest.mark.parametrize("command", [*READERS, "file_stat", "file_exists", "dir_list"])
async def test_paths_that_lead_nowhere(native: RunNative, tmp_path: Path, command: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(NativeCommandError, match="Too many levels of symbolic links"):
        await native(command, path=str(tmp_path / "loop"))
    with pytest.raises(NativeCommandError, match="File name too long"):
        await native(command, path="/" + "x" * 100_000)
    for relative in ("", "etc/passwd", "../etc", "~/x"):
        with pytest.raises(RejectedError, match="is not an absolute path"):
            await native(command, path=relative)
    if command != "file_exists":
        for path in (f"{tmp_path}/none", f"{tmp_path}/a\0b"):
            with pytest.raises(NativeCommandError, match=r"No such file|null"):
                await native(command, path=path)


async def test_a_file_swapped_for_a_device_is_not_opened(
    native: RunNative, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the check the path leads elsewhere; what is read is what was checked."""
    check = opening._check_is_public

    def check_and_swap(*arguments: object) -> None:
        check(*arguments)  # type: ignore[arg-type]
        path.unlink()
        path.symlink_to("/dev/zero")

    monkeypatch.setattr(opening, "_check_is_public", check_and_swap)
    assert (await native("file_read", path=str(path)))["content"] == "12345"
