"""The link server's TLS context: what changes on disk counts at the next handshake."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from apps.gateways.pki import ensure_authorities, fingerprint
from apps.gateways.pki.authorities import Authority, activate_next, add_next, retire_former
from apps.gateways.pki.files import read_certificate
from apps.gateways.pki.leaves import make_leaf
from apps.gateways.tests.bare_tls import refusal_of
from opsmap import link_tls
from opsmap.link_tls import RenewedContext
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import BACKEND_URI, Identity

GATEWAY = Identity("01a1fc23-2091-7470-abc6-e4e6f5e24e03", PeerRole.GATEWAY, "gw-1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(link_tls, "LOOK_INTERVAL_S", 0.0)
    authorities = ensure_authorities(tmp_path / "ca")
    leaf(tmp_path, "backend", authorities[PeerRole.BACKEND], BACKEND_URI)
    leaf(tmp_path, "gateway", authorities[PeerRole.GATEWAY], GATEWAY.uri)
    return tmp_path


def leaf(folder: Path, name: str, authority: Authority, uri: str) -> str:
    life = timedelta(days=1)
    return make_leaf(folder / "leaf", name, authority, uri=uri, hosts=["localhost"], seals=False, life=life)


def client(folder: Path, name: str = "gateway") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder / "ca" / "backend.crt")
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_cert_chain(folder / "leaf" / f"{name}.crt", folder / "leaf" / f"{name}.key")
    return context


def shake_hands(server: ssl.SSLContext, peer: ssl.SSLContext) -> bytes:
    """The certificate that the server shows. Raises ssl.SSLError if one refuses the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(to_server, to_client, server_side=True)
    here = peer.wrap_bio(to_client, to_server, server_hostname="localhost")
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for side in (here, there):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
    assert len(done) == 2
    return here.getpeercert(binary_form=True) or b""


def shown_by(server: ssl.SSLContext, folder: Path) -> str:
    return fingerprint(x509.load_der_x509_certificate(shake_hands(server, client(folder))))


def test_a_renewed_certificate_is_shown_at_the_next_handshake(folder: Path) -> None:
    context = RenewedContext.of(folder)
    first = shown_by(context, folder)
    second = leaf(folder, "backend", ensure_authorities(folder / "ca")[PeerRole.BACKEND], BACKEND_URI)
    assert first != second == shown_by(context, folder)


def test_in_the_middle_of_a_renewal_the_former_certificate_serves(folder: Path) -> None:
    context = RenewedContext.of(folder)
    first = shown_by(context, folder)
    (folder / "leaf" / "backend.key").write_bytes((folder / "leaf" / "gateway.key").read_bytes())
    assert shown_by(context, folder) == first
    (folder / "leaf" / "backend.crt").unlink()
    assert shown_by(context, folder) == first


def test_authorities_come_and_go_without_a_restart(folder: Path) -> None:
    context, ca = RenewedContext.of(folder), folder / "ca"
    passphrase = (ca / "root.passphrase").read_text().strip()
    add_next(ca, PeerRole.GATEWAY, root_key=ca / "root.key", passphrase=passphrase)
    activate_next(ca, PeerRole.GATEWAY)
    leaf(folder, "renewed", ensure_authorities(ca)[PeerRole.GATEWAY], GATEWAY.uri)
    for name in ("gateway", "renewed"):
        shake_hands(context, client(folder, name))
    retire_former(ca, PeerRole.GATEWAY)
    shake_hands(context, client(folder, "renewed"))
    with pytest.raises(ssl.SSLError, match="unable to get"):
        shake_hands(context, client(folder, "gateway"))


def test_a_certificate_whose_key_the_peer_does_not_have_is_refused(folder: Path) -> None:
    context = RenewedContext.of(folder)
    certificate = read_certificate(folder / "leaf" / "gateway.crt")
    own = serialization.load_pem_private_key((folder / "leaf" / "gateway.key").read_bytes(), None)
    assert isinstance(own, ec.EllipticCurvePrivateKey)
    assert refusal_of(context, certificate, ec.generate_private_key(ec.SECP256R1())) == "BAD_SIGNATURE"
    # With the key it comes further, as far as this client goes.
    assert refusal_of(context, certificate, own) == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"


def test_a_context_without_files_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"backend\.crt"):
        RenewedContext.of(tmp_path)
