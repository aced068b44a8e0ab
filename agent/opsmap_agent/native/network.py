"""The network as seen from this host."""

from __future__ import annotations

import asyncio
from typing import Any

from opsmap_agent.native.registry import NativeContext, native

_MAX_TIMEOUT_MS = 60_000


@native("port_check")
async def port_check(
    context: NativeContext, *, port: int, host: str = "localhost", timeout_ms: int = 5_000
) -> dict[str, Any]:
    timeout_s = min(max(timeout_ms, 1), _MAX_TIMEOUT_MS) / 1000
    try:
        async with asyncio.timeout(timeout_s):
            answer = await context.prober.port(host, port)
    except TimeoutError:
        return {"reachable": False, "latency_ms": None, "error": f"no answer within {timeout_s:g} s"}
    latency_ms = answer.latency_ms if answer.is_open else None
    return {"reachable": answer.is_open, "latency_ms": latency_ms, "error": answer.error}
