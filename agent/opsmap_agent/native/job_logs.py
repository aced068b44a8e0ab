"""What jobs have written: the log of a component that the agent started."""

from __future__ import annotations

import asyncio
from typing import TypedDict

from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.native.registry import NativeCommandError, NativeContext, native

_MAX_BYTES = 256 * 1024


class JobLogPiece(TypedDict):
    text: str
    size: int
    offset: int
    next_offset: int
    is_truncated: bool
    gone: int


@native("job_log", switches=())
async def job_log(
    context: NativeContext,
    *,
    request_id: str | None = None,
    subject: str | None = None,
    max_bytes: int = 16 * 1024,
    offset: int | None = None,
) -> JobLogPiece:
    """The output of one job, or of the newest job that started `subject`.

    Its end, or with `offset` what follows there; `next_offset` is where to go on. All are counted in bytes since the
    beginning, also the `gone` ones that the limit of logs has cost. Nothing can switch it off: it
    shows only what this agent's own jobs wrote, and who may see it is the backend's to decide.
    """
    if (request_id is None) == (subject is None):
        raise RejectedError("native command 'job_log': give either request_id or subject")
    if max_bytes < 1 or (offset is not None and offset < 0):
        raise RejectedError("native command 'job_log': max_bytes is at least 1, offset at least 0")
    if request_id is not None:
        job = await context.journal.job_of(request_id)
    else:
        job = await context.journal.newest_job(subject or "")
    if job is None:
        raise NativeCommandError("no job of this agent has a log for that")
    folder = context.folder_of(job.request_id)
    piece = await asyncio.to_thread(folder.read_log, min(max_bytes, _MAX_BYTES), offset)
    return {
        "text": piece.text,
        "size": piece.size,
        "offset": piece.offset,
        "next_offset": piece.next_offset,
        "is_truncated": piece.is_truncated,
        "gone": piece.gone,
    }
