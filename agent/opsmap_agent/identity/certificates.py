"""The agent's certificate: that it can be used, and that it says who the configuration says we are."""

from __future__ import annotations

import ssl

from opsmap_agent.configuration import Configuration, Tls
from opsmap_daemon import tls
from opsmap_daemon.configuration import ConfigurationError
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import InvalidIdentityError
from opsmap_protocol.identity import Identity, identity_of_peer


def own_identity(configuration: Configuration) -> Identity:
    """Who we are, by our certificate. Raises ConfigurationError."""
    files = configuration.tls
    try:
        identity = identity_of_peer(tls.own_certificate(files.cert_file, files.key_file, "client"), PeerRole.AGENT)
    except tls.TlsError as error:
        raise ConfigurationError([str(error)]) from None
    except InvalidIdentityError as error:
        raise ConfigurationError([f"{files.cert_file}: {error}"]) from None
    if configuration.agent.id not in ("", identity.name):
        fault = f"{files.cert_file}: is the certificate of {identity.name}, but agent.id is {configuration.agent.id}"
        raise ConfigurationError([fault])
    return identity


def own_validity(files: Tls) -> tls.Validity:
    """From when to when our certificate is valid. Raises ConfigurationError."""
    try:
        return tls.validity(tls.own_certificate(files.cert_file, files.key_file, "client"))
    except tls.TlsError as error:
        raise ConfigurationError([str(error)]) from None


def client_context(configuration: Configuration) -> ssl.SSLContext:
    """For the connection to the gateway. Raises ConfigurationError."""
    files = configuration.tls
    try:
        return tls.client_context(
            files.cert_file, files.key_file, files.ca_file, files.verify_hostname, files.min_version, files.max_version
        )
    except tls.TlsError as error:
        raise ConfigurationError([str(error)]) from None
