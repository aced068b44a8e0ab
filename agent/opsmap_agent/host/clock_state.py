"""Whether something keeps this host's clock right, by the kernel's own word."""

from __future__ import annotations

import ctypes

_TIME_ERROR = 5
_TIMEX_BYTES = 512
"""More than `struct timex` takes on any architecture."""


def is_synchronized() -> bool | None:
    """What adjtimex(2) says, asked without changing anything; None where it cannot be asked."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    if adjtimex is None:
        return None
    # All zero: `modes` 0 reads only.
    state = adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else bool(state != _TIME_ERROR)
