"""Files of the host: whether they are there and what they are, not what they hold."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opsmap_agent.native.registry import NativeCommandError, NativeContext, native


@native("file_exists")
def file_exists(context: NativeContext, *, path: str) -> dict[str, Any]:
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {"exists": False, "is_file": False, "is_dir": False}
    except OSError as error:
        raise NativeCommandError(f"{path}: {error.strerror}") from None
    return {"exists": True, "is_file": stat.S_ISREG(mode), "is_dir": stat.S_ISDIR(mode)}


@native("file_stat")
def file_stat(context: NativeContext, *, path: str) -> dict[str, Any]:
    try:
        found = Path(path).stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise NativeCommandError(f"{path}: {reason}") from None
    return {
        "size": found.st_size,
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
        "uid": found.st_uid,
        "gid": found.st_gid,
        "mtime": _time(found.st_mtime),
        "atime": _time(found.st_atime),
        "ctime": _time(found.st_ctime),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
