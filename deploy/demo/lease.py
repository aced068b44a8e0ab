"""The lease: how a process of the demonstration learns that the supervisor of `make run` is gone.

The supervisor holds an exclusive lock on a file for as long as it lives; the kernel drops it however the
supervisor ends, so a lock that can be had means that nobody is left to stop these processes.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

POLL_INTERVAL_S = 1.0


def is_free(lease: Path) -> bool:
    """True if no supervisor holds `lease`, which includes that there is no such file."""
    try:
        descriptor = os.open(lease, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        # Shared, so that a dozen processes asking at once never mistake each other for the supervisor.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
