"""What jobs have written, by `job_log`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.jobs.folder import JobFolder
from opsmap_agent.journal.rows import JobRow
from opsmap_agent.native import NativeCommandError
from opsmap_protocol.messages import AsyncStarted
from testing_natives import RunNative


async def test_job_log(native: RunNative, tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "r-1")
    folder.create()
    folder.log_path.write_text("first line\nsecond line\n")
    row = JobRow("job_r-1", "r-1", "{}", "kafka", True, datetime.now(UTC))
    started = AsyncStarted("r-1", "job_r-1", 1, datetime.now(UTC), 2000)
    await native.context.journal.record(started, job=row)
    expected = {"text": "second line\n", "size": 23, "offset": 11, "next_offset": 23, "is_truncated": True}
    assert (await native("job_log", request_id="r-1", max_bytes=12)).items() >= expected.items()
    assert (await native("job_log", subject="kafka", max_bytes=12)).items() >= expected.items()
    following = await native("job_log", subject="kafka", max_bytes=5, offset=6)
    assert (following["text"], following["next_offset"], following["is_truncated"]) == ("line\n", 11, True)


async def test_job_log_of_nobody(native: RunNative) -> None:
    with pytest.raises(NativeCommandError, match="no job of this agent"):
        await native("job_log", request_id="../../etc")
    with pytest.raises(RejectedError, match="either request_id or subject"):
        await native("job_log")
    with pytest.raises(RejectedError, match="max_bytes is at least 1"):
        await native("job_log", subject="kafka", max_bytes=0)
