"""Processes and sockets as Linux shows them in /proc, read once and shared by the collectors of one look.

Read directly: on a host with thousands of processes a library that fills an object for each costs several times as
much. What belongs to another user stays hidden from an agent without privileges, and the view says so.
"""

# ruff: noqa: PTH115, PTH116, PTH123, PTH208 - an object for each of a hundred thousand paths costs more than reading

from __future__ import annotations

import os
import pwd
import re
import socket
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from opsmap_agent.discovery.findings import NotAvailableError
from opsmap_agent.jobs.launcher import is_shim

_MAX_PROCESSES = 50_000
_MAX_SOCKETS = 100_000
_MAX_DESCRIPTORS = 20_000
_MAX_ARGUMENT_BYTES = 64 * 1024
_KERNEL_THREADS = 2
_LISTENING = {"tcp": "0A", "udp": "07"}
_TALKING = {"01", "04", "05", "06", "08", "09"}
"""Established, or closed within the last minute: whom a host talks to now and then shows only there."""

_UNIT = re.compile(r"[^/]+\.service")
_CONTAINER = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class Process:
    """`executable` is empty if it may not be seen. `is_replaced`: its file is not the one that it runs any more."""

    pid: int
    parent_pid: int
    name: str
    uid: int
    arguments: tuple[str, ...]
    executable: str
    is_replaced: bool
    unit: str | None
    container_id: str | None

    @property
    def program(self) -> str:
        """What its executable is called, or what it says it is."""
        if self.executable:
            return self.executable.rpartition("/")[2]
        return self.arguments[0].rpartition("/")[2] if self.arguments else self.name


@dataclass(frozen=True, slots=True)
class Socket:
    """`inode` is 0 for a connection that its process has closed already."""

    protocol: str
    address: str
    port: int
    remote_address: str
    remote_port: int
    uid: int
    inode: int


class HostView:
    """One look at a host. Raises NotAvailableError from wherever there is no /proc."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc

    @cached_property
    def processes(self) -> dict[int, Process]:
        """By process id; without kernel threads, zombies, whoever looks, and the shims of jobs."""
        found: dict[int, Process] = {}
        for pid in self._pids():
            process = self._read_process(pid)
            if process is not None:
                found[pid] = process
        return found

    @cached_property
    def listeners(self) -> list[Socket]:
        """TCP sockets that listen, and UDP sockets with a port of their own rather than one given for a while."""
        ephemeral = self._ephemeral_ports()
        return [
            entry
            for protocol in ("tcp", "udp")
            for entry in self._sockets(protocol, {_LISTENING[protocol]})
            if protocol == "tcp" or entry.port not in ephemeral
        ]

    @cached_property
    def connections(self) -> list[Socket]:
        return list(self._sockets("tcp", _TALKING))

    @cached_property
    def owners(self) -> dict[int, list[int]]:
        """Who has a socket open: process ids by inode, of the sockets of this view alone."""
        wanted = {entry.inode for entry in (*self.listeners, *self.connections)}
        found: dict[int, list[int]] = defaultdict(list)
        for pid in self.processes:
            for inode in self._socket_inodes(pid):
                if inode in wanted and pid not in found[inode]:
                    found[inode].append(pid)
        return found

    def owner(self, entry: Socket) -> Process | None:
        """The process that has a socket; of several that share it, the one that the others come from."""
        pids = self.owners.get(entry.inode, [])
        if not pids:
            return None
        roots = [pid for pid in pids if self.processes[pid].parent_pid not in pids]
        return self.processes[min(roots or pids)]

    @property
    def unowned(self) -> int:
        """How many listening sockets belong to processes that the agent's user may not look into."""
        return sum(1 for entry in self.listeners if not self.owners.get(entry.inode))

    def _pids(self) -> list[int]:
        try:
            pids = [int(name) for name in os.listdir(self._proc) if name.isdecimal()]
        except OSError as error:
            raise NotAvailableError(f"there is no {self._proc} to look at: {error.strerror}") from None
        return sorted(pids)[:_MAX_PROCESSES]

    def _read_process(self, pid: int) -> Process | None:
        folder = f"{self._proc}/{pid}"
        try:
            name, state, parent_pid = _read_stat(folder)
            if state in "ZX" or _KERNEL_THREADS in (pid, parent_pid):
                return None
            with open(f"{folder}/cmdline", "rb") as file:
                line = file.read(_MAX_ARGUMENT_BYTES)
            uid = os.stat(folder).st_uid
        except (OSError, ValueError):
            return None  # It ended while we looked.
        arguments = tuple(line.rstrip(b"\0").decode("utf-8", "surrogateescape").split("\0")) if line else ()
        if pid == os.getpid() or is_shim(arguments):
            return None
        executable = _read_link(f"{folder}/exe")
        unit, container_id = _read_control_group(folder)
        return Process(
            pid=pid,
            parent_pid=parent_pid,
            name=name,
            uid=uid,
            arguments=arguments,
            executable=executable.removesuffix(_DELETED),
            is_replaced=executable.endswith(_DELETED),
            unit=unit,
            container_id=container_id,
        )

    def _socket_inodes(self, pid: int) -> Iterator[int]:
        folder = f"{self._proc}/{pid}/fd"
        try:
            names = os.listdir(folder)[:_MAX_DESCRIPTORS]
        except OSError:
            return
        for name in names:
            found = _SOCKET.fullmatch(_read_link(f"{folder}/{name}"))
            if found:
                yield int(found[1])

    def _sockets(self, protocol: str, states: set[str]) -> Iterator[Socket]:
        for table, family in ((protocol, socket.AF_INET), (f"{protocol}6", socket.AF_INET6)):
            try:
                with open(f"{self._proc}/net/{table}", encoding="ascii") as file:
                    next(file, None)
                    for count, line in enumerate(file):
                        if count == _MAX_SOCKETS:
                            break
                        fields = line.split()
                        if len(fields) > 9 and fields[3] in states:
                            yield _read_socket(protocol, family, fields)
            except FileNotFoundError:
                if family == socket.AF_INET:
                    raise NotAvailableError(f"there is no {self._proc}/net/{table} to look at") from None

    def _ephemeral_ports(self) -> range:
        try:
            first, last = (self._proc / "sys/net/ipv4/ip_local_port_range").read_text().split()
            return range(int(first), int(last) + 1)
        except (OSError, ValueError):
            return range(32768, 61000)


def _read_stat(folder: str) -> tuple[str, str, int]:
    """Name, state and parent. The name may hold anything, also spaces and brackets: the last bracket ends it."""
    with open(f"{folder}/stat", "rb") as file:
        line = file.read(4096)
    begin, end = line.index(b"("), line.rindex(b")")
    state, parent_pid = line[end + 2 :].split(None, 2)[:2]
    return line[begin + 1 : end].decode("utf-8", "replace"), state.decode("ascii"), int(parent_pid)


def _read_link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _read_control_group(folder: str) -> tuple[str | None, str | None]:
    """The systemd unit and the container that a process belongs to."""
    try:
        with open(f"{folder}/cgroup", encoding="utf-8", errors="replace") as file:
            text = file.read(64 * 1024)
    except OSError:
        return None, None
    container = _CONTAINER.search(text)
    units = [
        unit
        for line in text.splitlines()
        if line.startswith("0::") or ":name=systemd:" in line
        for unit in _UNIT.findall(line)
    ]
    return (units[-1] if units else None), (container[0][:12] if container else None)


def _read_socket(protocol: str, family: socket.AddressFamily, fields: list[str]) -> Socket:
    address, port = _read_address(family, fields[1])
    remote_address, remote_port = _read_address(family, fields[2])
    return Socket(protocol, address, port, remote_address, remote_port, int(fields[7]), int(fields[9]))


def _read_address(family: socket.AddressFamily, text: str) -> tuple[str, int]:
    """The kernel writes addresses as words of the machine's own byte order."""
    address, port = text.split(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    shown = socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))
    return shown.removeprefix("::ffff:") if "." in shown else shown, int(port, 16)


@lru_cache(maxsize=1024)
def user_name(uid: int) -> str:
    """Remembered: on some hosts it is a question to a directory server."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
