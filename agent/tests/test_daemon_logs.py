"""Log lines as text and as JSON."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import resource
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opsmap_daemon import logs


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """The test runner has handlers of its own at the root."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("websockets", "asyncio")}
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = handlers, level
    for name, former in levels.items():
        logging.getLogger(name).setLevel(former)


def logged(tmp_path: Path, **settings: Any) -> list[str]:
    """The lines of a short life."""
    file = tmp_path / "logs" / "daemon.log"
    logs.configure(logs.Logging(file=file, **settings))
    logger = logging.getLogger("opsmap_gateway.router")
    logger.debug("a detail")
    logger.info("agent %s is here", "srv-1", extra={"agent": "srv-1"})
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logger.exception("a fault")
    logging.getLogger("websockets.server").info("chatter")
    return file.read_text().splitlines()


def test_json_lines_carry_extras_and_exceptions(tmp_path: Path) -> None:
    here, fault = [json.loads(line) for line in logged(tmp_path, format="json")]
    assert here.pop("time").endswith("+00:00")
    assert here == {
        "level": "info",
        "target": "opsmap_gateway.router",
        "message": "agent srv-1 is here",
        "agent": "srv-1",
    }
    assert "RuntimeError: broken" in fault["exception"]


def test_what_lines_contain_can_be_chosen(tmp_path: Path) -> None:
    lines = logged(tmp_path, format="json", include_timestamps=False, include_target=False, level="info")
    assert json.loads(lines[0]) == {"level": "info", "message": "agent srv-1 is here", "agent": "srv-1"}


def test_text_lines(tmp_path: Path) -> None:
    lines = logged(tmp_path, level="debug", include_timestamps=False)
    assert lines[:2] == [
        "DEBUG   opsmap_gateway.router: a detail",
        "INFO    opsmap_gateway.router: agent srv-1 is here",
    ]
    assert "chatter" not in "".join(lines)


def test_level_leaves_out_what_is_below(tmp_path: Path) -> None:
    assert logged(tmp_path, level="error", include_timestamps=False)[0] == "ERROR   opsmap_gateway.router: a fault"


def test_text_of_a_peer_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(logs.Logging(include_timestamps=False))
    logging.getLogger("opsmap").warning("it says %s", "hello\nERROR   opsmap: all is lost\x1b[31m")
    assert capsys.readouterr().err == "WARNING opsmap: it says hello\\x0aERROR   opsmap: all is lost\\x1b[31m\n"


def test_traceback_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(logs.Logging(include_timestamps=False))
    said = "it says\nERROR   opsmap: all is lost\r\x1b[31m\u202e\u2028ERROR   opsmap: twice"
    try:
        try:
            raise ValueError(said)
        except ValueError as error:
            error.add_note("a note\nERROR   opsmap: thrice")
            raise ExceptionGroup(said, [error]) from error
    except ExceptionGroup:
        logging.getLogger("opsmap").exception("a fault", stack_info=True)
    first, *others, last = capsys.readouterr().err.split("\n")
    assert (first, last) == ("ERROR   opsmap: a fault", "")
    assert all(line.startswith("    ") and line.isprintable() for line in others)
    assert "    Traceback (most recent call last):" in others
    assert "    ValueError: it says" in others
    assert "    ERROR   opsmap: all is lost\\x0d\\x1b[31m\\u202e\\u2028ERROR   opsmap: twice" in others
    assert "    Stack (most recent call last):" in others


def finish_compressing() -> None:
    for handler in logging.getLogger().handlers:
        handler.close()


def test_full_files_are_rotated_and_compressed(tmp_path: Path) -> None:
    file = tmp_path / "daemon.log"
    logs.configure(logs.Logging(file=file, max_size_mb=1, max_files=2, compress=True, include_timestamps=False))
    logger = logging.getLogger("opsmap")
    for number in range(4):
        logger.info("%d %s", number, "x" * 700_000)
    finish_compressing()
    assert file.read_text().startswith("INFO    opsmap: 3 ")
    with gzip.open(tmp_path / "daemon.log.1.gz", "rt") as packed:
        assert packed.read().startswith("INFO    opsmap: 2 ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["daemon.log", "daemon.log.1.gz", "daemon.log.2.gz"]


def test_without_a_file_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(logs.Logging(include_timestamps=False))
    logging.getLogger("opsmap").warning("look here")
    assert capsys.readouterr().err == "WARNING opsmap: look here\n"


def test_former_files_keep_as_they_are_unless_compressed(tmp_path: Path) -> None:
    logs.configure(logs.Logging(file=tmp_path / "daemon.log", max_size_mb=1, max_files=1, include_timestamps=False))
    for number in range(3):
        logging.getLogger("opsmap").info("%d %s", number, "é" * 400_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["daemon.log", "daemon.log.1"]
    assert (tmp_path / "daemon.log.1").read_text().startswith("INFO    opsmap: 1 ")


def test_span_is_the_task_that_a_line_was_written_in(tmp_path: Path) -> None:
    async def work() -> None:
        logging.getLogger("opsmap").info("within")

    async def main() -> None:
        await asyncio.create_task(work(), name="command r-1")

    for form in ("text", "json"):
        logs.configure(
            logs.Logging(file=tmp_path / f"daemon.{form}", include_span=True, include_timestamps=False, format=form)
        )
        asyncio.run(main())
        logging.getLogger("opsmap").info("without")
    assert (tmp_path / "daemon.text").read_text().splitlines() == [
        "INFO    opsmap: [command r-1] within",
        "INFO    opsmap: [] without",
    ]
    spans = [json.loads(line)["span"] for line in (tmp_path / "daemon.json").read_text().splitlines()]
    assert spans == ["command r-1", ""]


def test_removed_or_moved_file_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "daemon.log"
    logs.configure(logs.Logging(file=file, include_timestamps=False))
    logging.getLogger("opsmap").info("first")
    file.rename(file.with_name("moved"))
    logging.getLogger("opsmap").info("second")
    shutil.rmtree(file.parent)
    logging.getLogger("opsmap").info("third")
    assert file.read_text() == "INFO    opsmap: third\n"
    assert stat.S_IMODE(file.stat().st_mode) & 0o007 == 0, "nobody else reads it"


def test_full_disk_loses_whole_lines_and_says_how_many(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the same error at the same call."""
    file = tmp_path / "daemon.log"
    logs.configure(logs.Logging(file=file, include_timestamps=False))
    logger = logging.getLogger("opsmap")
    logger.info("before")
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60, former[1]))
        for number in range(3):
            logger.info("%d %s", number, "x" * 200)
        assert file.read_text() == "INFO    opsmap: before\n", "no half lines"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, ignored)
    logger.info("after")
    assert file.read_text().splitlines() == [
        "INFO    opsmap: before",
        "WARNING opsmap_daemon.log_file: 3 lines before the next one could not be written",
        "INFO    opsmap: after",
    ]
