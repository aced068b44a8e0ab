"""A certificate and its key, two files that have to fit, replaced so that no crash leaves two that do not.

    1. the new key is written beside the old one        a crash: the old pair counts
    2. the new certificate is written beside the old    from here on the new pair counts
    3. the key takes its place                          a crash: `recover` does the rest
    4. the certificate takes its place

`recover` comes first whenever a pair is used. A lock keeps it from a replacement that is not interrupted but under way,
in another process: somebody may check the configuration while the daemon runs.
"""

from __future__ import annotations

import errno
import logging
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from opsmap_daemon import files

_logger = logging.getLogger(__name__)

_KEY_MODE = 0o600
_CERTIFICATE_MODE = 0o644


@dataclass(frozen=True)
class Pair:
    """`cert` holds the chain, the own certificate first."""

    cert: Path
    key: Path

    def replace(self, chain: str, key: str) -> None:
        """Make this chain and key (PEM) the pair. Raises OSError; then the former pair is as it was."""
        real = self._resolved()
        with files.folder_locked(real.cert.parent):
            files.write_beside(real.key, key, _KEY_MODE)
            files.sync_folder(real.key.parent)
            files.write_beside(real.cert, chain, _CERTIFICATE_MODE)
            files.sync_folder(real.cert.parent)
            real._take_place()

    def recover(self) -> bool:
        """Finish what a crash has interrupted; whether a new pair has come into place by it. Raises OSError."""
        real = self._resolved()
        if not real.cert.parent.is_dir():
            return False
        with files.folder_locked(real.cert.parent):
            return real._finish()

    def check_replaceable(self) -> None:
        """Before anybody is asked for a new certificate: is there somewhere to put it? Raises PermissionError."""
        real = self._resolved()
        for folder in {real.cert.parent, real.key.parent}:
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "files in it cannot be replaced", str(folder))

    def _finish(self) -> bool:
        next_cert, next_key = files.beside(self.cert), files.beside(self.key)
        if next_cert.exists() and _fit(next_cert, next_key if next_key.exists() else self.key):
            self._take_place()
            _logger.warning("%s: the renewal that a crash had interrupted is finished", self.cert)
            return True
        # Half a pair is nothing; its key has never been of use to anybody.
        next_cert.unlink(missing_ok=True)
        next_key.unlink(missing_ok=True)
        return False

    def is_usable(self) -> bool:
        """Whether both files are there and fit. Whether the certificate is valid now is another question."""
        return _fit(self.cert, self.key)

    def _resolved(self) -> Pair:
        return Pair(self.cert.resolve(), self.key.resolve())

    def _take_place(self) -> None:
        next_key = files.beside(self.key)
        if next_key.exists():
            files.place(next_key, self.key)
        files.place(files.beside(self.cert), self.cert)


def _fit(cert: Path, key: Path) -> bool:
    try:
        # An encrypted key would ask on the terminal: nobody is there to answer.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password="")
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        return False
    return True
