"""The root's key: encrypted by a passphrase, and away from every machine but when an intermediate is signed.

PKCS #8 (PBES2, RFC 8018) with scrypt (RFC 7914) and AES-256-CBC, as `openssl pkey` reads it. `cryptography` reads this
but writes PBKDF2 with 2,048 rounds, which a stolen file would not withstand.
"""

from __future__ import annotations

import base64
import os
import textwrap
from hashlib import scrypt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import padding, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from apps.gateways.exceptions import PkiError
from apps.gateways.pki.files import write_file

MIN_PASSPHRASE_LENGTH = 12

# 16 MiB and some tenths of a second a guess (OWASP's second choice): OpenSSL reads no file that asks for more memory.
_COST, _BLOCK_SIZE = 2**14, 8
_FOR_PEOPLE, _FOR_RANDOM = 5, 1

_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")


def write_root_key(path: Path, key: ec.EllipticCurvePrivateKey, passphrase: str, *, is_random: bool = False) -> None:
    """With `is_random`, nobody can guess the passphrase anyway, and opening the key need not take long."""
    plain = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_file(
        path, _as_pem(_encrypt(plain, passphrase.encode(), _FOR_RANDOM if is_random else _FOR_PEOPLE)), mode=0o600
    )


def read_root_key(path: Path, passphrase: str | None, certificate: x509.Certificate) -> ec.EllipticCurvePrivateKey:
    """The key of the root `certificate`. Without a passphrase: of a development PKI of before, which had none.

    Raises:
        PkiError: there is none, the passphrase is wrong, or it is the key of something else.
    """
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise PkiError(f"The root key {path} cannot be read: {error.strerror}.") from None
    try:
        key = serialization.load_pem_private_key(pem, password=passphrase.encode() if passphrase else None)
    except TypeError:
        needs = "is encrypted: its passphrase is needed" if passphrase is None else "has no passphrase"
        raise PkiError(f"The root key {path} {needs}.") from None
    except ValueError:
        raise PkiError(f"The root key {path} cannot be opened: a wrong passphrase, or no key.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise PkiError(f"{path} is not the key of this installation's root certificate.")
    return key


def is_encrypted(path: Path) -> bool:
    return b"ENCRYPTED" in path.read_bytes()


def check_passphrase(passphrase: str) -> None:
    """Raises PkiError if it is too short to protect anything."""
    if len(passphrase) < MIN_PASSPHRASE_LENGTH:
        raise PkiError(f"The passphrase of the root key has to have at least {MIN_PASSPHRASE_LENGTH} characters.")


def _encrypt(plain: bytes, passphrase: bytes, parallel: int) -> bytes:
    salt, vector = os.urandom(16), os.urandom(16)
    key = scrypt(passphrase, salt=salt, n=_COST, r=_BLOCK_SIZE, p=parallel, dklen=32)
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(vector)).encryptor()
    encrypted = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    derivation = _sequence(_octets(salt), _integer(_COST), _integer(_BLOCK_SIZE), _integer(parallel))
    scheme = _sequence(_sequence(_SCRYPT, derivation), _sequence(_AES_256_CBC, _octets(vector)))
    return _sequence(_sequence(_PBES2, scheme), _octets(encrypted))


def _as_pem(der: bytes) -> bytes:
    lines = textwrap.wrap(base64.b64encode(der).decode("ascii"), 64)
    return "\n".join(
        ["-----BEGIN ENCRYPTED PRIVATE KEY-----", *lines, "-----END ENCRYPTED PRIVATE KEY-----", ""]
    ).encode()


# DER (X.690), as much as the above needs


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _sequence(*elements: bytes) -> bytes:
    return _element(0x30, b"".join(elements))


def _octets(content: bytes) -> bytes:
    return _element(0x04, content)


def _integer(number: int) -> bytes:
    """Not negative."""
    return _element(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))
