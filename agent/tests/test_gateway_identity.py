"""A gateway's own certificate, whom it trusts and whom not any more: all of it changes while it runs."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from websockets.exceptions import ConnectionClosed, InvalidMessage

from opsmap_agent.agent import Agent
from opsmap_agent.configuration import Configuration as AgentConfiguration
from opsmap_daemon import tls
from opsmap_daemon.backoff import Reconnect
from opsmap_daemon.configuration import ConfigurationError
from opsmap_gateway.configuration import Configuration, Enrolment
from opsmap_gateway.gateway import Gateway
from opsmap_gateway.revoked import MAX_KNOWN, RevokedCertificates
from opsmap_protocol.codec import encode
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import Identity
from opsmap_protocol.messages import Authorities, GatewayRenewed, RenewalRefused, RevokeAgent, Trust
from opsmap_protocol.messages import GatewayRegistered as LinkRegistered
from opsmap_trust.certificates import encode_certificate
from opsmap_trust.requests import new_key
from testing_pki import ORGANIZATION, OTHER_ORGANIZATION, Leaf, Pki

if TYPE_CHECKING:
    from conftest import OpenZone, Wire, Zone

URI = Identity(ORGANIZATION, PeerRole.GATEWAY, "gw-1").uri


@pytest.fixture
def open_own(open_zone: OpenZone, gateway_configuration: Configuration, pki: Pki, tmp_path: Path) -> Any:
    """`async with open_own() as zone`: a gateway with files of its own, and the root that it knows."""
    leaf = pki.copy_of(pki.gateway("gw-1"), tmp_path)
    own: dict[str, Path] = {"cert_file": leaf.cert, "key_file": leaf.key}
    files = {"client_ca_file": tmp_path / "agent-ca.crt", "ca_file": tmp_path / "backend-ca.crt"}
    files["client_ca_file"].write_bytes(pki.agent_ca.ca.read_bytes())
    files["ca_file"].write_bytes(pki.backend_ca.ca.read_bytes())
    server, link = gateway_configuration.agent_server, gateway_configuration.backend_connection
    server = replace(server, tls=replace(server.tls, client_ca_file=files["client_ca_file"], **own))
    link = replace(link, tls=replace(link.tls, ca_file=files["ca_file"], root_ca_file=pki.root.ca, **own))
    object.__setattr__(gateway_configuration, "backend_connection", link)

    @asynccontextmanager
    async def open_() -> AsyncIterator[Zone]:
        async with open_zone(agent_server=server) as zone:
            yield zone

    return open_


@pytest.fixture
def is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_MIN_PAUSE_S", "_MAX_FIRST_PAUSE_S", "_MAX_PAUSE_S"):
        monkeypatch.setattr(f"opsmap_daemon.renewal.{name}", 0.05)
    monkeypatch.setattr("opsmap_daemon.renewal.DUE_SHARE", -1.0)
    monkeypatch.setattr("opsmap_gateway.backend_link._LEAVING_S", 0.2)


async def greet(link: Wire) -> None:
    await link.next("gateway_register")
    await link.send(LinkRegistered(session_id="link-2"))


@pytest.mark.usefixtures("is_due")
async def test_gateway_renews_and_makes_its_new_link_before_the_old_one_breaks(
    open_own: Any, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_own() as zone:
        old = zone.link
        request = await old.next("renew_gateway")
        chain = pki.issue(pki.gateway_ca, URI, request["csr"], begins=-timedelta(minutes=5))
        monkeypatch.setattr("opsmap_daemon.renewal.DUE_SHARE", 0.9)
        async with zone.dial(pki.agent("srv-1")) as agent:
            await agent.send(zone.registration("srv-1"))
            await agent.next("registered")
            await old.next("agent_online")
            await old.send(GatewayRenewed(chain))
            new = await zone.backend.accept()
            # Until the backend has taken the new one, the old one carries.
            assert zone.gateway.link.is_up
            await old.send(for_agent("srv-1"))
            await agent.next("trust")
            await greet(new)
            assert (await new.next("agent_online"))["agent"]["agent_id"] == "srv-1"
            assert new.socket.transport.get_extra_info("ssl_object").getpeercert(True) == der(chain[0])
            # The agents' side: the session stays, and whoever comes now sees the new certificate.
            async with zone.dial(pki.agent("srv-2")) as later:
                assert later.socket.transport.get_extra_info("ssl_object").getpeercert(True) == der(chain[0])
            await old.socket.wait_closed()
            await new.send(for_agent("srv-1"))
            await agent.next("trust")


def for_agent(agent_id: str) -> str:
    """Something of the backend that goes through to the agent."""
    return encode(Trust(agent_id, []))


def der(encoded: str) -> bytes:
    return base64.b64decode(encoded)


@pytest.mark.usefixtures("is_due")
async def test_refused_or_wrong_renewal_leaves_the_gateway_as_it_is(
    open_own: Any, pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_own() as zone:
        await zone.link.next("renew_gateway")
        await zone.link.send(RenewalRefused("revoked", "this gateway was revoked"))
        request = await zone.link.next("renew_gateway")
        other = Identity(ORGANIZATION, PeerRole.GATEWAY, "gw-2").uri
        await zone.link.send(GatewayRenewed(pki.issue(pki.gateway_ca, other, request["csr"])))
        await zone.link.next("renew_gateway")
        assert "this gateway was revoked (revoked)" in caplog.text
        assert "gateway/gw-2, not of" in caplog.text
        assert zone.gateway.link.is_up
        assert zone.gateway.credentials.validity.ends > zone.gateway.credentials.validity.begins


async def test_new_agent_authority_counts_at_once_and_a_dropped_one_no_more(
    open_own: Any, pki: Pki, tmp_path: Path
) -> None:
    (tmp_path / "next").mkdir()
    following = Pki(tmp_path / "next")
    following.__dict__["root"] = pki.root  # the same root has made the next Agent CA
    async with open_own() as zone:
        with pytest.raises((ssl.SSLError, ConnectionClosed, OSError, InvalidMessage)):
            async with zone.dial(following.agent("srv-2")) as wire:
                await wire.next_frame()
        await zone.link.send(named(pki, agent=[following.agent_ca.certificate]))
        await zone.until(lambda: zone.gateway.trustees.checked is not None)
        async with zone.dial(following.agent("srv-2")) as wire:
            await wire.send(zone.registration("srv-2"))
            await wire.next("registered")
        with pytest.raises((ssl.SSLError, ConnectionClosed, OSError, InvalidMessage)):
            async with zone.dial(pki.agent("srv-3")) as wire:
                await wire.next_frame()


def named(pki: Pki, **others: Any) -> Authorities:
    found = {
        "backend": [pki.backend_ca.certificate],
        "gateway": [pki.gateway_ca.certificate],
        "agent": [pki.agent_ca.certificate],
    } | others
    encoded = {name: [encode_certificate(each) for each in certificates] for name, certificates in found.items()}
    return Authorities(root=encode_certificate(pki.root.certificate), **encoded)


async def test_authorities_of_another_root_do_not_count(
    open_own: Any, pki: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "stranger").mkdir()
    stranger = Pki(tmp_path / "stranger")
    async with open_own() as zone:
        await zone.link.send(named(pki, agent=[stranger.agent_ca.certificate]))
        await zone.until(lambda: "do not count" in caplog.text)
        await zone.link.send(named(stranger))
        await zone.until(lambda: "the root is another one" in caplog.text)
        async with zone.agent("srv-1"):
            assert zone.gateway.trustees.checked is None


async def test_revoked_agent_is_sent_away_and_not_let_in_again(open_zone: OpenZone, pki: Pki) -> None:
    leaf = pki.agent("srv-1")
    async with open_zone() as zone:
        async with zone.agent("srv-1") as agent:
            await zone.link.send(RevokeAgent("srv-1", [fingerprint(leaf)], "the host was stolen"))
            error = await agent.next("error")
            assert (error["code"], error["reason"]) == ("revoked", "the host was stolen")
            assert await agent.close_code() == 4410
        await zone.link.next("agent_offline")
        async with zone.dial(leaf) as again:
            assert (await again.next("error"))["code"] == "revoked"
            assert await again.close_code() == 4410
        # Under the same name, enrolled anew.
        renewed = another_of(pki)
        async with zone.dial(renewed) as anew:
            await anew.send(registration_of(renewed, zone))
            await anew.next("registered")
            # Said again because the old host tries elsewhere: this one stays.
            await zone.link.send(RevokeAgent("srv-1", [fingerprint(leaf)], "the host was stolen"))
            async with zone.dial(leaf) as again:
                assert (await again.next("error"))["code"] == "revoked"
            assert anew.socket.state.name == "OPEN"


def another_of(pki: Pki) -> Leaf:
    """A second certificate of srv-1."""
    until = datetime.now(UTC) + timedelta(days=1)
    return pki._write_leaf(pki.agent_ca, Identity(ORGANIZATION, PeerRole.AGENT, "srv-1").uri, until, seals=True)


def fingerprint(leaf: Leaf) -> str:
    return leaf.certificate.fingerprint(hashes.SHA256()).hex()


def registration_of(leaf: Leaf, zone: Zone) -> str:
    said = json.loads(zone.registration("srv-1"))
    said = {name: value for name, value in said.items() if name not in ("signature", "signed_by")}
    return leaf.sealer("agent").seal({**said, "certificate": leaf.encoded()})


async def test_certificate_for_seals_that_was_revoked_does_not_come_in_under_another(
    open_zone: OpenZone, pki: Pki
) -> None:
    """TLS with the new certificate, seals with the revoked one."""
    leaf = pki.agent("srv-1")
    renewed = another_of(pki)
    async with open_zone() as zone:
        await zone.link.send(RevokeAgent("srv-1", [fingerprint(leaf)], "the key leaked"))
        async with zone.dial(renewed) as wire:
            await wire.send(zone.registration("srv-1"))
            assert (await wire.next("error"))["code"] == "revoked"


async def test_agent_that_was_revoked_says_so_once_and_comes_again_in_minutes(
    open_zone: OpenZone, pki: Pki, agent_configuration: AgentConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_zone() as zone:
        gateway = replace(agent_configuration.gateway, url=zone.url, reconnect=Reconnect(10, 20))
        running = asyncio.create_task(Agent(replace(agent_configuration, gateway=gateway)).run())
        try:
            await zone.link.next("agent_online")
            await zone.link.send(RevokeAgent("srv-1", [fingerprint(pki.agent("srv-1"))], "the host was stolen"))
            await zone.until(lambda: "connecting again in" in caplog.text)
            waits = [float(r.args[0]) for r in caplog.records if "connecting again in" in r.msg and r.args]
            assert 150 <= waits[-1] <= 450
            told = [r.getMessage() for r in caplog.records if "was revoked (the host was stolen)" in r.getMessage()]
            assert len([line for line in told if "enrol anew" in line]) == 1
        finally:
            running.cancel()
            await asyncio.wait([running])


def test_revoked_certificates_are_bounded() -> None:
    revoked = RevokedCertificates()
    revoked.add((f"{number:x}" for number in range(MAX_KNOWN + 10)), "all of them")
    assert revoked.why(["0"]) is None
    assert revoked.why([f"{MAX_KNOWN:x}"]) == "all of them"


def test_door_for_enrolments_needs_the_root(gateway_configuration: Configuration) -> None:
    server = replace(gateway_configuration.agent_server, enrolment=Enrolment(enabled=True))
    with pytest.raises(ConfigurationError, match=r"enrolment needs backend_connection\.tls\.root_ca_file"):
        Gateway(replace(gateway_configuration, agent_server=server))


# Cross validation: the wrong certificates of SPEC 2, at the gateway and at the agent


WRONG_AGENTS = {
    "other CA": lambda pki, other: other.agent("srv-1"),
    "other organization": lambda pki, other: pki.agent("srv-1", OTHER_ORGANIZATION),
    "other role": lambda pki, other: pki.gateway("gw-9"),
    "other role below the right CA": lambda pki, other: pki.leaf(pki.agent_ca, URI, seals=True),
    "expired": lambda pki, other: pki.expired("srv-1"),
    "not yet valid": lambda pki, other: not_yet(pki, pki.agent_ca, Identity(ORGANIZATION, PeerRole.AGENT, "srv-1")),
    "no identity": lambda pki, other: pki.leaf(pki.agent_ca, "https://example.org/", seals=True),
}
WRONG_GATEWAYS = {
    "other CA": lambda pki, other: other.gateway("gw-1"),
    "other organization": lambda pki, other: pki.gateway("gw-1", OTHER_ORGANIZATION),
    "other role": lambda pki, other: pki.agent("srv-9"),
    "other role below the right CA": lambda pki, other: pki.leaf(
        pki.gateway_ca, Identity(ORGANIZATION, PeerRole.AGENT, "srv-9").uri
    ),
    "the backend's": lambda pki, other: pki.backend(),
    "not yet valid": lambda pki, other: not_yet(pki, pki.gateway_ca, Identity(ORGANIZATION, PeerRole.GATEWAY, "gw-1")),
}


def not_yet(pki: Pki, branch: Any, identity: Identity) -> Leaf:
    new = new_key("ed25519")
    chain = pki.issue(branch, identity.uri, new.request, begins=timedelta(hours=1))
    leaf = Leaf(pki.folder / f"future-{identity.role}.crt", pki.folder / f"future-{identity.role}.key")
    leaf.cert.write_text("".join(ssl.DER_cert_to_PEM_cert(der(each)) for each in chain))
    leaf.key.write_text(new.key)
    return leaf


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("stranger"))


@pytest.mark.parametrize("case", WRONG_AGENTS)
async def test_gateway_lets_no_wrong_agent_in(case: str, open_zone: OpenZone, pki: Pki, stranger: Pki) -> None:
    leaf = WRONG_AGENTS[case](pki, stranger)
    async with open_zone() as zone:
        refusals = (ssl.SSLError, ConnectionClosed, OSError, InvalidMessage)
        try:
            async with zone.dial(leaf) as wire:
                answer = await wire.next("error")
                assert answer["code"] in ("identity_mismatch", "invalid_identity"), answer
                assert await wire.close_code() == 4403
        except refusals:
            assert case in ("other CA", "other role", "expired", "not yet valid"), "TLS itself refuses"
        assert len(zone.gateway.registry) == 0


@pytest.mark.parametrize("case", WRONG_GATEWAYS)
async def test_agent_tells_no_wrong_gateway_who_it_is(
    case: str, pki: Pki, stranger: Pki, agent_configuration: AgentConfiguration, listen: Any, caplog: Any
) -> None:
    leaf = WRONG_GATEWAYS[case](pki, stranger)
    async with listen(leaf, pki.agent_ca.ca) as server:
        gateway = replace(
            agent_configuration.gateway, url=f"wss://localhost:{server.port}", reconnect=Reconnect(50, 50)
        )
        running = asyncio.create_task(Agent(replace(agent_configuration, gateway=gateway)).run())
        try:
            async with asyncio.timeout(10):
                while not any(r.levelname == "ERROR" for r in caplog.records):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            while not server._arrivals.empty():
                wire = server._arrivals.get_nowait()
                with pytest.raises(ConnectionClosed):
                    await wire.next_frame()
            if case == "not yet valid":
                assert "if this host's clock is right, which says" in caplog.text
        finally:
            running.cancel()
            await asyncio.wait([running])


async def test_certificate_without_its_key_is_of_no_use(open_zone: OpenZone, pki: Pki) -> None:
    """Certificates travel openly: whoever has a copy and another key gets no handshake."""
    with pytest.raises(tls.TlsError, match="not a certificate with the key"):
        tls.client_context(pki.agent("srv-1").cert, pki.agent("srv-2").key, pki.gateway_ca.ca)
    # And a session that is one's own cannot be another's.
    async with open_zone() as zone, zone.dial(pki.agent("srv-2")) as wire:
        await wire.send(zone.registration("srv-1"))
        assert (await wire.next("error"))["code"] == "identity_mismatch"
