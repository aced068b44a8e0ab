"""Mutual TLS between backend, gateway and agent: contexts, and whose certificate it is.

A `ca` file holds one intermediate (Gateway CA, Agent CA or Backend CA) and nothing else. Partial-chain
verification makes that intermediate the anchor itself, so a certificate of a sister branch under the same
root is refused.
"""

from __future__ import annotations

import asyncio.sslproto
import hashlib
import logging
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from websockets.asyncio.connection import Connection

TlsVersion = Literal["1.2", "1.3"]

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_logger = logging.getLogger(__name__)
_READ_BUFFER_BYTES = 16 * 1024
_MAX_HANDSHAKE_TURNS = 10
_ABOUT_TIME = {9, 10}
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL's x509_vfy.h."""


class TlsError(Exception):
    """A certificate or key that cannot be used, told in one line with its path."""


class _ReportingSSLObject(ssl.SSLObject):
    """Logs why a client was not let in. asyncio tells nobody: neither us nor, by a TLS alert, the client."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            _logger.warning("a TLS handshake failed: %s", describe(error))
            raise


def client_context(
    cert: Path,
    key: Path,
    ca: Path,
    verify_hostname: bool = True,
    min_version: TlsVersion = "1.2",
    max_version: TlsVersion | None = None,
) -> ssl.SSLContext:
    """For the side that dials. The server's certificate is always verified, its host name unless told not to.

    Raises:
        TlsError: a file is missing, unreadable or does not fit the others.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, min_version)
    if max_version is not None:
        context.maximum_version = _VERSIONS[max_version]
    context.check_hostname = verify_hostname
    _load(context, cert, key, ca)
    return context


def server_context(cert: Path, key: Path, client_ca: Path, min_version: TlsVersion = "1.2") -> ssl.SSLContext:
    """For the side that listens: nobody gets in without a certificate of `client_ca`.

    Raises:
        TlsError: a file is missing, unreadable or does not fit the others.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, min_version)
    context.sslobject_class = _ReportingSSLObject
    context.verify_mode = ssl.CERT_REQUIRED
    # A resumed session would skip the client's certificate, and with it whatever changed about it since.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    _load(context, cert, key, client_ca)
    return context


def open_server_context(cert: Path, key: Path, min_version: TlsVersion = "1.2") -> ssl.SSLContext:
    """For the one door where clients have no certificate yet: they are asked for none.

    Raises:
        TlsError: as `server_context`.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, min_version)
    context.sslobject_class = _ReportingSSLObject
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    _load(context, cert, key, None)
    return context


def enrolling_context(authorities: str | None) -> ssl.SSLContext:
    """For a client that has no certificate yet, and verifies its server by `authorities` (PEM), or not at all."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, "1.2")
    context.check_hostname = authorities is not None
    if authorities is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=authorities)
    return context


class ChangingContext(ssl.SSLContext):
    """Stands for another context, which may change: each new handshake takes the one of that moment.

    So neither a listener nor a dialler has to end when a certificate or an authority is renewed. OpenSSL's own way, to
    load into a context that is in use, adds authorities and never takes one away.
    """

    def __new__(cls, present: ssl.SSLContext) -> ChangingContext:
        return super().__new__(cls, present.protocol)

    def __init__(self, present: ssl.SSLContext) -> None:
        self._present = present

    def change(self, present: ssl.SSLContext) -> None:
        self._present = present

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        # All of asyncio's TLS begins here.
        return self._present.wrap_bio(incoming, outgoing, server_side, server_hostname, session)


def limit_read_buffer() -> None:
    """Shrink asyncio's TLS read buffer from 256 to 16 KiB a connection, for the whole process.

    asyncio has no option for it, and with 1,000 connections the buffers were three quarters of the memory
    (341 against 95 MB). One TLS record is 16 KiB at most, so nothing is lost.
    """
    asyncio.sslproto.SSLProtocol.max_size = _READ_BUFFER_BYTES


def peer_certificate(connection: Connection) -> dict[str, Any]:
    """The verified certificate of the other side, in the form of `ssl.SSLSocket.getpeercert()`."""
    certificate: dict[str, Any] | None = _ssl_object(connection).getpeercert()
    return certificate or {}


def peer_fingerprint(connection: Connection) -> str:
    """SHA-256 of the other side's certificate, in lower-case hexadecimal."""
    certificate = _ssl_object(connection).getpeercert(binary_form=True)
    return hashlib.sha256(certificate or b"").hexdigest()


def own_certificate(cert: Path, key: Path, role: Literal["server", "client"]) -> dict[str, Any]:
    """Our own certificate, in the form of `ssl.SSLSocket.getpeercert()`.

    The standard library decodes certificates of peers only, so it is shown to ourselves in a handshake in
    memory. That also proves that the key fits, that it is valid today, and that it may be used in that role.

    Raises:
        TlsError: it cannot be used.
    """
    server = _context(ssl.PROTOCOL_TLS_SERVER, "1.2")
    client = _context(ssl.PROTOCOL_TLS_CLIENT, "1.2")
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    verifier = client if role == "server" else server
    for context in (server, client):
        _load(context, cert, key, cert if context is verifier else None)
    verifier.verify_mode = ssl.CERT_REQUIRED
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = {
        "server": server.wrap_bio(to_server, to_client, server_side=True),
        "client": client.wrap_bio(to_client, to_server),
    }
    try:
        _shake_hands(ends["client"], ends["server"])
    except ssl.SSLError as error:
        raise TlsError(f"{cert}: cannot be used as a {role}'s certificate: {describe(error)}") from None
    seen_by = ends["client" if role == "server" else "server"]
    return dict(seen_by.getpeercert() or {})


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate is valid."""

    begins: datetime
    ends: datetime

    @property
    def life_s(self) -> float:
        return (self.ends - self.begins).total_seconds()

    def spent(self, now: datetime) -> float:
        """The share of its life that is over; above 1 it has ended, below 0 it has not begun."""
        return (now - self.begins).total_seconds() / self.life_s


def validity(certificate: dict[str, Any]) -> Validity:
    """Of a certificate in the form of `ssl.SSLSocket.getpeercert()`."""
    begins, ends = (ssl.cert_time_to_seconds(certificate[key]) for key in ("notBefore", "notAfter"))
    return Validity(datetime.fromtimestamp(begins, UTC), datetime.fromtimestamp(ends, UTC))


def authority_validity(path: Path) -> Validity:
    """Of the authority in a file; of the first to end if there are several. Raises TlsError."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, "1.2")
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise TlsError(f"{path}: not a file of CA certificates: {describe(error)}") from None
    except OSError as error:
        raise TlsError(f"{path}: cannot be read: {error.strerror}") from None
    found = [validity(dict(each)) for each in context.get_ca_certs()]
    if not found:
        raise TlsError(f"{path}: there is no CA certificate in it")
    return min(found, key=lambda each: each.ends)


def describe(error: ssl.SSLError) -> str:
    """A TLS failure in words, without OpenSSL's file and line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = error.verify_message or "certificate verify failed"
        if error.verify_code in _ABOUT_TIME:
            # As often the host's clock is wrong as the certificate.
            return f"{text}, if this host's clock is right, which says {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        return text
    return (error.reason or str(error)).replace("_", " ").lower()


def _context(protocol: int, min_version: TlsVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = _VERSIONS[min_version]
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def _load(context: ssl.SSLContext, cert: Path, key: Path, ca: Path | None) -> None:
    for path in filter(None, (cert, key, ca)):
        try:
            path.read_bytes()
        except OSError as error:
            raise TlsError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        context.load_cert_chain(cert, key)
    except ssl.SSLError as error:
        raise TlsError(f"{cert}: not a certificate with the key {key}: {describe(error)}") from None
    if ca is None:
        return
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise TlsError(f"{ca}: not a file of CA certificates: {describe(error)}") from None


def _shake_hands(client: ssl.SSLObject, server: ssl.SSLObject) -> None:
    # Turn by turn: each side writes what the other needs, until neither wants to read. In TLS 1.3 the client
    # is done before the server has looked at its certificate, so both must report success.
    waiting = [client, server]
    for _ in range(_MAX_HANDSHAKE_TURNS):
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
        if not waiting:
            return
    raise ssl.SSLError("the handshake does not end")


def _ssl_object(connection: Connection) -> ssl.SSLObject:
    ssl_object = connection.transport.get_extra_info("ssl_object")
    if not isinstance(ssl_object, ssl.SSLObject):
        raise TlsError("the connection is not encrypted")
    return ssl_object
