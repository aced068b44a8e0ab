"""How the agent is, in a small file that it writes itself: `opsmap-agent status` reads it, and no port is opened.

The file says nothing of whether the agent still lives: the lock of its journal does, which the kernel frees.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from opsmap_agent.commands.tally import Refusal
from opsmap_daemon.sparing import SparingLog
from opsmap_protocol import codec
from opsmap_protocol.errors import ProtocolError

_logger = logging.getLogger(__name__)

WRITE_INTERVAL_S = 5.0
"""How often it is looked whether something has changed. The file is written then, and every minute in any case."""

_UNCHANGED_ROUNDS = 12
_NAME = "status.json"
_MODE = 0o640
_MAX_BYTES = 1024 * 1024


class StatusUnreadableError(Exception):
    """There is no status file, or none that can be understood; the message says which."""


@dataclass(frozen=True, slots=True)
class CertificateStatus:
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    """One session. `is_in_use`: the backend gets the events by it, the others stand by."""

    url: str
    is_in_use: bool
    connected_since: datetime
    last_contact: datetime


@dataclass(frozen=True, slots=True)
class BufferStatus:
    """The journal: events that the backend has not acknowledged. `lost_events`: dropped since the agent started."""

    events: int
    size_bytes: int
    quota_bytes: int
    oldest: datetime | None = None
    lost_events: int = 0


@dataclass(frozen=True, slots=True)
class WatchdogStatus:
    is_enabled: bool
    timeout_secs: int
    restarts_last_hour: int


@dataclass(frozen=True, slots=True)
class Status:
    """Times are this host's. What is counted is counted since `started_at`."""

    agent_id: str
    organization_id: str
    version: str
    pid: int
    started_at: datetime
    written_at: datetime
    certificate: CertificateStatus
    gateways: list[GatewayStatus]
    buffer: BufferStatus
    watchdog: WatchdogStatus
    running_commands: int
    jobs: int
    health_checks: int
    done_commands: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    latest_refusals: list[Refusal] = field(default_factory=list)
    last_contact: datetime | None = None
    clock_ahead_s: float | None = None
    last_discovery: datetime | None = None
    remote_settings: list[str] = field(default_factory=list)
    """What the backend has set on this agent, one text each."""


async def keep_status_file(folder: Path, look: Callable[[], Awaitable[Status]]) -> None:
    """Write the status beside the journal, until cancelled; a last time then, for whoever asks what was."""
    complaints = SparingLog(_logger, logging.WARNING, limit=1)
    written: Status | None = None
    rounds = 0
    while True:
        status = await look()
        rounds += 1
        if written is None or rounds >= _UNCHANGED_ROUNDS or _differ(written, status):
            try:
                write_status(folder, status)
                written, rounds = status, 0
            except OSError as error:
                complaints.write("the status cannot be written: %s", error.strerror)
        await asyncio.sleep(WRITE_INTERVAL_S)


def write_status(folder: Path, status: Status) -> None:
    """Replace the status file. Raises OSError; then the former one is as it was."""
    path = status_path(folder)
    temporary = path.with_name(f"{_NAME}.next")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(codec.encode(status))
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_status(folder: Path) -> Status:
    """What the agent wrote last. Raises StatusUnreadableError."""
    path = status_path(folder)
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES)
    except FileNotFoundError:
        raise StatusUnreadableError(f"{path} is not there: this agent has not run yet") from None
    except OSError as error:
        raise StatusUnreadableError(f"{path} cannot be read: {error.strerror}") from None
    try:
        status: Status = codec.build(Status, json.loads(text))
    except (ProtocolError, ValueError, RecursionError) as error:
        raise StatusUnreadableError(f"{path} is not understood; another version may have written it: {error}") from None
    return status


def status_path(folder: Path) -> Path:
    return folder / _NAME


def _differ(one: Status, other: Status) -> bool:
    return dataclasses.replace(one, written_at=other.written_at) != other
