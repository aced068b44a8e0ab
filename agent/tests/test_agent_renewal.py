"""The agent's next certificate: asked for in time, checked, in use in new sessions, and refused when it is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from opsmap_agent.agent import Agent
from opsmap_agent.configuration import Configuration
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import Identity
from opsmap_protocol.messages import CertificateRefused, CertificateRenewed, Trust
from opsmap_protocol.specs import ExecuteCommand, NativeCommand
from opsmap_trust.certificates import encode_certificate
from opsmap_trust.inspection import CertifiedKey
from opsmap_trust.keys import VerifyingKey
from testing_pki import ORGANIZATION, Leaf, Pki

if TYPE_CHECKING:
    from conftest import GatewaySide, Listen

AGENT_ID = "srv-1"
URI = Identity(ORGANIZATION, PeerRole.AGENT, AGENT_ID).uri
SPENT = timedelta(hours=2)


@pytest.fixture(autouse=True)
def certificate_is_due(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates of these tests are due from the beginning, and attempts follow at once."""
    monkeypatch.setattr("opsmap_daemon.renewal._MIN_PAUSE_S", 0.05)
    monkeypatch.setattr("opsmap_daemon.renewal._MAX_FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr("opsmap_daemon.renewal._MAX_PAUSE_S", 0.05)
    monkeypatch.setattr("opsmap_daemon.renewal.DUE_SHARE", -1.0)


class Renewing:
    """An agent with files of its own and its gateway."""

    def __init__(self, pki: Pki, configuration: Configuration, gateway: GatewaySide) -> None:
        self.pki = pki
        self.configuration = configuration
        self.gateway = gateway

    async def asked(self) -> dict[str, Any]:
        """The agent's next `renew_certificate`."""

        def asking() -> list[dict[str, Any]]:
            return [each for each in self.gateway.replies if each["type"] == "renew_certificate"]

        await self.gateway.until(lambda: bool(asking()))
        found = asking()[0]
        self.gateway.replies.remove(found)
        return found

    async def answer(self, chain: list[str], **fields: Any) -> None:
        """Answer like a backend; `fields` replace authorities."""
        authorities = {
            "gateway_authorities": [encode_certificate(self.pki.gateway_ca.certificate)],
            "backend_authorities": [encode_certificate(self.pki.backend_ca.certificate)],
        }
        await self.gateway.tell(CertificateRenewed(AGENT_ID, chain, **authorities | fields))

    def key_in(self, chain: list[str]) -> VerifyingKey:
        from opsmap_trust.certificates import inspect_certificate

        found: CertifiedKey = inspect_certificate(chain[0], [self.pki.agent_ca.certificate])
        return VerifyingKey(found.public_bytes, "agent")


@asynccontextmanager
async def renewing(
    pki: Pki,
    listen: Listen,
    gateway_side: type[GatewaySide],
    base: Configuration,
    folder: Path,
) -> AsyncIterator[Renewing]:
    leaf = pki.copy_of(pki.agent(AGENT_ID), folder)
    async with listen(pki.gateway("gw-1"), pki.agent_ca.ca) as server:
        ca, backend_ca = folder / "ca.crt", folder / "backend-ca.crt"
        ca.write_bytes(pki.gateway_ca.ca.read_bytes())
        backend_ca.write_bytes(pki.backend_ca.ca.read_bytes())
        files = replace(
            base.tls,
            cert_file=leaf.cert,
            key_file=leaf.key,
            ca_file=ca,
            backend_ca_file=backend_ca,
            root_ca_file=pki.root.ca,
        )
        gateway = replace(base.gateway, url=f"wss://localhost:{server.port}")
        configuration = replace(base, gateway=gateway, tls=files)
        running = asyncio.create_task(Agent(configuration).run())
        side = gateway_side(server, pki)
        try:
            await side.welcome()
            yield Renewing(pki, configuration, side)
        finally:
            running.cancel()
            await asyncio.wait([running])
            await side.leave()


@pytest.fixture
def open_renewing(
    pki: Pki, listen: Listen, gateway_side: type[GatewaySide], agent_configuration: Configuration, tmp_path: Path
) -> Callable[[], Any]:
    return lambda: renewing(pki, listen, gateway_side, agent_configuration, tmp_path)


async def test_agent_renews_and_changes_its_session_without_losing_a_command(
    open_renewing: Callable[[], Any],
) -> None:
    async with open_renewing() as host:
        old_key = host.gateway._agent_key
        slow = await host.gateway.command(ExecuteCommand("sh", ["-c", "sleep 0.5; echo done"]))
        await host.gateway.until(lambda: slow in host.gateway.received)
        request = await host.asked()
        chain = host.pki.issue(host.pki.agent_ca, URI, request["csr"], begins=-SPENT, life=timedelta(days=365))
        former = host.gateway.wire
        await host.answer(chain)

        # The new session comes while the old one is still there, with the new key in certificate and seal.
        host.gateway._agent_key = host.key_in(chain)
        registration = await host.gateway.register()
        assert registration["certificate"] == chain[0]
        assert former.socket.state.name == "OPEN"
        assert old_key is not host.gateway._agent_key
        await host.gateway.challenge()
        await host.gateway.resume(0)
        assert (await host.gateway.body("command_result", slow))["success"]
        await former.socket.close(4409, "a newer session")
        await host.gateway.run(NativeCommand("uptime"))

        written = Leaf(host.configuration.tls.cert_file, host.configuration.tls.key_file)
        assert written.encoded() == chain[0]
        assert written.key.stat().st_mode & 0o777 == 0o600


async def test_certificate_for_another_agent_changes_nothing(
    open_renewing: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What else can be wrong with it: test_trust_chains.py."""
    async with open_renewing() as host:
        before = host.configuration.tls.cert_file.read_bytes(), host.configuration.tls.key_file.read_bytes()
        request = await host.asked()
        other = Identity(ORGANIZATION, PeerRole.AGENT, "srv-2").uri
        await host.answer(host.pki.issue(host.pki.agent_ca, other, request["csr"]))
        await host.asked()  # it asks again
        assert "agent/srv-2, not of" in caplog.text
        assert before == (host.configuration.tls.cert_file.read_bytes(), host.configuration.tls.key_file.read_bytes())
        await host.gateway.run(NativeCommand("uptime"))


async def test_authorities_of_another_root_do_not_count(
    open_renewing: Callable[[], Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "stranger").mkdir()
    stranger = Pki(tmp_path / "stranger")
    async with open_renewing() as host:
        request = await host.asked()
        chain = host.pki.issue(host.pki.agent_ca, URI, request["csr"])
        await host.answer(chain, backend_authorities=[encode_certificate(stranger.backend_ca.certificate)])
        await host.asked()
        assert "no authority below the known root" in caplog.text
        assert host.configuration.tls.backend_ca_file.read_bytes() == host.pki.backend_ca.ca.read_bytes()


async def test_new_authorities_below_the_root_count(open_renewing: Callable[[], Any], tmp_path: Path) -> None:
    async with open_renewing() as host:
        request = await host.asked()
        chain = host.pki.issue(host.pki.agent_ca, URI, request["csr"])
        both = [encode_certificate(each.certificate) for each in (host.pki.gateway_ca, host.pki.agent_ca)]
        await host.answer(chain, gateway_authorities=both)
        host.gateway._agent_key = host.key_in(chain)
        await host.gateway.register()
        assert host.configuration.tls.ca_file.read_text().count("BEGIN CERTIFICATE") == 2


async def test_refused_renewal_is_asked_for_again(
    open_renewing: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with open_renewing() as host:
        first = await host.asked()
        await host.gateway.tell(CertificateRefused(AGENT_ID, "quarantined", "this agent is in quarantine"))
        second = await host.asked()
        assert first["csr"] != second["csr"], "each attempt has a key of its own"
        assert "this agent is in quarantine (quarantined)" in caplog.text
        await host.gateway.run(NativeCommand("uptime"))


async def test_revoked_key_of_the_backend_does_not_count_also_after_a_restart(
    pki: Pki, open_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsmap_daemon.renewal.DUE_SHARE", 0.9)
    # A signer of its own: the others' must not be revoked in memory that tests share.
    async with open_host() as host:
        crl = pki.revocations(pki.backend_ca, 2, host.gateway.signer)
        await host.gateway.wire.send(Trust(AGENT_ID, [host.gateway.signer.encoded()], crl))
        request_id = await host.gateway.command(NativeCommand("uptime"))
        await host.gateway.until(lambda: any("was revoked" in str(each) for each in host.gateway.replies))
        assert request_id not in host.gateway.received
        await host.stop()
        host.agent = Agent(host.configuration)
        host.running = asyncio.create_task(host.agent.run())
        await host.gateway.register()
        host.gateway.replies.clear()
        # An older list brings nothing back.
        older = pki.revocations(pki.backend_ca, 1)
        await host.gateway.wire.send(Trust(AGENT_ID, [host.gateway.signer.encoded()], older))
        await host.gateway.until(lambda: any("it was revoked" in str(each) for each in host.gateway.replies))
