"""Services of the host, through systemd."""

from __future__ import annotations

import dataclasses
from typing import Any

from opsmap_agent.native.registry import NativeContext, native

_TIMEOUT_S = 10.0


@native("service_status")
async def service_status(context: NativeContext, *, name: str) -> dict[str, Any]:
    """On a host without systemd the status is unknown and `error` says so."""
    answer = await context.prober.service(name, _TIMEOUT_S)
    return dataclasses.asdict(answer)
