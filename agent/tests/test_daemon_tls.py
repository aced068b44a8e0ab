"""Contexts and certificates; that handshakes are refused is shown with real sockets in the tests of the links."""

from __future__ import annotations

import asyncio.sslproto
import ssl
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from opsmap_daemon import tls

if TYPE_CHECKING:
    from conftest import Pki

Role = Literal["server", "client"]


@pytest.mark.parametrize("role", ["server", "client"])
def test_own_certificate_is_decoded(pki: Pki, role: Role) -> None:
    leaf = pki.agent("srv-1")
    names = tls.own_certificate(leaf.cert, leaf.key, role)["subjectAltName"]
    assert ("URI", "spiffe://opsmap/org/11111111-1111-4111-8111-111111111111/agent/srv-1") in names


def test_key_of_another_certificate_is_a_fault(pki: Pki) -> None:
    leaf = replace(pki.agent("srv-1"), key=pki.agent("srv-2").key)
    with pytest.raises(tls.TlsError, match="not a certificate with the key"):
        tls.own_certificate(leaf.cert, leaf.key, "client")


def test_expired_certificate_is_a_fault(pki: Pki) -> None:
    leaf = pki.expired("srv-9")
    with pytest.raises(tls.TlsError, match="cannot be used as a client's certificate: certificate has expired"):
        tls.own_certificate(leaf.cert, leaf.key, "client")


def test_missing_and_broken_files_are_named(pki: Pki, tmp_path: Path) -> None:
    leaf, broken = pki.agent("srv-1"), tmp_path / "broken.crt"
    broken.write_text("no certificate")
    with pytest.raises(tls.TlsError, match=r"absent\.crt: cannot be read: No such file or directory"):
        tls.client_context(tmp_path / "absent.crt", leaf.key, pki.gateway_ca.ca)
    with pytest.raises(tls.TlsError, match=r"broken\.crt: not a certificate with the key"):
        tls.server_context(broken, leaf.key, pki.gateway_ca.ca)
    with pytest.raises(tls.TlsError, match=r"broken\.crt: not a file of CA certificates"):
        tls.client_context(leaf.cert, leaf.key, broken)


def test_contexts_insist_on_certificates_and_versions(pki: Pki) -> None:
    leaf = pki.agent("srv-1")
    client = tls.client_context(leaf.cert, leaf.key, pki.gateway_ca.ca, min_version="1.3")
    server = tls.server_context(leaf.cert, leaf.key, pki.gateway_ca.ca)
    relaxed = tls.client_context(leaf.cert, leaf.key, pki.gateway_ca.ca, verify_hostname=False)
    assert client.verify_mode == server.verify_mode == relaxed.verify_mode == ssl.CERT_REQUIRED
    assert client.check_hostname
    assert not relaxed.check_hostname
    assert client.minimum_version == ssl.TLSVersion.TLSv1_3
    assert server.minimum_version == ssl.TLSVersion.TLSv1_2


def test_read_buffer_is_small() -> None:
    tls.limit_read_buffer()
    assert asyncio.sslproto.SSLProtocol.max_size == 16 * 1024
