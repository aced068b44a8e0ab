"""Log lines that others can cause."""

from __future__ import annotations

import logging

import pytest

from opsmap_daemon.sparing import SparingLog

_logger = logging.getLogger("test")


def test_so_many_a_minute_and_then_how_many_were_left_out(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    log = SparingLog(_logger, logging.WARNING, limit=2, clock=lambda: now_s)
    for number in range(5):
        log.write("line %d", number)
    now_s = 61.0
    log.write("line %d", 5)
    now_s = 130.0
    log.write("line %d", 6)
    assert [record.getMessage() for record in caplog.records] == [
        "line 0",
        "line 1",
        "3 more lines like these were left out",
        "line 5",
        "line 6",
    ]
