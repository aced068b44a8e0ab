"""A small PKI as a real installation has it: a root, its three intermediates, and whatever leaf a test asks for."""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import BACKEND_SIGNER_URI, BACKEND_URI, Identity
from opsmap_trust.certificates import encode_certificate
from opsmap_trust.keys import SealingKey, VerifyingKey
from opsmap_trust.seals import Sealer

ORGANIZATION = "11111111-1111-4111-8111-111111111111"
OTHER_ORGANIZATION = "22222222-2222-4222-8222-222222222222"


@dataclass(frozen=True)
class Leaf:
    """The files of one certificate: `cert` holds the leaf and its intermediate."""

    cert: Path
    key: Path

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.cert.read_bytes())

    def encoded(self) -> str:
        """The certificate as it travels in messages."""
        return encode_certificate(self.certificate)

    def verifying_key(self) -> VerifyingKey:
        """For what an agent with this certificate seals."""
        return VerifyingKey(SealingKey.read(self.key, "agent").public_bytes, "agent")

    def sealer(self, purpose: str, organization: str = ORGANIZATION) -> Sealer:
        """Seals with this leaf's key; `purpose` is "backend", then for the agents of `organization`, or "agent"."""
        key = SealingKey.read(self.key, purpose)
        key_id = self.certificate.fingerprint(hashes.SHA256()).hex()
        return Sealer(key, key_id, organization if purpose == "backend" else "")


@dataclass
class Branch:
    """One intermediate of the PKI and the file a daemon trusts it by."""

    name: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    ca: Path


@dataclass
class Pki:
    """A root with the three intermediates of a real installation, made once for all tests."""

    folder: Path
    _leaves: dict[tuple[str, str], Leaf] = field(default_factory=dict)

    @cached_property
    def root(self) -> Branch:
        return self._branch("root", None)

    @cached_property
    def backend_ca(self) -> Branch:
        return self._branch("backend", self.root)

    @cached_property
    def gateway_ca(self) -> Branch:
        return self._branch("gateway", self.root)

    @cached_property
    def agent_ca(self) -> Branch:
        return self._branch("agent", self.root)

    def backend(self) -> Leaf:
        return self.leaf(self.backend_ca, BACKEND_URI)

    def signer(self) -> Leaf:
        """The key that the backend seals with."""
        return self.leaf(self.backend_ca, BACKEND_SIGNER_URI, seals=True)

    def gateway(self, name: str, organization: str = ORGANIZATION) -> Leaf:
        return self.leaf(self.gateway_ca, Identity(organization, PeerRole.GATEWAY, name).uri)

    def agent(self, name: str, organization: str = ORGANIZATION) -> Leaf:
        return self.leaf(self.agent_ca, Identity(organization, PeerRole.AGENT, name).uri, seals=True)

    def expired(self, name: str) -> Leaf:
        """The certificate of an agent that was renewed too late."""
        uri = Identity(ORGANIZATION, PeerRole.AGENT, name).uri
        return self._write_leaf(self.agent_ca, uri, datetime.now(UTC) - timedelta(minutes=1), seals=True)

    def copy_of(self, leaf: Leaf, folder: Path) -> Leaf:
        """The same certificate in files of its own, that may be replaced."""
        copied = Leaf(folder / leaf.cert.name, folder / leaf.key.name)
        copied.cert.write_bytes(leaf.cert.read_bytes())
        copied.key.write_bytes(leaf.key.read_bytes())
        return copied

    def issue(
        self,
        branch: Branch,
        uri: str,
        request: str,
        *,
        life: timedelta = timedelta(days=1),
        begins: timedelta = -timedelta(minutes=1),
    ) -> list[str]:
        """What the backend answers to a CSR (DER in base64): the chain, from `begins` after now on."""
        csr = x509.load_der_x509_csr(base64.b64decode(request))
        assert csr.is_signature_valid
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")]))
            .issuer_name(branch.certificate.subject)
            .public_key(csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) + begins)
            .not_valid_after(datetime.now(UTC) + begins + life)
            .add_extension(_names(uri), critical=False)
            .add_extension(x509.ExtendedKeyUsage(_TLS_USES), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_SIGNS, critical=True)
            .sign(branch.key, hashes.SHA256())
        )
        return [encode_certificate(each) for each in (certificate, branch.certificate)]

    def revocations(self, branch: Branch, number: int, *revoked: Leaf) -> str:
        """A revocation list of that branch, as it travels in `trust`."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(branch.certificate.subject)
            .last_update(now)
            .next_update(now + timedelta(days=1))
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for leaf in revoked:
            entry = x509.RevokedCertificateBuilder(leaf.certificate.serial_number, now, [])
            builder = builder.add_revoked_certificate(entry.build())
        crl = builder.sign(branch.key, hashes.SHA256())
        return base64.b64encode(crl.public_bytes(serialization.Encoding.DER)).decode()

    def leaf(self, branch: Branch, uri: str, *, seals: bool = False) -> Leaf:
        """A certificate for localhost with that identity, valid for both ends of a link; with `seals` also for that."""
        if (branch.name, uri) not in self._leaves:
            until = datetime.now(UTC) + timedelta(days=1)
            self._leaves[branch.name, uri] = self._write_leaf(branch, uri, until, seals=seals)
        return self._leaves[branch.name, uri]

    def _write_leaf(self, branch: Branch, uri: str, until: datetime, *, seals: bool) -> Leaf:
        key = ed25519.Ed25519PrivateKey.generate() if seals else ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder("leaf", branch.certificate.subject, key.public_key())
            .not_valid_after(until)
            .add_extension(_names(uri), critical=False)
            .add_extension(x509.ExtendedKeyUsage(_TLS_USES), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_SIGNS, critical=True)
            .sign(branch.key, hashes.SHA256())
        )
        stem = f"leaf-{certificate.serial_number:x}"
        leaf = Leaf(self.folder / f"{stem}.crt", self.folder / f"{stem}.key")
        leaf.cert.write_bytes(_pem(certificate) + _pem(branch.certificate))
        leaf.key.touch(mode=0o600)
        leaf.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return leaf

    def _branch(self, name: str, parent: Branch | None) -> Branch:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = parent.certificate.subject if parent else subject
        certificate = (
            _builder(name, issuer, key.public_key())
            .not_valid_after(datetime.now(UTC) + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(parent.key if parent else key, hashes.SHA256())
        )
        ca = self.folder / f"{name}-ca.crt"
        ca.write_bytes(_pem(certificate))
        return Branch(name, certificate, key, ca)


_TLS_USES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


def _names(uri: str) -> x509.SubjectAlternativeName:
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName("localhost"), address])


_SIGNS = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def _builder(
    name: str, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
