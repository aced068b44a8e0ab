"""Which ports this installation listens on: the usual ones, those remembered, or free ones on request.

The demonstration's documents and the configuration files name these ports, so they stay the same from run to
run.
"""

import errno
import json
import random
import socket
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import psutil

from deploy.embedded.errors import PortTakenError
from deploy.embedded.state import write_json

HOST = "127.0.0.1"
WEB, LINK, GATEWAY, DOOR = "web", "link", "gateway", "door"
"""`DOOR` is where the gateway lets agents in that have no certificate yet."""

DEFAULTS = {WEB: 8000, LINK: 9443, GATEWAY: 8443, DOOR: 8444}
FIRST_DEMONSTRATION_PORT = 17100
# Below the ports that the kernel gives to outgoing connections, which come and go.
FREE_RANGE = range(20000, 32000)
# As the servers themselves bind: a port in TIME_WAIT is free, one with a listener is not.
BIND_OPTION = (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def choose(path: Path, *, demonstration: tuple[str, ...], web_port: int | None, is_any_free: bool) -> dict[str, int]:
    """The port of each name, all of them free; remembered in `path`.

    Args:
        path: `ports.json`.
        demonstration: names that need a port besides web, link, gateway and its door.
        web_port: asked for on the command line; it decides.
        is_any_free: any free port will do instead of the usual one, or of a remembered one that is taken.

    Raises:
        PortTakenError: a port is taken; one line for each, with who has it.
    """
    usual = DEFAULTS | {name: FIRST_DEMONSTRATION_PORT + index for index, name in enumerate(demonstration)}
    remembered = _remembered(path)
    chosen = {name: remembered.get(name, port) for name, port in usual.items()}
    if web_port is not None:
        chosen[WEB] = web_port
    elif not is_any_free:
        chosen[WEB] = DEFAULTS[WEB]
    if is_any_free:
        fixed = {WEB} if web_port is not None else set()
        open_names = [n for n in usual if n not in fixed and (n not in remembered or why_taken(chosen[n]) is not None)]
        chosen |= dict(zip(open_names, free_ports(len(open_names)), strict=True))
    taken = {name: reason for name, port in chosen.items() if (reason := why_taken(port)) is not None}
    if taken:
        raise PortTakenError("\n".join(_advise(name, chosen[name], reason) for name, reason in taken.items()))
    write_json(path, chosen)
    return chosen


def why_taken(port: int) -> str | None:
    """Who has the port ("nginx, pid 812"), or None if it is free."""
    try:
        _bind(port).close()
    except OSError as error:
        if error.errno == errno.EACCES:
            return "the system, for privileged programs"
        if error.errno != errno.EADDRINUSE:
            raise
    else:
        return None
    return _describe(_listeners(port))


def _bind(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(*BIND_OPTION)
        bound.bind((HOST, port))
    except BaseException:
        bound.close()
        raise
    return bound


def _listeners(port: int) -> list[int | None]:
    return [
        connection.pid
        for connection in psutil.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
    ]


def _describe(holders: list[int | None]) -> str:
    for pid in holders:
        if pid is not None:
            try:
                return f"{psutil.Process(pid).name()}, pid {pid}"
            except psutil.NoSuchProcess:
                continue
    return "another program"


def _advise(name: str, port: int, reason: str) -> str:
    if name == WEB:
        example = next(candidate for candidate in range(port + 1, 65536) if why_taken(candidate) is None)
        advice = f"Choose another: make run WEB_PORT={example}"
    else:
        advice = "Let OpsMap choose a free one: make run FREE_PORTS=1"
    return f"Port {port} ({name}) is taken by {reason}. {advice}"


def _remembered(path: Path) -> Mapping[str, int]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {name: port for name, port in kept.items() if isinstance(port, int) and 0 < port < 65536}


def free_ports(count: int) -> list[int]:
    """Different free ports, at random: another OpsMap that starts now would find the same first ones free."""
    candidates = random.sample(FREE_RANGE, len(FREE_RANGE))
    return list(islice((port for port in candidates if why_taken(port) is None), count))
