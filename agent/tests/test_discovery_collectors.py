"""What is discovered on this very machine, compared with what its own tools say; and on made-up ones."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from opsmap_agent.discovery.connections import discover_connections
from opsmap_agent.discovery.filesystems import discover_filesystems
from opsmap_agent.discovery.findings import NotAvailableError
from opsmap_agent.discovery.processes import discover_ports, discover_processes
from opsmap_agent.discovery.procfs import HostView
from opsmap_agent.discovery.services import discover_services
from opsmap_agent.discovery.technologies import discover_technologies

needs_ss = pytest.mark.skipif(shutil.which("ss") is None, reason="there is no ss (iproute2) to compare with")
needs_df = pytest.mark.skipif(shutil.which("df") is None, reason="there is no df (coreutils) to compare with")

_LISTEN = """
import socket, sys
servers = [socket.create_server(("127.0.0.1", 0)), socket.create_server(("::1", 0), family=socket.AF_INET6)]
peers = [socket.create_connection(server.getsockname()[:2]) for server in servers]
accepted = [server.accept() for server in servers]
print(*(server.getsockname()[1] for server in servers), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def listener() -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """A process that listens on 127.0.0.1 and on ::1, and talks to itself; with its two ports."""
    command = [sys.executable, "-c", _LISTEN, "--password=hunter2", "\x1b[31mred\n<script>"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first, second = process.stdout.readline().split()
        yield process, int(first), int(second)
        process.kill()


def ss(*options: str) -> list[list[str]]:
    output = subprocess.run(["ss", "-Hn", *options], capture_output=True, text=True, check=True).stdout
    return [line.split() for line in output.splitlines()]


def plain(address: str) -> tuple[str, int]:
    """As `ss` writes an address: without brackets, interface, and the prefix of IPv4 in IPv6."""
    host, _, port = address.rpartition(":")
    host = host.partition("%")[0].strip("[]").removeprefix("::ffff:")
    return host, int(port)


# This machine


@needs_ss
def test_listening_ports_are_those_of_ss() -> None:
    def of_ss() -> set[tuple[str, int]]:
        # Its `*` is a socket for both families, which is `::` for the kernel.
        return {("::" if host == "*" else host, port) for host, port in (plain(row[3]) for row in ss("-ltn"))}

    for _ in range(5):
        before = of_ss()
        findings = discover_ports(HostView()).findings
        found = {(each["address"], each["port"]) for each in findings if each["protocol"] == "tcp"}
        if before == of_ss():
            break  # Otherwise somebody came or went meanwhile.
    assert found == before


@needs_ss
def test_connections_are_those_of_ss(listener: tuple[subprocess.Popen[str], int, int]) -> None:
    process, port, port6 = listener
    rows = ss("-tn", "state", "established", f"( dport = :{port} or dport = :{port6} )")
    of_ss = {plain(row[3]) for row in rows}
    found = discover_connections(HostView()).findings
    assert {(each["remote_address"], each["remote_port"]) for each in found if each.get("direction") == "out"} >= of_ss
    assert of_ss == {("127.0.0.1", port), ("::1", port6)}
    name = Path(f"/proc/{process.pid}/comm").read_text().strip()
    mine = [each for each in found if each.get("remote_port") == port]
    assert [(each["direction"], each["process_name"]) for each in mine] == [("out", name)]


def test_a_process_is_found_with_its_ports_and_without_its_secrets(
    listener: tuple[subprocess.Popen[str], int, int],
) -> None:
    process, port, port6 = listener
    [found] = [each for each in discover_processes(HostView()).findings if each["pid"] == process.pid]
    assert {(each["address"], each["port"]) for each in found["ports"]} == {("127.0.0.1", port), ("::1", port6)}
    assert found["executable"] == str(Path(f"/proc/{process.pid}/exe").readlink())
    assert "hunter2" not in json.dumps(found)
    assert found["command_line"].isprintable()
    assert "\\u001b" not in json.dumps(found)
    assert str(process.pid) not in found["key"]


def test_what_has_not_changed_has_the_same_findings(listener: tuple[subprocess.Popen[str], int, int]) -> None:
    process, port, _ = listener

    def look() -> list[object]:
        view = HostView()
        processes = [each for each in discover_processes(view).findings if each["pid"] == process.pid]
        ports = [each for each in discover_ports(view).findings if each["port"] == port]
        return [processes, ports, discover_filesystems().findings]

    assert look() == look()


@needs_df
def test_filesystems_are_those_of_df() -> None:
    output = subprocess.run(
        ["df", "--local", "-B1", "--output=source,fstype,size,target"], capture_output=True, text=True, check=True
    ).stdout
    of_df = {
        row[3]: (row[0], row[1], round(int(row[2]) / 1e9, 1))
        for row in (line.split(None, 3) for line in output.splitlines()[1:])
        if row[0].startswith("/") and row[1] != "overlay"
    }
    found = {
        each["mount"]: (each["device"], each["fs_type"], each["total_gb"])
        for each in discover_filesystems().findings
        if not each["is_remote"]
    }
    # df leaves out a device that it has shown already.
    assert of_df.items() <= found.items()
    assert found


def test_without_systemd_that_is_said() -> None:
    if Path("/run/systemd/system").exists():
        assert discover_services(HostView()).findings
    else:
        with pytest.raises(NotAvailableError, match="not started by systemd"):
            discover_services(HostView())


def test_the_python_of_this_test_is_a_technology(listener: tuple[subprocess.Popen[str], int, int]) -> None:
    process, _, _ = listener
    executable = str(Path(f"/proc/{process.pid}/exe").readlink())
    found = [each for each in discover_technologies(HostView()).findings if each.get("file") == executable]
    assert [each["name"] for each in found] == ["python"]


_AS_NOBODY = """
import json, os, sys
from opsmap_agent.discovery.survey import survey
from opsmap_protocol.enums import DiscoveryKind
kinds = [DiscoveryKind.PORTS, DiscoveryKind.PROCESSES, DiscoveryKind.CONNECTIONS, DiscoveryKind.TECHNOLOGIES]
list(survey(kinds, {}))  # What Python loads when it is needed may lie where nobody may read.
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
print(json.dumps({report.kind: [report.changed, report.fault] for report in survey(kinds, {})}))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without any rights")
def test_without_privileges_ports_are_found_and_what_is_hidden_is_said(
    listener: tuple[subprocess.Popen[str], int, int],
) -> None:
    _, port, _ = listener
    shown = subprocess.run([sys.executable, "-c", _AS_NOBODY], capture_output=True, text=True, check=True).stdout
    found = json.loads(shown)
    [mine] = [each for each in found["ports"][0] if each["port"] == port]
    assert (mine["user"], mine.get("process_name")) == ("root", None)
    assert "cannot be seen" in found["ports"][1]
    assert "cannot be seen" in found["processes"][1]
    assert "python" in {each["name"] for each in found["technologies"][0]}


# Made-up machines


class Proc:
    """A folder like /proc."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "net").mkdir(parents=True)
        self.sockets: list[str] = []
        self._write_sockets()

    def process(
        self, pid: int, name: str, *arguments: str, parent: int = 1, sockets: tuple[int, ...] = (), **files: str
    ) -> None:
        folder = self.folder / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0")
        (folder / "cmdline").write_bytes("".join(f"{each}\0" for each in arguments).encode())
        (folder / "cgroup").write_text(files.get("cgroup", "0::/"))
        (folder / "exe").symlink_to(files.get("exe", f"/usr/sbin/{arguments[0]}" if arguments else "/"))
        for number, inode in enumerate(sockets):
            (folder / "fd" / str(number)).symlink_to(f"socket:[{inode}]")

    def socket(
        self, local: tuple[str, int], remote: tuple[str, int] = ("", 0), state: str = "0A", inode: int = 0
    ) -> None:
        number = len(self.sockets)
        self.sockets.append(
            f"{number}: {self._hex(*local)} {self._hex(*remote)} {state} 0:0 00:0 0 0 0 {inode} 1 0 100 0 0 10 0"
        )

    def view(self) -> HostView:
        self._write_sockets()
        return HostView(self.folder)

    def _write_sockets(self) -> None:
        head = "  sl  local_address rem_address   st\n"
        (self.folder / "net" / "tcp").write_text(head + "".join(f"{line}\n" for line in self.sockets))
        (self.folder / "net" / "udp").write_text(head)

    @staticmethod
    def _hex(host: str, port: int) -> str:
        anywhere = b"\0\0\0\0"
        word = int.from_bytes(socket.inet_aton(host) if host else anywhere, sys.byteorder)
        return f"{word:08X}:{port:04X}"


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path / "proc")


def test_workers_that_share_a_socket_are_one_process(proc: Proc) -> None:
    proc.socket(("0.0.0.0", 80), inode=7)  # noqa: S104
    proc.process(100, "nginx", "nginx", sockets=(7,), cgroup="0::/system.slice/nginx.service")
    for pid in range(101, 109):
        proc.process(pid, "nginx", "nginx: worker process", parent=100, sockets=(7,))
    [found] = discover_processes(proc.view()).findings
    assert (found["pid"], found["service"], found["key"]) == (100, "nginx.service", "nginx:tcp:0.0.0.0:80")
    assert len(discover_technologies(proc.view(), lambda paths: {}).findings) == 1


def test_thousands_of_clients_are_a_few_connections(proc: Proc) -> None:
    """A web server with clients from the internet, a database with those of its own network."""
    for port, inode in ((443, 1), (5432, 2)):
        proc.socket(("0.0.0.0", port), inode=inode)  # noqa: S104
        proc.process(port, f"server{port}", f"server{port}", sockets=(inode,))
    for number in range(5_000):
        client = (f"{50 + number % 40}.{number % 200}.7.9", 10_000 + number)
        proc.socket(("10.0.0.1", 443), client, "01", 10_000 + number)
        proc.socket(("10.0.0.1", 5432), (f"10.0.1.{number % 20}", 20_000 + number), "01", 20_000 + number)
    found = discover_connections(proc.view()).findings
    assert [each["key"] for each in found if each["port"] == 443] == ["in:443:public"]
    assert len([each for each in found if each["port"] == 5432]) == 20


def test_the_address_by_which_others_know_this_host_is_always_the_same(proc: Proc) -> None:
    """Of several that it talks from to the same port; between processes of this host there is none."""
    proc.process(9, "app", "app", sockets=(1, 2, 3))
    proc.socket(("0.0.0.0", 443), inode=7)  # noqa: S104
    proc.socket(("10.0.0.2", 40_000), ("10.0.0.9", 5432), "01", 1)
    proc.socket(("10.0.0.1", 40_001), ("10.0.0.9", 5432), "01", 2)
    proc.socket(("127.0.0.1", 40_002), ("127.0.0.1", 6379), "01", 3)
    proc.socket(("10.0.0.3", 443), ("10.0.0.7", 50_000), "01", 8)

    def addresses() -> dict[str, str | None]:
        return {each["key"]: each.get("local_address") for each in discover_connections(proc.view()).findings}

    expected = {"in:443:10.0.0.7": "10.0.0.3", "out:app:10.0.0.9:5432": "10.0.0.1", "out:app:127.0.0.1:6379": None}
    assert addresses() == expected
    proc.sockets.reverse()
    assert addresses() == expected


def test_more_than_the_bound_is_cut_the_same_way_each_time_and_said(proc: Proc) -> None:
    for number in range(1, 4_001):
        proc.socket(("10.0.0.1", 30_000), (f"10.1.{number // 250}.{number % 250 + 1}", 22), "01", number)
    found = discover_connections(proc.view())
    assert (len(found.findings), found.fault) == (2_000, "only 2000 of 4000 connections are told")
    proc.sockets.reverse()
    assert discover_connections(proc.view()).findings == found.findings


def test_a_connection_that_is_just_closed_counts_unless_its_process_is_known(proc: Proc) -> None:
    proc.process(9, "app", "app", sockets=(1,))
    proc.socket(("10.0.0.1", 40_000), ("10.0.0.9", 5432), "01", 1)
    proc.socket(("10.0.0.1", 40_001), ("10.0.0.9", 5432), "06", 0)
    proc.socket(("10.0.0.1", 40_002), ("10.0.0.8", 6379), "06", 0)
    assert [each["key"] for each in discover_connections(proc.view()).findings] == [
        "out::10.0.0.8:6379",
        "out:app:10.0.0.9:5432",
    ]


def test_what_may_not_be_seen_is_said(proc: Proc) -> None:
    proc.socket(("0.0.0.0", 5432), inode=7)  # noqa: S104
    proc.socket(("0.0.0.0", 80), inode=8)  # noqa: S104
    proc.process(100, "nginx", "nginx", sockets=(8,))
    found = discover_ports(proc.view())
    assert [(each["port"], each.get("process_name")) for each in found.findings] == [(5432, None), (80, "nginx")]
    assert found.fault is not None
    assert found.fault.startswith("the process of 1 of 2 listening sockets cannot be seen")


HOSTILE = {
    "html": "<script>alert(1)</script>" * 400,
    "escapes": "\x1b]0;title\x07\x1b[2J",
    "lines": "a\nb\r\nc\u2028d",
    "right to left": "\u202egpj.exe",
    "brackets": ") S 1 (",
    "nothing": "",
    "half a character": "\udcff\udc80",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_arrive_inert(proc: Proc, name: str) -> None:
    text = HOSTILE[name]
    proc.socket(("0.0.0.0", 80), inode=7)  # noqa: S104
    folder = proc.folder / "100"
    (folder / "fd").mkdir(parents=True)
    (folder / "fd" / "3").symlink_to("socket:[7]")
    raw = text.encode("utf-8", "surrogateescape")
    (folder / "stat").write_bytes(b"100 (" + raw[:2000] + b") S 1 1 1 0")
    (folder / "cmdline").write_bytes(raw + b"\0--token\0hunter2\0")
    (folder / "cgroup").write_bytes(b"0::/" + raw.replace(b"/", b"")[:200] + b".service\n")
    (folder / "exe").symlink_to("/x" + text.replace("\0", "")[:200])
    view = proc.view()
    findings = [each for look in (discover_processes, discover_ports) for each in look(view).findings]
    findings += discover_technologies(view, lambda paths: {}).findings
    assert findings
    for finding in findings:
        for value in finding.values():
            if isinstance(value, str):
                assert value.isprintable()
                assert len(value) <= 1024
        assert "hunter2" not in json.dumps(finding)
        json.dumps(finding).encode()


def test_a_host_without_proc_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotAvailableError, match="there is no"):
        discover_ports(HostView(tmp_path / "none"))


def test_processes_that_end_meanwhile_are_left_out(proc: Proc) -> None:
    (proc.folder / "77").mkdir()
    proc.process(78, "kthread", parent=2)
    proc.process(79, "app", "app")
    assert list(proc.view().processes) == [79]


def test_five_hundred_real_listeners_are_all_found() -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(500)]
        wanted = {server.getsockname()[1] for server in servers}
        found = {each["port"] for each in discover_ports(HostView()).findings}
    assert wanted <= found


def test_a_container_and_a_unit_are_told_from_control_groups(proc: Proc) -> None:
    identifier = "0123456789abcdef" * 4
    proc.process(5, "a", "a", cgroup=f"0::/system.slice/docker-{identifier}.scope")
    proc.process(6, "b", "b", cgroup="12:pids:/x.service\n1:name=systemd:/system.slice/ssh.service\n")
    proc.process(7, "c", "c", cgroup="0::/user.slice/user-1.slice/user@1.service/app.slice/tool.service")
    processes = proc.view().processes
    assert processes[5].container_id == identifier[:12]
    assert [processes[pid].unit for pid in (5, 6, 7)] == [None, "ssh.service", "tool.service"]
