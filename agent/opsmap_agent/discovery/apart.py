"""Looking around in a child process: time, memory and hung file systems are its own, not the agent's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from opsmap_agent.discovery.findings import clean
from opsmap_agent.discovery.reports import BUDGETS, Digests, KindReport
from opsmap_protocol.enums import DiscoveryKind
from opsmap_trust.children import child_command

_TIMEOUT_S = 60.0
_MAX_LINE_BYTES = 4 * 1024 * 1024
"""Of the answer about one kind: its findings, and digests by keys."""


async def survey_apart(
    kinds: Sequence[DiscoveryKind], told: Mapping[str, Digests], timeout_s: float = _TIMEOUT_S
) -> list[KindReport]:
    """What `survey` says, from a child process of low priority. Kinds that it does not get to have a fault.

    Raises:
        OSError: the child cannot be started.
    """
    child = await asyncio.create_subprocess_exec(
        *child_command("opsmap_agent.discovery.child"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_MAX_LINE_BYTES,
    )
    reports: list[KindReport] = []
    try:
        async with asyncio.timeout(timeout_s):
            complaint = await _converse(child, {"kinds": list(kinds), "told": dict(told)}, reports)
        reason = f"the look at this host failed: {_last_line(complaint) or f'exit code {child.returncode}'}"
    except TimeoutError:
        reason = f"it was not reached within {timeout_s:g} s"
    except ValueError as error:
        reason = f"the look at this host failed: {error}"
    finally:
        await _end(child)
    looked_at = {report.kind for report in reports}
    missing = [kind for kind in BUDGETS if kind in kinds and kind not in looked_at]
    return [*reports, *(_not_reached(kind, reason, told.get(kind, {})) for kind in missing)]


async def _converse(child: asyncio.subprocess.Process, request: dict[str, Any], reports: list[KindReport]) -> bytes:
    """Ask, and take the answers as they come; returns what the child complained of. Raises ValueError."""
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    complaint = asyncio.ensure_future(child.stderr.read(64 * 1024))
    try:
        with suppress(ConnectionError):
            # It may have died; then there is no answer either.
            child.stdin.write(json.dumps(request).encode())
            await child.stdin.drain()
        child.stdin.close()
        while line := await child.stdout.readline():
            reports.append(_from_json(line))
        await child.wait()
        return await complaint
    finally:
        complaint.cancel()


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        with suppress(ProcessLookupError):
            child.kill()
        # One that hangs in a file system dies when that answers; asyncio collects it then.
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await child.wait()


def _from_json(line: bytes) -> KindReport:
    data = json.loads(line)
    return KindReport(**data | {"kind": DiscoveryKind(data["kind"])})


def _not_reached(kind: DiscoveryKind, reason: str, told: Digests) -> KindReport:
    return KindReport(kind, removed=list(told), fault=reason)


def _last_line(complaint: bytes) -> str:
    lines = complaint.decode("utf-8", "replace").strip().splitlines()
    return clean(lines[-1]) if lines else ""
