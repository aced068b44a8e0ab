"""SPEC 2 at the link: each wrong certificate against the real link server, and the right one between them."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect

from apps.gateways.actions.certificates import record_certificate
from apps.gateways.actions.revocation import revoke_certificate
from apps.gateways.actions.sessions import register_gateway
from apps.gateways.models import Certificate, Gateway
from apps.gateways.pki import ensure_authorities, fingerprint, issue
from apps.gateways.pki.authorities import Authority
from apps.gateways.pki.files import write_pair
from apps.gateways.tests.factories import SYSTEM, gateway_hello
from apps.gateways.tests.link_process import HOSTS, LinkProcess, link_process
from apps.gateways.tests.requests import new_key
from apps.gateways.tests.sockets import LinkPki
from conftest import Cast
from opsmap_protocol import codec
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import CloseCode
from opsmap_protocol.identity import Identity

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

HANDSHAKE = "refused in the handshake"


@dataclass(frozen=True)
class Shown:
    """What a peer shows, and what becomes of it: the handshake fails, or the link is closed with a code."""

    outcome: str | int
    role: PeerRole = PeerRole.GATEWAY
    authority: PeerRole = PeerRole.GATEWAY
    is_foreign: bool = False
    organization: str = "acme"
    name: str = "gw-1"
    age: timedelta = timedelta(0)
    recorded_for: str = "gw-1"
    is_revoked: bool = False


CASES = {
    "the right one": Shown("gateway_registered"),
    "another CA": Shown(HANDSHAKE, is_foreign=True),
    "the Agent CA": Shown(HANDSHAKE, authority=PeerRole.AGENT),
    "the Backend CA": Shown(HANDSHAKE, authority=PeerRole.BACKEND),
    "expired": Shown(HANDSHAKE, age=timedelta(hours=2)),
    "not yet valid": Shown(HANDSHAKE, age=-timedelta(hours=2)),
    "another role": Shown(CloseCode.UNAUTHENTICATED, role=PeerRole.AGENT),
    "another organization": Shown(CloseCode.UNAUTHENTICATED, organization="umbrella"),
    "another organization's, recorded there": Shown(
        CloseCode.IDENTITY_MISMATCH, organization="umbrella", name="gw-2", recorded_for="gw-2"
    ),
    "recorded for another gateway": Shown(CloseCode.UNAUTHENTICATED, recorded_for="gw-2"),
    "recorded for nobody": Shown(CloseCode.UNAUTHENTICATED, recorded_for=""),
    "revoked": Shown(CloseCode.REVOKED, is_revoked=True),
}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> dict[PeerRole, Authority]:
    """Another installation's authorities, alike in every name."""
    return ensure_authorities(tmp_path_factory.mktemp("foreign") / "ca")


@pytest.fixture
def server(cast: Cast, pki: LinkPki, tmp_path: Path) -> Iterator[LinkProcess]:
    with link_process(pki, tmp_path / "link.log") as process:
        yield process


def test_each_wrong_certificate_is_refused_in_its_way(
    server: LinkProcess, cast: Cast, pki: LinkPki, foreign: dict[PeerRole, Authority], tmp_path: Path
) -> None:
    """One server for all of them: it serves the right one after every wrong one."""
    ours = ensure_authorities(pki.folder / "ca")
    came_to = {}
    for number, (what, shown) in enumerate(CASES.items()):
        authority = (foreign if shown.is_foreign else ours)[shown.authority]
        _arrange(shown, authority, cast, tmp_path / str(number))
        came_to[what] = _outcome(server, pki, tmp_path / str(number))
        Gateway.objects.all().delete()
        Certificate.objects.all().delete()
    assert came_to == {what: shown.outcome for what, shown in CASES.items()}


def _arrange(shown: Shown, authority: Authority, cast: Cast, folder: Path) -> None:
    folder.mkdir()
    organization = getattr(cast, shown.organization)
    key = new_key(seals=False)
    identity = Identity(str(organization.pk), shown.role, shown.name)
    begun = datetime.now(UTC) - shown.age
    life = timedelta(hours=1)
    made = issue(authority, key.public_key(), uri=identity.uri, hosts=HOSTS, life=life, now=begun)
    write_pair(folder, "peer", [made], key)
    for each, gateway_id in ((cast.acme, "gw-1"), (cast.acme, "gw-2"), (cast.umbrella, "gw-2")):
        is_shown = shown.recorded_for == gateway_id and each == organization
        _register(each.pk, gateway_id, made if is_shown else None)
    if shown.is_revoked:
        revoke_certificate(certificate=Certificate.objects.get(), actor=SYSTEM, reason="stolen")


def _register(organization_id: Any, gateway_id: str, shown: x509.Certificate | None) -> None:
    other = f"{organization_id.hex}{gateway_id.encode().hex():0>32}"[:64]
    register_gateway(
        organization_id=organization_id,
        gateway_id=gateway_id,
        certificate_sha256=fingerprint(shown) if shown else other,
        actor=SYSTEM,
    )
    if shown:
        record_certificate(Identity(str(organization_id), PeerRole.GATEWAY, gateway_id), shown)


def _outcome(server: LinkProcess, pki: LinkPki, folder: Path) -> str | int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki.folder / "ca" / "backend.crt")
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_cert_chain(folder / "peer.crt", folder / "peer.key")
    try:
        with connect(
            f"wss://localhost:{server.port}/link/",
            ssl=context,
            sock=socket.create_connection(("127.0.0.1", server.port), timeout=5),
            close_timeout=1,
        ) as link:
            # Whoever it is says that it is the gateway "gw-1".
            link.send(codec.encode(gateway_hello("gw-1")))
            while True:
                frame = json.loads(link.recv(timeout=5))
                if frame["type"] != "error":
                    return str(frame["type"])
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else HANDSHAKE
    except (OSError, WebSocketException):
        return HANDSHAKE
