"""What certificates say: names, fingerprints, what a key may be used for, and whom a peer's certificate belongs to."""

from __future__ import annotations

import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from apps.gateways.exceptions import LinkRefusedError
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import InvalidIdentityError
from opsmap_protocol.identity import Identity, parse_identity


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256, hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def subject_name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "OpsMap"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )


def common_name(certificate: x509.Certificate) -> str:
    """For people; nothing is decided by it but the order of our own intermediates."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def host_names(hosts: list[str]) -> list[x509.GeneralName]:
    """Where a leaf may be a server: addresses, and names."""
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def uris_of(certificate: x509.Certificate) -> list[str]:
    names = _alternative_names(certificate)
    return names.get_values_for_type(x509.UniformResourceIdentifier) if names else []


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """Where a leaf may be a server, as `issue` takes them."""
    names = _alternative_names(certificate)
    if names is None:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def gateway_of_peer(pem: str) -> tuple[Identity, x509.Certificate]:
    """Who a verified client certificate belongs to, and the certificate.

    Raises:
        LinkRefusedError: not the certificate of a gateway.
    """
    certificate = x509.load_pem_x509_certificate(pem.encode())
    uris = uris_of(certificate)
    try:
        if len(uris) != 1:
            raise InvalidIdentityError(f"expected one URI name, found {len(uris)}")
        identity = parse_identity(uris[0])
    except InvalidIdentityError as error:
        raise LinkRefusedError(str(error)) from None
    if identity.role is not PeerRole.GATEWAY:
        raise LinkRefusedError(f"expected a gateway, found the {identity.role} {identity.name}")
    return identity, certificate
