"""The next certificate, asked for in a session: for oneself only, with a new key, and the old one serves meanwhile."""

from __future__ import annotations

import binascii
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from apps.audit.models import AuditEvent
from apps.gateways.actions.authorities import activate_authority, retire_authority, revoke_signing_key, rotate_authority
from apps.gateways.actions.renewal import MAX_IN_A_WINDOW
from apps.gateways.models import Certificate, Gateway
from apps.gateways.pki import ensure_authorities, fingerprint
from apps.gateways.pki.anchors import current_anchors
from apps.gateways.pki.naming import hosts_of, uris_of
from apps.gateways.tests.factories import SYSTEM, queue
from apps.gateways.tests.requests import certificate_in, new_key, request_for
from apps.gateways.tests.sockets import (
    Communicator,
    LinkedAgent,
    LinkPki,
    close_code,
    connected,
    hear,
    hear_nothing,
    in_database,
    link,
    say,
)
from conftest import Cast
from opsmap_protocol import messages
from opsmap_protocol.enums import PeerRole
from opsmap_trust.keys import SealingKey
from opsmap_trust.seals import Sealer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def agent(cast: Cast, pki: LinkPki) -> LinkedAgent:
    return LinkedAgent(pki, cast.acme.pk)


def wish(agent: LinkedAgent, key: Any, **changes: Any) -> str:
    fields = {"agent_id": agent.agent_id, "token": agent.token, "csr": request_for(key)} | changes
    return agent.seal(messages.RenewCertificate(**fields))


def as_pem(encoded: str) -> str:
    return certificate_in(encoded).public_bytes(Encoding.PEM).decode()


async def test_an_agent_gets_its_next_certificate_by_its_seal(
    gateway_pem: str, agent: LinkedAgent, tmp_path: Path
) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        key = new_key()
        await say(communicator, wish(agent, key))
        answer = await hear(communicator, "certificate_renewed")
        agent.pki.check_backend_seal(answer, agent.organization_id, agent.trusted)
        leaf = certificate_in(answer["certificate"][0])
        assert leaf.public_key() == key.public_key()
        assert uris_of(leaf) == uris_of(agent.certificate)
        assert hosts_of(leaf) == hosts_of(agent.certificate)
        anchors = current_anchors(agent.pki.folder)
        assert answer["gateway_authorities"] == anchors.gateway
        assert answer["backend_authorities"] == anchors.backend
        # By the new one it comes in; until then the session goes on by the old one.
        renewed = agent.twin(certificate=leaf, sealer=Sealer(_sealing_key(key, tmp_path), fingerprint(leaf)))
        await renewed.come_in(communicator)
    rows = await in_database(
        lambda: set(Certificate.objects.filter(name="srv-1").values_list("fingerprint", flat=True))
    )
    assert rows == {fingerprint(agent.certificate), fingerprint(leaf)}
    [event] = await in_database(lambda: list(AuditEvent.objects.filter(action="agent.certificate_renewed")))
    assert event.details["formerSha256"] == fingerprint(agent.certificate)


def _sealing_key(key: Any, folder: Path) -> SealingKey:
    path = folder / "new.key"
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return SealingKey.read(path, "agent")


async def test_an_agent_gets_none_for_another_or_without_its_seal(gateway_pem: str, agent: LinkedAgent) -> None:
    other = LinkedAgent(agent.pki, agent.organization_id, "srv-2")
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        await other.come_in(communicator)
        await say(
            communicator,
            wish(agent, new_key(), agent_id="srv-2", token=other.token),
            wish(agent, new_key(), token="of another session"),
            wish(agent, new_key(), agent_id="srv-3"),
            messages.RenewCertificate("srv-1", agent.token, request_for(new_key())),
        )
        await hear_nothing(communicator, "certificate_renewed")
        await say(communicator, wish(agent, new_key()))
        await hear(communicator, "certificate_renewed")
    assert await in_database(Certificate.objects.filter(name="srv-2").count) == 1


@pytest.mark.parametrize("kind", ["nonsense", "present key", "other kind"])
async def test_a_request_that_will_not_do_is_answered_under_seal(
    gateway_pem: str, agent: LinkedAgent, kind: str
) -> None:
    path = max((agent.pki.folder / "leaf").glob("leaf-*.key"), key=lambda found: found.stat().st_mtime_ns)
    csr = {
        "nonsense": "bm90aGluZw==",
        "present key": request_for(load_pem_private_key(path.read_bytes(), None)),
        "other kind": request_for(new_key(seals=False)),
    }[kind]
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        await say(communicator, agent.seal(messages.RenewCertificate("srv-1", agent.token, csr)))
        answer = await hear(communicator, "certificate_refused")
        agent.pki.check_backend_seal(answer, agent.organization_id, agent.trusted)
        assert answer["code"] == "bad_request"


async def test_who_asks_again_and_again_is_told_to_wait(gateway_pem: str, agent: LinkedAgent) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)
        # The one that it came with counts too.
        for _ in range(MAX_IN_A_WINDOW - 1):
            await say(communicator, wish(agent, new_key()))
            await hear(communicator, "certificate_renewed")
        await say(communicator, wish(agent, new_key()))
        assert (await hear(communicator, "certificate_refused"))["code"] == "too_many"


async def test_a_gateway_gets_its_next_certificate_and_both_serve(gateway_pem: str, settings: Any) -> None:
    settings.CERTIFICATE_LIFE = timedelta(seconds=60)
    key = new_key(seals=False)
    async with connected(gateway_pem) as former:
        await say(former, messages.RenewGateway("gw-1", request_for(key)))
        chain = (await hear(former, "gateway_renewed"))["certificate"]
        leaf = certificate_in(chain[0])
        assert leaf.public_key() == key.public_key()
        assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(seconds=65)
        async with connected(as_pem(chain[0])):
            shown = await in_database(lambda: Gateway.objects.get().certificate_sha256)
            assert shown == fingerprint(leaf)
    # The connection by the former one may come again until it ends.
    async with connected(gateway_pem):
        pass


async def test_a_revoked_certificate_is_not_renewed(gateway_pem: str, agent: LinkedAgent) -> None:
    async with connected(gateway_pem) as communicator:
        await agent.come_in(communicator)

        def revoke_only_the_record() -> None:
            Certificate.objects.filter(name="srv-1").update(revoked_at="2020-01-01T00:00Z")

        await in_database(revoke_only_the_record)
        await say(communicator, wish(agent, new_key()))
        assert (await hear(communicator, "certificate_refused"))["code"] == "revoked"


async def test_a_certificate_that_was_never_issued_for_a_gateway_is_not_its_own(
    gateway_pem: str, cast: Cast, pki: LinkPki
) -> None:
    """The right authority, the right organization, and never issued for this gateway by us."""
    unknown = await in_database(lambda: pki.gateway_pem(cast.acme, "gw-1", is_registered=False))
    communicator = link(unknown)
    await communicator.connect(timeout=5)
    assert await close_code(communicator) == 4401
    assert not await in_database(Certificate.objects.exists)


# Whom to trust, as it changes


@pytest.fixture
def own_pki(tmp_path: Path, settings: Any) -> LinkPki:
    """One that may be changed: the others' tests share theirs."""
    settings.PKI_DIR = tmp_path / "pki"
    return LinkPki.make(tmp_path / "pki")


async def test_a_gateway_hears_whom_to_trust_at_first_and_whenever_that_changes(cast: Cast, own_pki: LinkPki) -> None:
    pem = await in_database(own_pki.gateway_pem, cast.acme)
    ca = own_pki.folder / "ca"

    def rotate() -> None:
        passphrase = (ca / "root.passphrase").read_text().strip()
        rotate_authority(
            folder=own_pki.folder, role=PeerRole.AGENT, root_key=ca / "root.key", passphrase=passphrase, actor=SYSTEM
        )

    async with connected(pem) as communicator:
        first = await hear(communicator, "authorities")
        assert (len(first["agent"]), first["root"]) == (1, current_anchors(own_pki.folder).root)
        await hear_nothing(communicator, "authorities", for_s=1.2)
        await in_database(rotate)
        second = await hear(communicator, "authorities")
        assert second["agent"][0] == first["agent"][0]
        assert len(second["agent"]) == 2
        # Both kinds of agents come in while both are trusted.
        old = await in_database(LinkedAgent, own_pki, cast.acme.pk, "srv-old")
        await in_database(lambda: activate_authority(folder=own_pki.folder, role=PeerRole.AGENT, actor=SYSTEM))
        new = await in_database(LinkedAgent, own_pki, cast.acme.pk, "srv-new")
        third = await hear(communicator, "authorities")
        assert third["agent"] == second["agent"][::-1]
        await old.come_in(communicator)
        await new.come_in(communicator)
        await in_database(lambda: retire_authority(folder=own_pki.folder, role=PeerRole.AGENT, actor=SYSTEM))
        assert (await hear(communicator, "authorities"))["agent"] == second["agent"][1:]
        await say(communicator, old.online())
        await hear_nothing(communicator, "challenge")


async def test_a_stolen_signing_key_is_on_the_list_that_every_agent_gets(cast: Cast, own_pki: LinkPki) -> None:
    pem = await in_database(own_pki.gateway_pem, cast.acme)
    agent = await in_database(LinkedAgent, own_pki, cast.acme.pk)
    backend_ca = ensure_authorities(own_pki.folder / "ca")[PeerRole.BACKEND].certificate
    async with connected(pem) as communicator:
        await agent.come_in(communicator)
        [stolen] = map(certificate_in, agent.trusted)
        for number in (1, 2):
            await in_database(lambda: revoke_signing_key(folder=own_pki.folder, key_id="", actor=SYSTEM))
            trust, crl = await hear_list(communicator, number)
            assert crl.is_signature_valid(backend_ca.public_key())
            assert crl.get_revoked_certificate_by_serial_number(stolen.serial_number) is not None
            assert len(trust["certificates"]) == 1, "none of those that were revoked"
            assert certificate_in(trust["certificates"][0]) != stolen
        agent.trusted = trust["certificates"]
        command = await in_database(lambda: queue(agent.row))
        frame = await hear(communicator, "command")
        assert frame["request_id"] == str(command.pk)
        own_pki.check_backend_seal(frame, agent.organization_id, agent.trusted)


async def hear_list(communicator: Communicator, number: int) -> tuple[dict[str, Any], x509.CertificateRevocationList]:
    """The next `trust` with that revocation list: the new key may be told of first."""
    while True:
        trust = await hear(communicator, "trust", of="srv-1")
        if trust["crl"]:
            crl = x509.load_der_x509_crl(binascii.a2b_base64(trust["crl"]))
            if crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == number:
                return trust, crl
