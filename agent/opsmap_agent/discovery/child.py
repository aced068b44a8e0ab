"""The process that looks around for an agent, which stays small and quick: whatever a host makes of it dies with it.

python -I -m opsmap_agent.discovery.child   < {"kinds": [...], "told": {...}}   > a line for each kind, as it is known
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import asdict

from opsmap_agent.discovery.survey import survey
from opsmap_protocol.enums import DiscoveryKind

_MAX_MEMORY_BYTES = 512 * 1024 * 1024
_MAX_CPU_S = 60
_NICENESS = 19


def main() -> None:
    _be_modest()
    request = json.load(sys.stdin)
    kinds = [DiscoveryKind(kind) for kind in request["kinds"]]
    for report in survey(kinds, request["told"]):
        print(json.dumps(asdict(report)), flush=True)


def _be_modest() -> None:
    """Whatever else this host has to do goes first."""
    # An orphan would look for nobody.
    with suppress(OSError):
        _end_with_parent()
    with suppress(OSError):
        os.nice(_NICENESS)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (_MAX_CPU_S, _MAX_CPU_S))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end_with_parent() -> None:
    import ctypes

    set_parent_death_signal = 1
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)


if __name__ == "__main__":
    main()
