"""Certificates: real chains, verified by OpenSSL and by `ssl`, and a branch never speaks for another."""

from __future__ import annotations

import ssl
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from apps.gateways.exceptions import LinkRefusedError, PkiError
from apps.gateways.pki import (
    Authority,
    ensure_authorities,
    ensure_leaf,
    fingerprint,
    gateway_of_peer,
    issue,
)
from apps.gateways.pki.files import write_pair
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import BACKEND_URI, Identity

ORGANIZATION = "01a1fc23-2091-7470-abc6-e4e6f5e24e03"
GATEWAY = Identity(ORGANIZATION, PeerRole.GATEWAY, "gw-1")
AGENT = Identity(ORGANIZATION, PeerRole.AGENT, "srv-1")
ROLES = (PeerRole.BACKEND, PeerRole.GATEWAY, PeerRole.AGENT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pki"


@pytest.fixture
def authorities(folder: Path) -> dict[PeerRole, Authority]:
    return ensure_authorities(folder / "ca")


def make_leaf(folder: Path, authority: Authority, uri: str, name: str = "leaf", life: timedelta | None = None) -> str:
    lives = {"life": life} if life else {}
    return ensure_leaf(folder / "leaf", name, authority, uri=uri, hosts=["localhost", "127.0.0.1"], **lives)


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def openssl_verifies(leaf: Path, root: Path, intermediate: Path) -> bool:
    command = ["openssl", "verify", "-CAfile", root, "-untrusted", intermediate, leaf]
    return subprocess.run(command, capture_output=True).returncode == 0


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, object]:
    """What the server learns of the client in memory; raises ssl.SSLError if either refuses the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    there = server.wrap_bio(to_server, to_client, server_side=True)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for side in (here, there):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
    assert len(done) == 2
    return there.getpeercert() or {}


def context(folder: Path, leaf: str, trust: str, *, is_server: bool) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    made.load_cert_chain(folder / "leaf" / f"{leaf}.crt", folder / "leaf" / f"{leaf}.key")
    made.load_verify_locations(folder / "ca" / f"{trust}.crt")
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return made


@pytest.mark.parametrize("role", ROLES)
def test_leaf_verifies_up_to_the_root_by_its_own_branch_only(
    folder: Path, authorities: dict[PeerRole, Authority], role: PeerRole
) -> None:
    make_leaf(folder, authorities[role], BACKEND_URI)
    leaf, root = folder / "leaf" / "leaf.crt", folder / "ca" / "root.crt"
    for other in ROLES:
        assert openssl_verifies(leaf, root, folder / "ca" / f"{other}.crt") is (other is role)


@pytest.mark.parametrize("branch", ROLES)
def test_a_server_that_trusts_the_gateway_branch_accepts_no_other(
    folder: Path, authorities: dict[PeerRole, Authority], branch: PeerRole
) -> None:
    make_leaf(folder, authorities[PeerRole.BACKEND], BACKEND_URI, "backend")
    make_leaf(folder, authorities[branch], GATEWAY.uri, "peer")
    server = context(folder, "backend", "gateway", is_server=True)
    client = context(folder, "peer", "backend", is_server=False)
    if branch is PeerRole.GATEWAY:
        peer = handshake(server, client)
        assert ("URI", GATEWAY.uri) in peer["subjectAltName"]  # type: ignore[operator]
    else:
        with pytest.raises(ssl.SSLCertVerificationError, match="unable to get"):
            handshake(server, client)


def test_a_client_that_trusts_the_backend_branch_refuses_a_gateway_as_backend(
    folder: Path, authorities: dict[PeerRole, Authority]
) -> None:
    make_leaf(folder, authorities[PeerRole.GATEWAY], GATEWAY.uri, "gateway")
    server = context(folder, "gateway", "gateway", is_server=True)
    client = context(folder, "gateway", "backend", is_server=False)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client)


def test_an_intermediate_cannot_make_further_authorities(authorities: dict[PeerRole, Authority]) -> None:
    for role in ROLES:
        constraints = authorities[role].certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (constraints.value.ca, constraints.value.path_length, constraints.critical) == (True, 0, True)


def test_a_leaf_cannot_sign_and_says_where_it_serves(folder: Path, authorities: dict[PeerRole, Authority]) -> None:
    make_leaf(folder, authorities[PeerRole.GATEWAY], GATEWAY.uri)
    extensions = load(folder / "leaf" / "leaf.crt").extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign is False
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_keys_are_for_their_owner_only(folder: Path, authorities: dict[PeerRole, Authority]) -> None:
    make_leaf(folder, authorities[PeerRole.GATEWAY], GATEWAY.uri)
    keys = list(folder.rglob("*.key"))
    assert sorted(path.name for path in keys) == ["agent.key", "backend.key", "gateway.key", "leaf.key", "root.key"]
    for path in keys:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [path.name for path in folder.rglob(".*")] == [], "no half-written file stays"


def test_authorities_are_made_once(folder: Path, authorities: dict[PeerRole, Authority]) -> None:
    again = ensure_authorities(folder / "ca")
    assert {role: fingerprint(again[role].certificate) for role in ROLES} == {
        role: fingerprint(authorities[role].certificate) for role in ROLES
    }


@pytest.mark.parametrize("missing", ["root.crt", "backend.key", "gateway.crt", "agent.key"])
def test_an_incomplete_folder_is_refused_and_left_as_it_is(
    folder: Path, authorities: dict[PeerRole, Authority], missing: str
) -> None:
    (folder / "ca" / missing).unlink()
    before = {path.name: path.read_bytes() for path in (folder / "ca").iterdir()}
    with pytest.raises(PkiError, match=f"lacks: {missing.partition('.')[0]}"):
        ensure_authorities(folder / "ca")
    assert {path.name: path.read_bytes() for path in (folder / "ca").iterdir()} == before


def test_a_key_of_another_kind_is_refused(folder: Path, authorities: dict[PeerRole, Authority]) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / "ca" / "agent.key").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(PkiError, match="not an elliptic-curve key"):
        ensure_authorities(folder / "ca")


def test_a_leaf_is_kept_while_it_is_good(folder: Path, authorities: dict[PeerRole, Authority]) -> None:
    first = make_leaf(folder, authorities[PeerRole.GATEWAY], GATEWAY.uri)
    assert make_leaf(folder, authorities[PeerRole.GATEWAY], GATEWAY.uri) == first
    assert first == fingerprint(load(folder / "leaf" / "leaf.crt"))


def test_a_leaf_without_its_key_is_made_anew(folder: Path, authorities: dict[PeerRole, Authority]) -> None:
    first = make_leaf(folder, authorities[PeerRole.GATEWAY], GATEWAY.uri)
    (folder / "leaf" / "leaf.key").unlink()
    assert make_leaf(folder, authorities[PeerRole.GATEWAY], GATEWAY.uri) != first
    assert (folder / "leaf" / "leaf.key").exists()


@pytest.mark.parametrize(("spent", "is_renewed"), [(0.6, False), (0.7, True)])
def test_a_leaf_is_renewed_when_two_thirds_of_its_life_are_spent(
    folder: Path, authorities: dict[PeerRole, Authority], spent: float, is_renewed: bool
) -> None:
    key, life = ec.generate_private_key(ec.SECP256R1()), timedelta(hours=10)
    begun = datetime.now(UTC) - spent * life
    old = issue(
        authorities[PeerRole.GATEWAY], key.public_key(), uri=GATEWAY.uri, hosts=["localhost"], life=life, now=begun
    )
    (folder / "leaf").mkdir()
    write_pair(folder / "leaf", "leaf", [old], key)
    first = fingerprint(old)
    second = make_leaf(folder, authorities[PeerRole.GATEWAY], GATEWAY.uri)
    assert (second != first) is is_renewed
    if is_renewed:
        assert load(folder / "leaf" / "leaf.crt").not_valid_after_utc > datetime.now(UTC) + timedelta(days=300)


@pytest.mark.parametrize(("life", "back"), [(timedelta(seconds=60), 5), (timedelta(days=365), 300)])
def test_a_leaf_begins_a_little_before_now_but_never_more_than_a_twelfth_of_its_life(
    authorities: dict[PeerRole, Authority], life: timedelta, back: int
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    made = issue(authorities[PeerRole.AGENT], key, uri=AGENT.uri, hosts=[], life=life, now=now)
    assert now - made.not_valid_before_utc == timedelta(seconds=back)
    assert made.not_valid_after_utc == now + life


def test_a_leaf_ends_with_its_authority(authorities: dict[PeerRole, Authority]) -> None:
    key, authority = ec.generate_private_key(ec.SECP256R1()).public_key(), authorities[PeerRole.AGENT]
    made = issue(authority, key, uri=AGENT.uri, hosts=[], life=timedelta(days=5000))
    assert made.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_a_leaf_is_made_anew_for_another_name_or_signer(folder: Path, authorities: dict[PeerRole, Authority]) -> None:
    prints = [
        make_leaf(folder, authorities[PeerRole.GATEWAY], GATEWAY.uri),
        make_leaf(folder, authorities[PeerRole.GATEWAY], Identity(ORGANIZATION, PeerRole.GATEWAY, "gw-2").uri),
        make_leaf(folder, authorities[PeerRole.AGENT], AGENT.uri),
    ]
    assert len(set(prints)) == 3


def test_leaves_are_made_anew_with_their_authorities(folder: Path, authorities: dict[PeerRole, Authority]) -> None:
    first = make_leaf(folder, authorities[PeerRole.GATEWAY], GATEWAY.uri)
    (folder / "ca").rename(folder / "ca-of-before")
    anew = ensure_authorities(folder / "ca")
    # Every name is the same; only the keys tell the old authority from the new.
    assert make_leaf(folder, anew[PeerRole.GATEWAY], GATEWAY.uri) != first
    assert openssl_verifies(folder / "leaf" / "leaf.crt", folder / "ca" / "root.crt", folder / "ca" / "gateway.crt")


def peer_pem(folder: Path, authority: Authority, uri: str) -> str:
    make_leaf(folder, authority, uri)
    return load(folder / "leaf" / "leaf.crt").public_bytes(Encoding.PEM).decode()


def test_the_peer_is_who_its_uri_says(folder: Path, authorities: dict[PeerRole, Authority]) -> None:
    pem = peer_pem(folder, authorities[PeerRole.GATEWAY], GATEWAY.uri)
    assert gateway_of_peer(pem) == (GATEWAY, load(folder / "leaf" / "leaf.crt"))


@pytest.mark.parametrize(
    "uri",
    [
        AGENT.uri,
        BACKEND_URI,
        "spiffe://elsewhere/org/x/gateway/gw-1",
        f"spiffe://opsmap/org/{ORGANIZATION}/gateway/gw-1/more",
        f"spiffe://opsmap/org/{ORGANIZATION.upper()}/gateway/gw-1",
    ],
)
def test_a_peer_that_is_no_gateway_is_refused(folder: Path, authorities: dict[PeerRole, Authority], uri: str) -> None:
    with pytest.raises(LinkRefusedError):
        gateway_of_peer(peer_pem(folder, authorities[PeerRole.GATEWAY], uri))


def test_a_peer_without_a_uri_is_refused(authorities: dict[PeerRole, Authority]) -> None:
    # The Gateway CA itself has a common name and nothing else.
    pem = authorities[PeerRole.GATEWAY].certificate.public_bytes(Encoding.PEM).decode()
    with pytest.raises(LinkRefusedError, match="expected one URI name, found 0"):
        gateway_of_peer(pem)
