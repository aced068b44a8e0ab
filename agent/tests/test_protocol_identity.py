"""Whose certificate it is."""

from __future__ import annotations

from typing import Any

import pytest

from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import InvalidIdentityError
from opsmap_protocol.identity import BACKEND_URI, Identity, identity_of_peer, is_backend, parse_identity

ORGANIZATION = "0f8fad5b-d9cb-469f-a165-70867728950e"
AGENT = Identity(ORGANIZATION, PeerRole.AGENT, "srv-1.example_x")


def certificate(*names: tuple[str, str]) -> dict[str, Any]:
    """As `getpeercert()` gives it; the common name says something else on purpose."""
    return {"subject": ((("commonName", "somebody else"),),), "subjectAltName": names}


@pytest.mark.parametrize("role", [PeerRole.AGENT, PeerRole.GATEWAY])
@pytest.mark.parametrize("name", ["a", "srv-1", "A.b_c-9", "9", "a" * 127])
def test_uri_and_identity_are_the_same(role: PeerRole, name: str) -> None:
    identity = Identity(ORGANIZATION, role, name)
    assert parse_identity(identity.uri) == identity


@pytest.mark.parametrize(
    "uri",
    [
        "",
        BACKEND_URI,
        f"spiffe://opsmap/org/{ORGANIZATION}/backend/b",
        f"spiffe://opsmap/org/{ORGANIZATION}/agent/",
        f"spiffe://opsmap/org/{ORGANIZATION}/agent/-a",
        f"spiffe://opsmap/org/{ORGANIZATION}/agent/a/b",
        f"spiffe://opsmap/org/{ORGANIZATION}/agent/a\n",
        f" spiffe://opsmap/org/{ORGANIZATION}/agent/a",
        f"spiffe://opsmap/org/{ORGANIZATION}/agent/é",
        f"spiffe://opsmap/org/{ORGANIZATION}/agent/" + "a" * 128,
        f"spiffe://opsmap/org/{ORGANIZATION.upper()}/agent/a",
        "spiffe://opsmap/org/0f8fad5b/agent/a",
        f"spiffe://opsmap.example/org/{ORGANIZATION}/agent/a",
        f"https://opsmap/org/{ORGANIZATION}/agent/a",
    ],
)
def test_anything_but_the_exact_form_is_refused(uri: str) -> None:
    with pytest.raises(InvalidIdentityError):
        parse_identity(uri)


def test_identity_comes_from_the_one_uri() -> None:
    names = [("DNS", "localhost"), ("URI", AGENT.uri), ("IP Address", "127.0.0.1")]
    assert identity_of_peer(certificate(*names), PeerRole.AGENT) == AGENT


def test_role_is_checked() -> None:
    with pytest.raises(InvalidIdentityError, match=r"expected the certificate of an? gateway, found one of an? agent"):
        identity_of_peer(certificate(("URI", AGENT.uri)), PeerRole.GATEWAY)


@pytest.mark.parametrize(
    "names",
    [(), (("DNS", AGENT.uri),), (("URI", AGENT.uri), ("URI", "https://example.org"))],
    ids=["no name", "no URI", "two URIs"],
)
def test_exactly_one_uri_is_expected(names: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(InvalidIdentityError, match="exactly one URI"):
        identity_of_peer(certificate(*names), PeerRole.AGENT)


def test_certificate_without_names_is_nobody() -> None:
    with pytest.raises(InvalidIdentityError):
        identity_of_peer({}, PeerRole.AGENT)
    assert not is_backend({})


def test_backend_is_known_by_its_uri_alone() -> None:
    assert is_backend(certificate(("DNS", "x"), ("URI", BACKEND_URI)))
    assert not is_backend(certificate(("DNS", BACKEND_URI)))
    assert not is_backend(certificate(("URI", BACKEND_URI + "/x")))
