"""The natives of discovery: the collectors' findings in the reference's form. What they find is tested beside them."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import sys
from pathlib import Path

import pytest

from opsmap_agent.discovery import containers, pods
from opsmap_agent.discovery.findings import Found
from opsmap_agent.native import NativeCommandError
from testing_natives import RunNative

_CONTAINER = {
    "Id": "4f" * 32,
    "Names": ["/web"],
    "Image": "nginx:1.27",
    "State": "running",
    "Ports": [{"PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}, {"PrivatePort": 443, "Type": "tcp"}],
}


async def test_processes_with_ports(native: RunNative) -> None:
    code = (
        "import socket, sys\n"
        "server = socket.create_server(('127.0.0.1', 0)); print(server.getsockname()[1], flush=True)\n"
        "other = socket.create_connection(server.getsockname()); sys.stdin.read()"
    )
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=pipe, stdout=pipe)
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        found = {each["pid"]: each for each in await native("discover_processes_with_ports")}
        assert found[process.pid] == {
            "pid": process.pid,
            "name": Path(f"/proc/{process.pid}/comm").read_text().strip(),
            "user": pwd.getpwuid(os.geteuid()).pw_name,
            "ports": [{"protocol": "tcp", "address": "127.0.0.1", "port": port}],
            "connections": [{"remote_address": "127.0.0.1", "remote_port": port}],
        }
    finally:
        process.kill()
        await process.wait()


async def test_containers(native: RunNative, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps([_CONTAINER]).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    monkeypatch.setattr(containers, "_usual_sockets", lambda: [str(tmp_path / "docker.sock")])
    async with await asyncio.start_unix_server(answer, tmp_path / "docker.sock"):
        assert await native("discover_docker") == [
            {
                "id": ("4f" * 32)[:12],
                "name": "web",
                "image": "nginx:1.27",
                "status": "running",
                "ports": [
                    {"port": 80, "protocol": "tcp", "published": 8080},
                    {"port": 443, "protocol": "tcp", "published": None},
                ],
            }
        ]
    (tmp_path / "docker.sock").unlink(missing_ok=True)
    with pytest.raises(NativeCommandError, match="neither Docker nor Podman has a socket on this host"):
        await native("discover_docker")


async def test_pods(native: RunNative, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    pod = {
        "key": "a/b",
        "name": "b",
        "namespace": "a",
        "status": "Running",
        "containers": [{"name": "c", "image": "d"}],
    }

    def found(namespace: str | None) -> Found:
        asked.append(namespace)
        return Found([pod], "one page was refused")

    monkeypatch.setattr(pods, "discover_pods", found)
    answer = await native.answer("discover_kubernetes", namespace="a")
    assert answer.result == [{**{key: pod[key] for key in pod if key != "key"}, "node": None}]
    assert (answer.remark, asked) == ("one page was refused", ["a"])


async def test_hosts_outside_of_a_cluster_say_so(native: RunNative, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(NativeCommandError, match="the agent does not run inside a Kubernetes cluster"):
        await native("discover_kubernetes")
