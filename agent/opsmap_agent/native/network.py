"""The network as seen from this host."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Iterator
from typing import Any, TypedDict

import psutil

from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.native.bounds import Cut, bounded, shortened
from opsmap_agent.native.registry import NativeCommandError, NativeContext, native

_MAX_TIMEOUT_MS = 60_000
_METHODS = ("GET", "HEAD", "OPTIONS")
_PREVIEW = 2_000
_MAX_HEADERS = 100
_MAX_HEADER = 1_000
_MAX_HOSTNAME = 253


class NetworkInterface(TypedDict):
    name: str
    mac: str | None
    ipv4: list[str]
    ipv6: list[str]
    status: str
    speed_mbps: int | None


class PortCheck(TypedDict):
    reachable: bool
    latency_ms: float | None
    error: str | None


class HttpCheck(TypedDict):
    status_code: int
    latency_ms: int
    body_preview: str
    headers: dict[str, str]


class DnsLookup(TypedDict):
    addresses: list[str]
    ttl: int | None
    resolved_in_ms: float


class ListeningPort(TypedDict):
    port: int
    protocol: str
    pid: int | None
    process_name: str | None
    address: str


@native("network_interfaces", limit_s=5)
def network_interfaces(context: NativeContext) -> list[NetworkInterface] | Cut[NetworkInterface]:
    """`status` is `up` or `down`; `speed_mbps` is null where the driver does not tell it."""
    return bounded(_interfaces(), "interfaces")


@native("port_check", limit_s=60)
async def port_check(
    context: NativeContext, *, port: int, host: str = "localhost", timeout_ms: int = 5_000
) -> PortCheck:
    """Whether a TCP port takes connections. What `checks.allowed_hosts` does not list is not asked."""
    timeout_s = _timeout_s(timeout_ms)
    try:
        async with asyncio.timeout(timeout_s):
            answer = await context.prober.port(host, port)
    except TimeoutError:
        return {"reachable": False, "latency_ms": None, "error": f"no answer within {timeout_s:g} s"}
    latency_ms = answer.latency_ms if answer.is_open else None
    return {"reachable": answer.is_open, "latency_ms": latency_ms, "error": answer.error}


@native("http_check", limit_s=60)
async def http_check(
    context: NativeContext,
    *,
    url: str,
    method: str = "GET",
    expected_status: int | None = None,
    timeout_ms: int = 5_000,
    insecure: bool = False,
) -> HttpCheck:
    """What a web server answers; redirects are not followed. `method` is GET, HEAD or OPTIONS: a check changes nothing.

    It fails if nobody answers, or not with `expected_status`. What `checks.allowed_hosts` does not list is not asked;
    `insecure` takes any certificate and changes nothing else.
    """
    if method.upper() not in _METHODS:
        raise RejectedError(f"native command 'http_check': method is one of {', '.join(_METHODS)}")
    timeout_s = _timeout_s(timeout_ms)
    try:
        async with asyncio.timeout(timeout_s):
            answer = await context.prober.http(url, method=method.upper(), is_verified=not insecure)
    except TimeoutError:
        raise NativeCommandError(f"no answer within {timeout_s:g} s") from None
    if isinstance(answer, str):
        raise NativeCommandError(answer)
    headers = list(answer.headers.items())[:_MAX_HEADERS]
    found: HttpCheck = {
        "status_code": answer.status,
        "latency_ms": answer.latency_ms,
        "body_preview": shortened(answer.body, _PREVIEW),
        "headers": {shortened(name, _MAX_HEADER): shortened(value, _MAX_HEADER) for name, value in headers},
    }
    if expected_status is not None and answer.status != expected_status:
        raise NativeCommandError(f"the status is {answer.status}, not {expected_status}", found)
    return found


@native("dns_lookup", limit_s=30)
def dns_lookup(context: NativeContext, *, hostname: str) -> DnsLookup:
    """The addresses that this host's resolver has for a name: files, DNS or whatever it is set up with.

    The resolver does not tell how long they are valid: `ttl` is always null.
    """
    if not 0 < len(hostname) <= _MAX_HOSTNAME or not hostname.isprintable():
        raise RejectedError("native command 'dns_lookup': that is not a host name")
    begun = time.monotonic()
    try:
        found = socket.getaddrinfo(hostname, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise NativeCommandError(f"{hostname}: {reason}") from None
    addresses = dict.fromkeys(str(address[0]) for *_, address in found)
    return {
        "addresses": list(addresses),
        "ttl": None,
        "resolved_in_ms": round((time.monotonic() - begun) * 1000, 2),
    }


@native("listening_ports", switches=("discover_ports",), limit_s=20)
def listening_ports(context: NativeContext) -> list[ListeningPort] | Cut[ListeningPort]:
    """TCP ports that take connections and UDP ports that take packets from anybody.

    Whose a port is (`pid`, `process_name`) is null if the agent's user may not see it.
    """
    return bounded(_listening_ports(context), "ports")


def _timeout_s(timeout_ms: int) -> float:
    return min(max(timeout_ms, 1), _MAX_TIMEOUT_MS) / 1000


def _interfaces() -> Iterator[NetworkInterface]:
    stats = psutil.net_if_stats()
    for name, entries in sorted(psutil.net_if_addrs().items()):
        state = stats.get(name)
        macs = [entry.address for entry in entries if entry.family == psutil.AF_LINK]
        yield {
            "name": name,
            "mac": macs[0] if macs else None,
            "ipv4": [entry.address for entry in entries if entry.family == socket.AF_INET],
            "ipv6": [entry.address.partition("%")[0] for entry in entries if entry.family == socket.AF_INET6],
            "status": "up" if state is not None and state.isup else "down",
            "speed_mbps": (state.speed or None) if state is not None else None,
        }


def _listening_ports(context: NativeContext) -> Iterator[ListeningPort]:
    try:
        found = psutil.net_connections(kind="inet")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES):
            raise NativeCommandError("this host does not let the agent's user see its ports") from None
        raise
    names: dict[int, str | None] = {}
    listening = {
        (entry.laddr.port, "tcp" if entry.type is socket.SOCK_STREAM else "udp", entry.laddr.ip, entry.pid)
        for entry in found
        if entry.laddr and _takes_anybody(entry)
    }
    for port, protocol, address, pid in sorted(listening, key=lambda each: (*each[:3], each[3] or 0)):
        if context.is_abandoned.is_set():
            return
        if pid is not None and pid not in names:
            names[pid] = _process_name(pid)
        name = names.get(pid) if pid is not None else None
        yield {"port": port, "protocol": protocol, "pid": pid, "process_name": name, "address": address}


def _takes_anybody(entry: Any) -> bool:
    if entry.type is socket.SOCK_STREAM:
        return bool(entry.status == psutil.CONN_LISTEN)
    return not entry.raddr


def _process_name(pid: int) -> str | None:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return None
