"""Lines that the processes of the demonstration write about themselves; the agent keeps them as the component's log."""

from __future__ import annotations

import time


def say(text: str) -> None:
    """Print one line with the time. Flushed: a line that waits in a buffer dies with a killed process."""
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}", flush=True)
