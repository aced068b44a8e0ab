"""The link server as a process of its own over real TLS, gateways that behave, and connections that do not."""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psutil
from django.db import connection
from websockets.sync.client import ClientConnection, connect

from apps.gateways.actions.sessions import register_gateway
from apps.gateways.enums import CommandState
from apps.gateways.models import Command
from apps.gateways.pki import ensure_authorities, ensure_leaf, fingerprint
from apps.gateways.tests.factories import SYSTEM, command_result, gateway_hello, queue, wait_until
from apps.gateways.tests.sockets import LinkedAgent, LinkPki, read_certificate
from apps.orgs.models import Organization
from opsmap_protocol import codec
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import BACKEND_URI

HOSTS = ["localhost", "127.0.0.1"]
ELSEWHERE = "127.0.0.2"
"""Where attackers come from: the door tells peers apart by their addresses."""


@dataclass
class LinkProcess:
    port: int
    pki: LinkPki
    process: psutil.Process

    @property
    def rss_mb(self) -> float:
        rss: int = self.process.memory_info().rss
        return rss / 1e6

    def context(self, organization: Organization, gateway_id: str) -> ssl.SSLContext:
        """A registered gateway's side of TLS."""
        path = self.pki.leaf(organization.pk, gateway_id, PeerRole.GATEWAY)
        register_gateway(
            organization_id=organization.pk,
            gateway_id=gateway_id,
            certificate_sha256=fingerprint(read_certificate(path)),
            actor=SYSTEM,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.pki.folder / "ca" / "backend.crt")
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_cert_chain(path, path.with_suffix(".key"))
        return context


@contextmanager
def link_process(pki: LinkPki, log: Path) -> Iterator[LinkProcess]:
    """`python -m opsmap.link` on a free port, with the database of the test."""
    authority = ensure_authorities(pki.folder / "ca")[PeerRole.BACKEND]
    ensure_leaf(pki.folder / "leaf", "backend", authority, uri=BACKEND_URI, hosts=HOSTS)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    database = urlsplit(os.environ["OPSMAP_DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    environment = os.environ | {
        "OPSMAP_DATABASE_URL": urlunsplit(database),
        "OPSMAP_PKI_DIR": str(pki.folder),
        "OPSMAP_LINK_BIND": f"127.0.0.1:{port}",
    }
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", "opsmap.link"], env=environment, stdout=output, stderr=output
        ) as server,
    ):
        try:
            wait_until(lambda: server.poll() is not None or _listens(port), deadline_s=20)
            assert server.poll() is None, log.read_text()
            yield LinkProcess(port, pki, psutil.Process(server.pid))
        finally:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(8)
            server.kill()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@dataclass
class TalkingGateway:
    """Brings one agent in, and carries out its commands as they come."""

    socket: ClientConnection
    agent: LinkedAgent

    def bring_agent_in(self) -> None:
        self.say(self.agent.online())
        self.agent.token = self.hear("challenge")["token"]
        self.say(self.agent.presence())
        self.hear("config_update")

    def complete_command(self) -> float:
        """From the wish to the stored result, in seconds."""
        began_s = time.monotonic()
        command = queue(self.agent.row)
        while self.hear("command")["request_id"] != str(command.pk):
            pass
        self.say(self.agent.events(command_result(command)))
        while self.hear("events_ack")["seq"] < self.agent.seq:
            pass
        took_s = time.monotonic() - began_s
        assert Command.objects.get(pk=command.pk).state == CommandState.SUCCEEDED
        return took_s

    def say(self, message: Any) -> None:
        self.socket.send(message if isinstance(message, str) else codec.encode(message))

    def hear(self, kind: str) -> dict[str, Any]:
        while True:
            frame: dict[str, Any] = json.loads(self.socket.recv(timeout=10))
            if frame["type"] == kind:
                return frame


@contextmanager
def talking_gateway(
    link: LinkProcess, organization: Organization, gateway_id: str, *, address: str = "127.0.0.1"
) -> Iterator[TalkingGateway]:
    """A gateway that has registered, with an agent that it has brought in."""
    with connect(
        f"wss://localhost:{link.port}/link/",
        ssl=link.context(organization, gateway_id),
        sock=socket.create_connection(("127.0.0.1", link.port), source_address=(address, 0)),
        max_queue=1,
        ping_interval=None,
        close_timeout=0.5,
    ) as connection:
        gateway = TalkingGateway(connection, LinkedAgent(link.pki, organization.pk, f"srv-of-{gateway_id}"))
        gateway.say(gateway_hello(gateway_id))
        gateway.hear("gateway_registered")
        gateway.bring_agent_in()
        yield gateway


def plain_connection(link: LinkProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=5, source_address=(ELSEWHERE, 0))


class RawGateway:
    """A certificate holder that writes its frames by hand. Reads nothing by itself."""

    def __init__(self, link: LinkProcess, context: ssl.SSLContext, *, extensions: str = "") -> None:
        self.socket = context.wrap_socket(plain_connection(link), server_hostname="localhost")
        offer = f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
        self.socket.sendall(
            f"GET /link/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{offer}"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.answer = b""
        while b"\r\n\r\n" not in self.answer:
            self.answer += self.socket.recv(4096)

    def __enter__(self) -> RawGateway:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, payload: bytes, *, first_byte: int = 0x81, claimed_length: int | None = None) -> None:
        """A frame; by default a text, whole, and as long as it says."""
        length = len(payload) if claimed_length is None else claimed_length
        if length < 126:
            head = struct.pack("!BB", first_byte, 0x80 | length)
        elif length < 2**16:
            head = struct.pack("!BBH", first_byte, 0x80 | 126, length)
        else:
            head = struct.pack("!BBQ", first_byte, 0x80 | 127, length)
        # A mask of zeros: the payload as it is.
        self.socket.sendall(head + bytes(4) + payload)

    def close_code(self, *, within_s: float) -> int:
        """The code that the server closes with, or 1006 if it just goes. What it says before is skipped."""
        self.socket.settimeout(within_s)
        heard = bytearray()
        with suppress(ConnectionResetError, ssl.SSLError):
            while data := self.socket.recv(65536):
                heard += data
                while (frame := _first_frame(heard)) is not None:
                    opcode, payload, size = frame
                    if opcode == _CLOSE:
                        return int.from_bytes(payload[:2])
                    del heard[:size]
        return 1006


_CLOSE = 8


def _first_frame(data: bytearray) -> tuple[int, bytes, int] | None:
    """Opcode, payload and size of the first frame of a server, if it is there as a whole."""
    if len(data) < 10 and len(data) < 2 + (data[1] if len(data) > 1 and data[1] < 126 else 8):
        return None
    length, begin = data[1], 2
    if length == 126:
        length, begin = int.from_bytes(data[2:4]), 4
    elif length == 127:
        length, begin = int.from_bytes(data[2:10]), 10
    end = begin + length
    return (data[0] & 0x0F, bytes(data[begin:end]), end) if len(data) >= end else None
