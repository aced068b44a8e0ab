"""The real listener for gateways, over real TLS: who does not belong is refused in the handshake."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.sync.client import connect
from websockets.uri import parse_uri

from apps.gateways import consumers
from apps.gateways.actions.sessions import register_gateway
from apps.gateways.models import Gateway
from apps.gateways.pki import ensure_authorities, ensure_leaf, renew_signer
from apps.gateways.tests.factories import SYSTEM, gateway_hello, queue, wait_until
from apps.gateways.tests.sockets import LinkedAgent, LinkPki
from conftest import Cast
from opsmap.link import make_server
from opsmap_protocol import codec
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import BACKEND_URI, Identity

HOSTS = ["localhost", "127.0.0.1"]
SOME_ORGANIZATION = "01a1fc23-2091-7470-abc6-e4e6f5e24e03"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ours in `ours`; a stranger's, alike in every name, in `foreign`."""
    folder = tmp_path_factory.mktemp("pki")
    for owner in ("ours", "foreign"):
        authorities = ensure_authorities(folder / owner / "ca")
        leaf = folder / owner / "leaf"
        ensure_leaf(leaf, "backend", authorities[PeerRole.BACKEND], uri=BACKEND_URI, hosts=HOSTS)
        renew_signer(leaf, authorities[PeerRole.BACKEND])
        for role in (PeerRole.GATEWAY, PeerRole.AGENT):
            uri = Identity(SOME_ORGANIZATION, role, "one").uri
            ensure_leaf(leaf, role, authorities[role], uri=uri, hosts=HOSTS)
    return folder


@pytest.fixture
def port(pki: Path, transactional_db: None, settings: Any) -> Iterator[int]:
    """The listener, in a thread; the database is what the test sees."""
    settings.PKI_DIR = pki / "ours"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = probe.getsockname()[1]
    server = make_server("127.0.0.1", free, pki / "ours")
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield free
    finally:
        server.should_exit = True
        thread.join(10)
    assert not thread.is_alive()


def client_context(pki: Path, certificate: str | None) -> ssl.SSLContext:
    """A client that knows the backend, and shows `owner/name` or nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki / "ours" / "ca" / "backend.crt")
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if certificate:
        owner, _, name = certificate.partition("/")
        context.load_cert_chain(pki / owner / "leaf" / f"{name}.crt", pki / owner / "leaf" / f"{name}.key")
    return context


def shake_hands(port: int, context: ssl.SSLContext) -> bytes:
    """The first bytes after the handshake, which with TLS 1.3 is over for the server only then."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        # An end without a word is a refusal too, not an empty answer.
        context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as secured,
    ):
        secured.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return secured.recv(1000)


def test_who_does_not_belong_is_refused_in_the_handshake(port: int, pki: Path) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        for certificate in (None, "ours/agent", "ours/backend", "foreign/gateway"):
            context = client_context(pki, certificate)
            context.minimum_version = context.maximum_version = version
            with pytest.raises(OSError) as refusal:  # noqa: PT011 - an alert, or a reset that overtook it
                shake_hands(port, context)
            assert "CERTIFICATE_VERIFY_FAILED" not in str(refusal.value), "it was the client that refused"
        context = client_context(pki, "ours/gateway")
        context.minimum_version = context.maximum_version = version
        assert shake_hands(port, context).startswith(b"HTTP/1.1 200")


def test_old_tls_is_refused(port: int, pki: Path) -> None:
    context = client_context(pki, "ours/gateway")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError):  # noqa: PT011 - as above
        shake_hands(port, context)


def speak(port: int, context: ssl.SSLContext, frame: str, **headers: str) -> dict[str, Any]:
    """The first answer to a frame on the link."""
    with connect(
        f"wss://localhost:{port}/link/",
        ssl=context,
        sock=socket.create_connection(("127.0.0.1", port)),
        additional_headers=headers,
        close_timeout=1,
    ) as link:
        link.send(frame)
        answer: dict[str, Any] = json.loads(link.recv(timeout=5))
        return answer


def register(organization: Any, pki: Path, owner: str = "ours") -> str:
    """Registers the gateway of the certificate `owner/registered`; the frame with which it says hello."""
    uri = Identity(str(organization.pk), PeerRole.GATEWAY, "gw-1").uri
    authority = ensure_authorities(pki / owner / "ca")[PeerRole.GATEWAY]
    certificate = ensure_leaf(pki / owner / "leaf", "registered", authority, uri=uri, hosts=HOSTS)
    register_gateway(organization_id=organization.pk, gateway_id="gw-1", certificate_sha256=certificate, actor=SYSTEM)
    return codec.encode(gateway_hello("gw-1"))


def test_the_registered_gateway_is_accepted_and_gone_after_its_connection(cast: Cast, port: int, pki: Path) -> None:
    hello = register(cast.acme, pki)
    answer = speak(port, client_context(pki, "ours/registered"), hello)
    assert answer["type"] == "gateway_registered"
    gateway = Gateway.objects.get()
    assert gateway.zone == "paris"
    wait_until(lambda: not Gateway.objects.get().is_online)


def test_a_certificate_of_the_right_authority_that_nobody_registered_is_closed(
    cast: Cast, port: int, pki: Path
) -> None:
    hello = register(cast.acme, pki)
    with pytest.raises(ConnectionClosed) as closed:
        speak(port, client_context(pki, "ours/gateway"), hello)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401
    assert not Gateway.objects.get().is_online


def test_a_foreign_authority_cannot_stand_in_for_the_registered_gateway(cast: Cast, port: int, pki: Path) -> None:
    hello = register(cast.acme, pki, "foreign")
    with pytest.raises((OSError, WebSocketException)):
        speak(port, client_context(pki, "foreign/registered"), hello)
    assert not Gateway.objects.get().is_online


def test_gateways_are_told_when_the_server_stops(cast: Cast, pki: Path, transactional_db: None, settings: Any) -> None:
    settings.PKI_DIR = pki / "ours"
    hello = register(cast.acme, pki)
    server = make_server("127.0.0.1", 0, pki / "ours")
    port = server.config.door.getsockname()[1]
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        with connect(
            f"wss://localhost:{port}/link/",
            ssl=client_context(pki, "ours/registered"),
            sock=socket.create_connection(("127.0.0.1", port)),
        ) as link:
            link.send(hello)
            assert json.loads(link.recv(timeout=5))["type"] == "gateway_registered"
            assert server.config.door.unfinished == 0, "it has said who it is"
            server.should_exit = True
            assert json.loads(link.recv(timeout=5))["type"] == "authorities"
            assert json.loads(link.recv(timeout=5))["type"] == "goaway"
            with pytest.raises(ConnectionClosed):
                link.recv(timeout=5)
    finally:
        server.should_exit = True
        thread.join(10)
    assert not thread.is_alive()


def test_the_door_is_shut_to_those_who_say_nothing(cast: Cast, port: int, pki: Path) -> None:
    """More than may be unfinished at a time: a gateway comes in all the same."""
    hello = register(cast.acme, pki)
    silent = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(400)]
    try:
        answer = speak(port, client_context(pki, "ours/registered"), hello)
        assert answer["type"] == "gateway_registered"
    finally:
        for connection in silent:
            connection.close()


class DeafLink:
    """A gateway's connection that says things and never reads, not even pings."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        plain = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        self.protocol = ClientProtocol(parse_uri(f"wss://localhost:{port}/link/"))
        self.protocol.send_request(self.protocol.connect())
        self._flush()
        self.protocol.receive_data(self.socket.recv(4096))
        assert self.protocol.state is State.OPEN

    def __enter__(self) -> DeafLink:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def say(self, frame: str) -> None:
        self.protocol.send_text(frame.encode())
        self._flush()

    def hear(self, kind: str) -> dict[str, Any]:
        """Before it goes deaf: the next frame of a kind."""
        while True:
            for event in self.protocol.events_received():
                if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                    data: dict[str, Any] = json.loads(bytes(event.data))
                    if data["type"] == kind:
                        return data
            self.protocol.receive_data(self.socket.recv(65536))

    def _flush(self) -> None:
        for data in self.protocol.data_to_send():
            self.socket.sendall(data)


def is_gone() -> bool:
    return not Gateway.objects.get().is_online


def test_a_gateway_that_is_gone_without_a_word_is_noticed(cast: Cast, port: int, pki: Path) -> None:
    hello = register(cast.acme, pki)
    with DeafLink(port, client_context(pki, "ours/registered")) as silent:
        silent.say(hello)
        wait_until(lambda: not is_gone())
        wait_until(is_gone, deadline_s=12)


def test_a_gateway_that_does_not_read_is_given_up(
    cast: Cast, port: int, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "SEND_TIMEOUT_S", 0.5)
    hello = register(cast.acme, pki)
    with DeafLink(port, client_context(pki, "ours/registered")) as deaf:
        deaf.say(hello)
        agent = LinkedAgent(LinkPki(pki / "ours"), cast.acme.pk)
        deaf.hear("gateway_registered")
        deaf.say(codec.encode(agent.online()))
        agent.token = deaf.hear("challenge")["token"]
        deaf.say(agent.presence())
        deaf.hear("config_update")
        began_s = time.monotonic()
        padding = {"type": "native", "name": "uptime", "params": {"padding": "x" * 900_000}}
        for _ in range(20):
            queue(agent.row, spec=padding)
        wait_until(is_gone)
        assert time.monotonic() - began_s < 8, "not by its pings, which take longer"
