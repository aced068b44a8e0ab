"""A TLS 1.2 client that shows any certificate and signs with any key: no library does what an impostor would.

Only as far as the server has checked the signature (RFC 5246, 7.3): what would be encrypted is noise.
"""

from __future__ import annotations

import os
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, _NO_RENEGOTIATION = b"\xc0\x2b", b"\x00\xff"
_ECDSA_SECP256R1_SHA256 = b"\x04\x03"
_SERVER_HELLO_DONE = 14


def refusal_of(server: ssl.SSLContext, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> str:
    """Why the server refuses a peer that shows this certificate, and signs with this key."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(to_server, to_client, server_side=True)
    said = _client_hello()
    to_server.write(_record(22, said))
    try:
        there.do_handshake()
    except ssl.SSLWantReadError:
        said += _handshake_messages(to_client.read())
    own = certificate.public_bytes(serialization.Encoding.DER)
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    encoded = point.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    for message in (_message(11, _sized(3, _sized(3, own))), _message(16, _sized(1, encoded))):
        to_server.write(_record(22, message))
        said += message
    signature = key.sign(said, ec.ECDSA(hashes.SHA256()))
    to_server.write(_record(22, _message(15, _ECDSA_SECP256R1_SHA256 + _sized(2, signature))))
    to_server.write(_record(20, b"\x01") + _record(22, os.urandom(40)))
    try:
        there.do_handshake()
    except ssl.SSLError as error:
        return str(error.reason)
    raise AssertionError("nobody can finish a handshake with noise")


def _client_hello() -> bytes:
    extensions = b"".join(
        kind + _sized(2, content)
        for kind, content in (
            (b"\x00\x0a", _sized(2, b"\x00\x17")),
            (b"\x00\x0b", _sized(1, b"\x00")),
            (b"\x00\x0d", _sized(2, _ECDSA_SECP256R1_SHA256)),
        )
    )
    suites = _sized(2, _ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 + _NO_RENEGOTIATION)
    return _message(1, b"\x03\x03" + os.urandom(32) + b"\x00" + suites + b"\x01\x00" + _sized(2, extensions))


def _handshake_messages(records: bytes) -> bytes:
    """The contents of the server's records, up to its `server_hello_done`."""
    contents = b""
    while records:
        assert records[0] == 22, f"an alert: {records!r}"
        length = int.from_bytes(records[3:5], "big")
        contents, records = contents + records[5 : 5 + length], records[5 + length :]
    assert contents[-4] == _SERVER_HELLO_DONE
    return contents


def _record(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + b"\x03\x03" + _sized(2, content)


def _message(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + _sized(3, content)


def _sized(width: int, content: bytes) -> bytes:
    return len(content).to_bytes(width, "big") + content
