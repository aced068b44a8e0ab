"""The gateway's certificates: that they can be used, that they say who the configuration says we are."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Literal

from opsmap_daemon import tls
from opsmap_daemon.configuration import ConfigurationError
from opsmap_gateway.configuration import Configuration
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import InvalidIdentityError
from opsmap_protocol.identity import Identity, identity_of_peer, is_backend


def own_identity(configuration: Configuration) -> Identity:
    """Who we are: the same in the certificates of both links and in the configuration.

    Raises:
        ConfigurationError: with every fault.
    """
    server, client = configuration.agent_server.tls, configuration.backend_connection.tls
    identities: list[Identity] = []
    faults: list[str] = []
    _check(server.cert_file, server.key_file, "server", configuration.gateway.id, identities, faults)
    _check(client.cert_file, client.key_file, "client", configuration.gateway.id, identities, faults)
    if len({identity.organization_id for identity in identities}) > 1:
        faults.append(f"{server.cert_file} and {client.cert_file} belong to different organizations")
    if faults:
        raise ConfigurationError(faults)
    return identities[0]


def _check(
    cert: Path,
    key: Path,
    role: Literal["server", "client"],
    gateway_id: str,
    identities: list[Identity],
    faults: list[str],
) -> None:
    try:
        identity = identity_of_peer(tls.own_certificate(cert, key, role), PeerRole.GATEWAY)
    except tls.TlsError as error:
        faults.append(str(error))
    except InvalidIdentityError as error:
        faults.append(f"{cert}: {error}")
    else:
        identities.append(identity)
        if identity.name != gateway_id:
            faults.append(f"{cert}: is the certificate of {identity.name}, but gateway.id is {gateway_id}")


def own_validity(configuration: Configuration) -> tls.Validity:
    """From when to when our certificate is valid: that of the link that ends first. Raises ConfigurationError."""
    server, client = configuration.agent_server.tls, configuration.backend_connection.tls
    try:
        found = [
            tls.validity(tls.own_certificate(server.cert_file, server.key_file, "server")),
            tls.validity(tls.own_certificate(client.cert_file, client.key_file, "client")),
        ]
    except tls.TlsError as error:
        raise ConfigurationError([str(error)]) from None
    return min(found, key=lambda each: each.ends)


def enrolment_context(configuration: Configuration) -> ssl.SSLContext:
    """For the door of those who have no certificate yet. Raises ConfigurationError."""
    files = configuration.agent_server.tls
    try:
        return tls.open_server_context(files.cert_file, files.key_file, files.min_version)
    except tls.TlsError as error:
        raise ConfigurationError([str(error)]) from None


def server_context(configuration: Configuration) -> ssl.SSLContext:
    """For the agents' side. Raises ConfigurationError."""
    files = configuration.agent_server.tls
    try:
        return tls.server_context(files.cert_file, files.key_file, files.client_ca_file, files.min_version)
    except tls.TlsError as error:
        raise ConfigurationError([str(error)]) from None


def client_context(configuration: Configuration) -> ssl.SSLContext:
    """For the backend's side. Raises ConfigurationError."""
    files = configuration.backend_connection.tls
    try:
        return tls.client_context(
            files.cert_file, files.key_file, files.ca_file, files.verify_hostname, files.min_version
        )
    except tls.TlsError as error:
        raise ConfigurationError([str(error)]) from None


def verify_backend(certificate: dict[str, Any]) -> None:
    """Whom the Backend CA signed must also be the backend. Raises InvalidIdentityError."""
    if not is_backend(certificate):
        raise InvalidIdentityError("its certificate is not the backend's")
