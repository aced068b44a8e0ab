"""The journal's file before it is opened: a damaged one is set aside, so that the agent goes on with a new one.

What the damaged one held is lost to the agent: a new journal is a new incarnation, by which the backend knows that
commands whose end it has not heard may have run.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

_logger = logging.getLogger(__name__)

NAME = "journal.sqlite3"
_PARTS = ("", "-wal", "-shm")
_KEPT = 3


def set_damaged_aside(folder: Path) -> Path | None:
    """Where a damaged journal is now; None if the one in `folder` is sound, or there is none.

    A file that cannot be looked at, because of the disk or its rights, is left for whoever opens it to complain of.
    """
    path = folder / NAME
    if not path.exists():
        return None
    reason = _damage(path)
    if reason is None:
        return None
    _forget_oldest(folder)
    aside = folder / f"journal.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.sqlite3"
    for part in _PARTS:
        source = path.with_name(NAME + part)
        if source.exists():
            source.rename(aside.with_name(aside.name + part))
    _logger.error("the journal is damaged (%s): it is set aside as %s, and a new one begins", reason, aside)
    return aside


def _damage(path: Path) -> str | None:
    try:
        with closing(sqlite3.connect(path, timeout=0)) as db:
            (answer,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:
        return None
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if answer == "ok" else str(answer).splitlines()[-1][:200]


def _forget_oldest(folder: Path) -> None:
    """Neither a broken disk nor somebody's experiments fill the disk with journals."""
    aside = sorted(path for path in folder.glob("journal.damaged-*.sqlite3"))
    for path in aside[: -(_KEPT - 1)]:
        for part in _PARTS:
            path.with_name(path.name + part).unlink(missing_ok=True)
