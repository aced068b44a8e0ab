"""The network as this host sees it, compared with ip, ss and getent."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.native import NativeCommandError
from testing_natives import RunNative
from testing_pki import Pki

needs_iproute = pytest.mark.skipif(shutil.which("ip") is None, reason="ip and ss are not installed (iproute2)")


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"LC_ALL": "C"}).stdout


@asynccontextmanager
async def web_server(answer: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Its port, and the requests that it got."""
    requests: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1], requests


@needs_iproute
async def test_interfaces_are_what_ip_says(native: RunNative) -> None:
    expected = {each["ifname"]: each for each in json.loads(run("ip", "-json", "address"))}
    found = {each["name"]: each for each in await native("network_interfaces")}
    assert set(found) == set(expected)
    for name, interface in found.items():
        addresses = {"inet": [], "inet6": []}
        for address in expected[name]["addr_info"]:
            addresses[address["family"]].append(address["local"])
        assert sorted(interface["ipv4"]) == sorted(addresses["inet"])
        assert sorted(interface["ipv6"]) == sorted(addresses["inet6"])
        assert interface["mac"] == expected[name].get("address")
        assert interface["status"] == ("up" if "UP" in expected[name]["flags"] else "down")
        speed = interface["speed_mbps"]
        assert speed is None or Path(f"/sys/class/net/{name}/speed").read_text().strip() == str(speed)


@needs_iproute
async def test_listening_ports_are_what_ss_says(native: RunNative) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        found = await native("listening_ports")
        expected = _by_ss()
        for server, protocol in ((tcp, "tcp"), (udp, "udp")):
            entry = {
                "port": server.getsockname()[1],
                "protocol": protocol,
                "pid": os.getpid(),
                "process_name": Path("/proc/self/comm").read_text().strip(),
                "address": "127.0.0.1",
            }
            assert entry in found
            assert (protocol, "127.0.0.1", entry["port"], os.getpid()) in expected
    told = {(each["protocol"], each["address"], each["port"]) for each in found}
    # Others on this machine open and close ports between the two looks.
    assert len(told ^ {each[:3] for each in expected}) < 10
    assert all(set(each) == {"port", "protocol", "pid", "process_name", "address"} for each in found)


def _by_ss() -> set[tuple[str, str, int, int | None]]:
    found = set()
    for line in run("ss", "-Hlntup").splitlines():
        protocol, _, _, _, local, *rest = line.split()
        address, _, port = local.rpartition(":")
        address = address.strip("[]").split("%")[0].replace("*", "::")
        pids = "".join(rest).partition("pid=")[2].partition(",")[0]
        found.add((protocol, address, int(port), int(pids) if pids else None))
    return found


async def test_connections_do_not_listen(native: RunNative) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        ports = {each["port"] for each in await native("listening_ports")}
        assert server.getsockname()[1] in ports
        assert client.getsockname()[1] not in ports


async def test_names_are_what_getent_says(native: RunNative) -> None:
    found = await native("dns_lookup", hostname="localhost")
    expected = {line.split()[0] for line in run("getent", "ahosts", "localhost").splitlines()}
    assert set(found["addresses"]) == expected
    assert found["ttl"] is None
    assert found["resolved_in_ms"] >= 0
    assert (await native("dns_lookup", hostname="127.0.0.1"))["addresses"] == ["127.0.0.1"]


async def test_names_that_nobody_has(native: RunNative) -> None:
    with pytest.raises(NativeCommandError, match=r"nobody\.invalid: "):
        await native("dns_lookup", hostname="nobody.invalid")
    with pytest.raises(NativeCommandError):
        await native("dns_lookup", hostname="a" * 64 + ".de")
    for name in ("", "x" * 10_000, "a\nb", "a\0b"):
        with pytest.raises(RejectedError, match="that is not a host name"):
            await native("dns_lookup", hostname=name)


async def test_port_check(native: RunNative, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = await native("port_check", port=server.getsockname()[1])
    assert found["reachable"]
    assert found["latency_ms"] >= 0
    closed = await native("port_check", host="127.0.0.1", port=free_port, timeout_ms=500)
    assert closed == {"reachable": False, "latency_ms": None, "error": "connection refused"}


@pytest.mark.parametrize(
    ("host", "port"), [("x" * 10_000, 80), ("a\0b", 80), ("", 80), ("localhost", 2**40), ("::g", -1)]
)
async def test_port_check_of_what_is_no_address(native: RunNative, host: str, port: int) -> None:
    found = await native("port_check", host=host, port=port, timeout_ms=2_000)
    assert found["reachable"] is False
    assert 0 < len(found["error"]) < 400


@pytest.mark.parametrize(
    ("command", "params"),
    [
        ("port_check", {"host": "169.254.169.254", "port": 80}),
        ("http_check", {"url": "http://169.254.169.254/latest/meta-data/"}),
        ("http_check", {"url": "https://169.254.169.254/latest/meta-data/", "insecure": True}),
    ],
)
async def test_nobody_probes_the_metadata_of_a_cloud(native: RunNative, command: str, params: dict[str, Any]) -> None:
    with pytest.raises(RejectedError, match=r"checks\.allowed_hosts"):
        await native(command, **params)


async def test_http_check(native: RunNative) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\nX-Health: fine\r\n\r\n" + b"y" * 3000
    async with web_server(answer) as (port, requests):
        url = f"http://127.0.0.1:{port}/health"
        found = await native("http_check", url=url)
        assert (found["status_code"], found["headers"]["x-health"]) == (200, "fine")
        assert found["body_preview"] == "y" * 1_999 + "…"
        head = await native("http_check", url=url, method="head", expected_status=200)
        assert head["body_preview"] == ""
    assert [request.split(b" ")[0] for request in requests] == [b"GET", b"HEAD"]


async def test_http_check_tells_what_it_found_instead(native: RunNative) -> None:
    async with web_server(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nwait") as (port, _):
        with pytest.raises(NativeCommandError, match="the status is 503, not 200") as failure:
            await native("http_check", url=f"http://127.0.0.1:{port}/", expected_status=200)
    assert failure.value.result["body_preview"] == "wait"


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "GET / HTTP/1.1\r\nX: y\r\n\r\nGET", "", "TRACE"])
async def test_a_check_changes_nothing(native: RunNative, method: str) -> None:
    with pytest.raises(RejectedError, match="method is one of GET, HEAD, OPTIONS"):
        await native("http_check", url="http://127.0.0.1:1/", method=method)


async def test_insecure_takes_any_certificate(native: RunNative, pki: Pki) -> None:
    leaf = pki.gateway("gw-http")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.cert, leaf.key)
    async with web_server(b"HTTP/1.1 204 None\r\n\r\n", context) as (port, _):
        url = f"https://127.0.0.1:{port}/"
        with pytest.raises(NativeCommandError, match="TLS failed"):
            await native("http_check", url=url)
        found: dict[str, Any] = await native("http_check", url=url, insecure=True)
    assert found["status_code"] == 204


async def test_silent_server_ends_at_its_limit(native: RunNative) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(NativeCommandError, match=r"no answer within 0\.05 s"),
    ):
        await native("http_check", url=f"http://127.0.0.1:{server.getsockname()[1]}/", timeout_ms=50)
