"""The link server's side of TLS: whom it trusts and what it shows, as the files have it at each handshake."""

from __future__ import annotations

import logging
import ssl
import time
from pathlib import Path
from typing import Any, Self

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1.0

_Stamp = tuple[tuple[int, int, int], ...]


def tls_context(pki_dir: Path) -> ssl.SSLContext:
    """Requires a client certificate signed by the Gateway CA itself: a branch of our PKI, not all of it.

    Raises:
        OSError: a file cannot be read, or (ssl.SSLError) the key does not fit the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate, key, authorities = _files(pki_dir)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authorities)
    context.verify_mode = ssl.CERT_REQUIRED
    # The Gateway CA is an intermediate: trust it as it stands, without its root above it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    # Who comes again shows its certificate again: a resumed session would outlive the authority that it was checked by.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context


class RenewedContext(ssl.SSLContext):
    """For a server that never stops: each handshake is by a context of the files as they are.

    A context that is in use takes a new certificate, but forgets no authority that it has learnt to trust.
    """

    _pki_dir: Path
    _stamp: _Stamp
    _current: ssl.SSLContext
    _look_at_s: float

    @classmethod
    def of(cls, pki_dir: Path) -> Self:
        """Raises OSError, as `tls_context`."""
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context._pki_dir, context._look_at_s = pki_dir, 0.0
        context._stamp, context._current = _stamp(pki_dir), tls_context(pki_dir)
        return context

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """What asyncio calls for each connection."""
        self._look()
        return self._current.wrap_bio(*arguments, **options)

    def _look(self) -> None:
        now_s = time.monotonic()
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_INTERVAL_S
        try:
            stamp = _stamp(self._pki_dir)
            if stamp != self._stamp:
                self._current, self._stamp = tls_context(self._pki_dir), stamp
                logger.info("the link server's certificates were read anew")
        except OSError as error:
            # In the middle of a renewal key and certificate do not fit for a moment: those from before are as good.
            logger.warning("the link server goes on with the certificates that it has: %s", error)


def _files(pki_dir: Path) -> tuple[Path, Path, Path]:
    return pki_dir / "leaf" / "backend.crt", pki_dir / "leaf" / "backend.key", pki_dir / "ca" / "gateway.crt"


def _stamp(pki_dir: Path) -> _Stamp:
    found = [path.stat() for path in _files(pki_dir)]
    return tuple((each.st_mtime_ns, each.st_ino, each.st_size) for each in found)
