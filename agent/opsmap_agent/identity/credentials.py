"""The agent's certificate in use: what it dials with, what it seals with, until when; and how the next one comes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from opsmap_agent.configuration import Configuration
from opsmap_agent.identity.certificates import client_context, own_identity, own_validity
from opsmap_agent.identity.trust import own_seal
from opsmap_daemon import tls
from opsmap_daemon.configuration import ConfigurationError
from opsmap_daemon.files import write_whole
from opsmap_daemon.pair import Pair
from opsmap_trust.apart import Accepted

_logger = logging.getLogger(__name__)

_AUTHORITY_MODE = 0o644


class Credentials:
    """Read from the files that the configuration names, after a renewal that a crash has interrupted is finished.

    Sessions keep the seal that they have begun with: the backend knows them by it.

    Raises:
        ConfigurationError: certificates or keys that cannot be used or belong to somebody else.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        files = configuration.tls
        self._pair = Pair(files.cert_file, files.key_file)
        try:
            self._pair.recover()
        except OSError as error:
            raise ConfigurationError([f"{error.filename}: {error.strerror}"]) from None
        self.identity = own_identity(configuration)
        self.validity = own_validity(files)
        self.seal = own_seal(files)
        self.context = tls.ChangingContext(client_context(configuration))
        """For every connection that is made from now on, also after a renewal."""

    @property
    def authority_files(self) -> dict[str, Path]:
        """What `certificate_renewed` may replace, by the names in it; nothing without a root."""
        files = self._configuration.tls
        if files.root_ca_file is None:
            return {}
        return {"gateway": files.ca_file, "backend": files.backend_ca_file}

    @property
    def root(self) -> Path | None:
        return self._configuration.tls.root_ca_file

    def check_replaceable(self) -> None:
        """Raises PermissionError if a new certificate could not be written."""
        self._pair.check_replaceable()

    def install(self, accepted: Accepted, key: str) -> None:
        """Bring a certificate that was accepted for `key` into use, on disk and for new sessions.

        Raises:
            OSError: the files cannot be written; the former certificate stays in use.
            ConfigurationError: they cannot be read back.
        """
        write_authorities(accepted.authorities, self.authority_files)
        self._pair.replace(accepted.chain, key)
        files = self._configuration.tls
        validity, seal = own_validity(files), own_seal(files)
        self.context.change(client_context(self._configuration))
        self.validity, self.seal = validity, seal


def write_authorities(authorities: Mapping[str, str], files: Mapping[str, Path]) -> list[str]:
    """Write those that are not in their file already; the names of those that changed. Raises OSError."""
    changed = []
    for name, path in files.items():
        text = authorities.get(name)
        if text is None or (path.exists() and path.read_text(encoding="ascii", errors="replace") == text):
            continue
        write_whole(path, text, _AUTHORITY_MODE)
        _logger.info("%s: the %s authorities have changed", path, name)
        changed.append(name)
    return changed
