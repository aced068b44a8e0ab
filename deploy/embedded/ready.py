"""Is the stack ready: the page answers and every agent is online; and the box that says so."""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded.output import Output
from deploy.embedded.ports import HOST
from deploy.embedded.state import write_json
from opsmap.lib.health_key import HEADER

POLL_S = 0.05
REQUEST_TIMEOUT_S = 2.0
REMIND_AFTER_S = 15.0
MAX_ANSWER_BYTES = 64 * 1024

Remind = Callable[[str], None]


@dataclass(frozen=True)
class Health:
    """What `GET /healthz` says, or in `detail` why there is no answer."""

    agents_online: int = 0
    detail: str = ""


async def wait_until_listening(name: str, port: int, *, remind: Remind) -> None:
    """Return when somebody accepts connections on this port."""

    async def missing() -> str | None:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            return f"{name} does not listen on port {port} yet"
        writer.close()
        return None

    await _wait(missing, remind)


async def wait_until_ready(port: int, *, key: str, agents: int, remind: Remind) -> None:
    """Return when our web answers and this many agents are online. Somebody else's does not know the `key`."""

    async def missing() -> str | None:
        health = await ask_health(port, key)
        if health.detail:
            return health.detail
        return None if health.agents_online >= agents else f"{health.agents_online} of {agents} agents are online"

    await _wait(missing, remind)


async def ask_health(port: int, key: str) -> Health:
    """One request to the web server, without a library."""
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            answer = await _get(port, "/healthz", f"{HEADER}: {key}")
    except (OSError, TimeoutError) as error:
        return Health(detail=f"web does not answer yet ({type(error).__name__})")
    head, _, body = answer.partition(b"\r\n\r\n")
    status = b"".join(head.split(b" ", 2)[1:2])
    if status != b"200":
        return Health(detail=f"web answers {status.decode('ascii', 'replace') or 'nothing'} to /healthz")
    try:
        return Health(int(json.loads(body)["agents_online"]))
    except (ValueError, KeyError, TypeError):
        return Health(detail=f"what answers on port {port} is not this installation's web")


def seconds_since_start() -> float:
    """Since this process was started, the interpreter's own start included."""
    # Field 22 of /proc/<pid>/stat; the name in the second may hold anything but ends at the last parenthesis.
    fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def write_ready_file(path: Path, *, url: str, pid: int, ports: Mapping[str, int], ready_s: float) -> None:
    """Tell a program that waits for it that everything is ready."""
    write_json(path, {"web_url": url, "pid": pid, "ports": dict(ports), "ready_s": round(ready_s, 3)})


def show_box(output: Output, rows: tuple[tuple[str, str], ...], *, title: str) -> None:
    """A frame around the few things a person needs now."""
    label_width = max(len(label) for label, _ in rows)
    lines = [title, "", *(f"{label:<{label_width}}   {text}" for label, text in rows)]
    width = max(len(line) for line in lines)
    horizontal, vertical, corners = ("─", "│", "╭╮╰╯") if output.can_draw else ("-", "|", "++++")
    output.plain("")
    output.plain(f"  {corners[0]}{horizontal * (width + 4)}{corners[1]}")
    for index, line in enumerate(lines):
        padded = line.ljust(width)
        output.plain(f"  {vertical}  {output.paint(padded, 1, 32) if index == 0 else padded}  {vertical}")
    output.plain(f"  {corners[2]}{horizontal * (width + 4)}{corners[3]}")
    output.plain("")


async def _wait(missing: Callable[[], Awaitable[str | None]], remind: Remind) -> None:
    """Poll until nothing is missing; say every 15 s what still is."""
    clock = asyncio.get_running_loop()
    patience = clock.time() + REMIND_AFTER_S
    while (what := await missing()) is not None:
        if clock.time() > patience:
            remind(f"Still waiting: {what}.")
            patience = clock.time() + REMIND_AFTER_S
        await asyncio.sleep(POLL_S)


async def _get(port: int, path: str, header: str) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        # 1.0: the answer ends with the connection and comes in one piece.
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {HOST}:{port}\r\n{header}\r\n\r\n".encode("ascii"))
        parts: list[bytes] = []
        while sum(map(len, parts)) < MAX_ANSWER_BYTES and (part := await reader.read(MAX_ANSWER_BYTES)):
            parts.append(part)
        return b"".join(parts)
    finally:
        writer.close()
