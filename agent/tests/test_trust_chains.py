"""Certificates that somebody gives us as ours, or as those to trust, each wrong in one way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import InvalidIdentityError
from opsmap_protocol.identity import Identity
from opsmap_trust import apart
from opsmap_trust.certificates import encode_certificate, inspect_certificate, read_authorities
from opsmap_trust.chains import accept_chain, read_root
from opsmap_trust.requests import new_key
from opsmap_trust.revocations import inspect_revocations
from testing_pki import ORGANIZATION, OTHER_ORGANIZATION, Pki

URI = Identity(ORGANIZATION, PeerRole.AGENT, "srv-1").uri


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Another installation, with the same names."""
    return Pki(tmp_path_factory.mktemp("stranger"))


@dataclass
class Offer:
    pki: Pki
    stranger: Pki
    csr: str

    def chain(self, uri: str = URI, **times: timedelta) -> list[str]:
        return self.pki.issue(self.pki.agent_ca, uri, self.csr, **times)


WRONG: dict[str, tuple[Callable[[Offer], list[str]], str]] = {
    "another agent": (lambda o: o.chain(Identity(ORGANIZATION, PeerRole.AGENT, "srv-2").uri), "srv-2, not of"),
    "another organization": (lambda o: o.chain(Identity(OTHER_ORGANIZATION, PeerRole.AGENT, "srv-1").uri), "not of"),
    "another role": (lambda o: o.chain(Identity(ORGANIZATION, PeerRole.GATEWAY, "srv-1").uri), "gateway/srv-1, not of"),
    "another key": (lambda o: o.pki.issue(o.pki.agent_ca, URI, new_key("ed25519").request), "for another key"),
    "another root": (lambda o: o.stranger.issue(o.stranger.agent_ca, URI, o.csr), "no authority below the known root"),
    "not yet valid": (lambda o: o.chain(begins=timedelta(hours=1)), "clock, which is suspicious"),
    "expired": (lambda o: o.chain(begins=-timedelta(days=2)), "clock, which is suspicious"),
    "no authority in between": (lambda o: o.chain()[:1] * 2, "not issued by the next one"),
    "no chain": (lambda o: o.chain()[:1], "the chain has 1 certificates"),
    "empty": (lambda o: [], "the chain has 0 certificates"),
    "no certificates": (lambda o: ["AAAA", "<h1>"], "not a certificate"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_certificate_is_refused(case: str, pki: Pki, stranger: Pki) -> None:
    new = new_key("ed25519")
    make, complaint = WRONG[case]
    with pytest.raises(InvalidIdentityError, match=complaint):
        accept_chain(
            make(Offer(pki, stranger, new.request)),
            new.key,
            uri=URI,
            root=read_root(pki.root.ca),
            authorities={},
        )


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
async def test_right_certificate_is_accepted_by_the_child(pki: Pki, kind: apart.KeyKind) -> None:
    new = await apart.make_key(kind)
    offered = {"backend": [encode_certificate(pki.backend_ca.certificate)]}
    chain = pki.issue(pki.agent_ca, URI, new.request)
    accepted = await apart.accept_chain(chain=chain, key=new.key, uri=URI, root=pki.root.ca, authorities=offered)
    assert accepted.uri == URI
    assert accepted.chain.count("BEGIN CERTIFICATE") == 2
    assert accepted.authorities == {"backend": pki.backend_ca.ca.read_text()}
    assert accepted.not_before < datetime.now(UTC) < accepted.not_after


@pytest.mark.parametrize(
    ("authorities", "complaint"),
    [
        (lambda pki, other: [other.backend_ca.certificate], "no authority below the known root"),
        (lambda pki, other: [pki.backend_ca.certificate, other.backend_ca.certificate], "no authority below"),
        (lambda pki, other: [pki.backend().certificate], "no authority below the known root"),
        (lambda pki, other: [], "0 backend authorities"),
        (lambda pki, other: [pki.backend_ca.certificate] * 17, "17 backend authorities"),
    ],
)
async def test_wrong_authorities_are_refused(
    pki: Pki, stranger: Pki, authorities: Callable[[Pki, Pki], list[Any]], complaint: str
) -> None:
    offered = {"backend": [encode_certificate(each) for each in authorities(pki, stranger)]}
    named = encode_certificate(pki.root.certificate)
    with pytest.raises(InvalidIdentityError, match=complaint):
        await apart.check_authorities(root=pki.root.ca, named=named, authorities=offered)


async def test_another_root_by_name_is_refused(pki: Pki, stranger: Pki) -> None:
    named = encode_certificate(stranger.root.certificate)
    with pytest.raises(InvalidIdentityError, match="the root is another one"):
        await apart.check_authorities(root=pki.root.ca, named=named, authorities={})


def test_revocation_list_names_what_its_authority_issued(pki: Pki) -> None:
    authorities = read_authorities(pki.backend_ca.ca)
    found = inspect_revocations(pki.revocations(pki.backend_ca, 7, pki.signer()), authorities)
    certified = inspect_certificate(pki.signer().encoded(), authorities)
    assert found.number == 7
    assert (found.authority, {certified.serial}) == (certified.authority, found.serials)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda pki, other: other.revocations(other.backend_ca, 1), "not signed by the expected authority"),
        (lambda pki, other: pki.revocations(pki.gateway_ca, 1), "not signed by the expected authority"),
        (lambda pki, other: "AAAA", "not a revocation list"),
        (lambda pki, other: "<h1>" * 1000, "not a revocation list"),
    ],
)
async def test_wrong_revocation_list_is_refused(
    pki: Pki, stranger: Pki, make: Callable[[Pki, Pki], str], complaint: str
) -> None:
    with pytest.raises(InvalidIdentityError, match=complaint):
        await apart.inspect_revocations(make(pki, stranger), pki.backend_ca.ca)


def test_nothing_that_daemons_load_loads_openssl() -> None:
    """9 MB that an agent of 40 has no room for."""
    code = (
        "import sys, opsmap_agent.cli, opsmap_gateway.cli\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'cryptography'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
