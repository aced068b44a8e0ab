"""The gateway's certificate in use on both of its links, whom it trusts, and how that changes without a restart."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from opsmap_daemon import tls
from opsmap_daemon.configuration import ConfigurationError
from opsmap_daemon.files import write_whole
from opsmap_daemon.pair import Pair
from opsmap_gateway.certificates import (
    client_context,
    enrolment_context,
    own_identity,
    own_validity,
    server_context,
)
from opsmap_gateway.configuration import Configuration
from opsmap_trust.apart import Accepted

_logger = logging.getLogger(__name__)

_AUTHORITY_MODE = 0o644


class Credentials:
    """Read from the files that the configuration names, after a renewal that a crash has interrupted is finished.

    The contexts count for every handshake from now on; connections that are there stay.

    Raises:
        ConfigurationError: with every fault.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._pairs = _pairs(configuration)
        for pair in self._pairs:
            try:
                pair.recover()
            except OSError as error:
                raise ConfigurationError([f"{error.filename}: {error.strerror}"]) from None
        if configuration.agent_server.enrolment.enabled and self.root is None:
            fault = (
                "agent_server.enrolment needs backend_connection.tls.root_ca_file: those who enrol know it by its hash"
            )
            raise ConfigurationError([fault])
        self.identity = own_identity(configuration)
        self.validity = own_validity(configuration)
        self.for_agents = tls.ChangingContext(server_context(configuration))
        self.for_enrolling = tls.ChangingContext(enrolment_context(configuration))
        self.for_backend = tls.ChangingContext(client_context(configuration))

    @property
    def root(self) -> Path | None:
        return self._configuration.backend_connection.tls.root_ca_file

    def check_replaceable(self) -> None:
        """Raises PermissionError if a new certificate could not be written."""
        for pair in self._pairs:
            pair.check_replaceable()

    def install(self, accepted: Accepted, key: str) -> None:
        """Bring a certificate that was accepted for `key` into use, on disk and for new handshakes.

        Raises:
            OSError: the files cannot be written.
            ConfigurationError: they cannot be read back.
        """
        for pair in self._pairs:
            pair.replace(accepted.chain, key)
        self._read_again()
        self.validity = own_validity(self._configuration)

    def trust(self, authorities: Mapping[str, str]) -> list[str]:
        """Trust these authorities (PEM, by name: backend, agent), which somebody has checked; those that are new.

        Raises:
            OSError, ConfigurationError: as `install`.
        """
        files = {
            "backend": self._configuration.backend_connection.tls.ca_file,
            "agent": self._configuration.agent_server.tls.client_ca_file,
        }
        changed = []
        for name, path in files.items():
            text = authorities[name]
            if path.read_text(encoding="ascii", errors="replace") != text:
                write_whole(path, text, _AUTHORITY_MODE)
                _logger.info("%s: the %s authorities have changed", path, name)
                changed.append(name)
        if changed:
            self._read_again()
        return changed

    def _read_again(self) -> None:
        for_agents, for_enrolling = server_context(self._configuration), enrolment_context(self._configuration)
        self.for_backend.change(client_context(self._configuration))
        self.for_agents.change(for_agents)
        self.for_enrolling.change(for_enrolling)


def _pairs(configuration: Configuration) -> list[Pair]:
    """One pair of files for both links, usually; each may have its own."""
    server, client = configuration.agent_server.tls, configuration.backend_connection.tls
    pairs = (Pair(each.cert_file, each.key_file) for each in (server, client))
    return list(dict.fromkeys(pairs))
