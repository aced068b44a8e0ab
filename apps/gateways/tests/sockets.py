"""The link without a server: a WebSocket client of the application, and agents with keys of their own behind it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async
from channels.routing import get_default_application
from channels.testing import WebsocketCommunicator
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from apps.gateways.actions.sessions import register_gateway
from apps.gateways.models import Agent, Gateway
from apps.gateways.pki import ensure_authorities, ensure_leaf, fingerprint, renew_signer
from apps.gateways.tests.factories import AT, SYSTEM, gateway_hello
from apps.orgs.models import Organization
from opsmap_protocol import codec, messages
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import Identity
from opsmap_trust.certificates import encode_certificate, inspect_certificate, read_authorities
from opsmap_trust.keys import SealingKey, VerifyingKey
from opsmap_trust.seals import Sealer, check_seal


class Communicator(WebsocketCommunicator):
    """Channels' own one lets pool threads keep their database connections, for tests within one transaction.

    Tests of sockets commit, and a connection that is kept is in the way of whoever drops the database.
    """

    async def send_input(self, message: dict[str, Any]) -> None:
        await ApplicationCommunicator.send_input(self, message)

    async def receive_output(self, timeout: float = 1) -> dict[str, Any]:  # noqa: ASYNC109 - Channels has it so
        output: dict[str, Any] = await ApplicationCommunicator.receive_output(self, timeout)
        return output


@dataclass(frozen=True)
class LinkPki:
    """A whole PKI in a folder, as `settings.PKI_DIR` names it."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> LinkPki:
        authorities = ensure_authorities(folder / "ca")
        renew_signer(folder / "leaf", authorities[PeerRole.BACKEND])
        return cls(folder)

    def leaf(self, organization_id: uuid.UUID, name: str, role: PeerRole) -> Path:
        """A new certificate with its key beside it."""
        uri = Identity(str(organization_id), role, name).uri
        stem, authority = f"leaf-{uuid.uuid4()}", ensure_authorities(self.folder / "ca")[role]
        ensure_leaf(self.folder / "leaf", stem, authority, uri=uri, hosts=[], seals=role is PeerRole.AGENT)
        return self.folder / "leaf" / f"{stem}.crt"

    def gateway_pem(self, organization: Organization, name: str = "gw-1", *, is_registered: bool = True) -> str:
        """The certificate of a gateway as TLS hands it over."""
        certificate = read_certificate(self.leaf(organization.pk, name, PeerRole.GATEWAY))
        if is_registered:
            register_gateway(
                organization_id=organization.pk,
                gateway_id=name,
                certificate_sha256=fingerprint(certificate),
                actor=SYSTEM,
            )
        return certificate.public_bytes(Encoding.PEM).decode()

    def check_backend_seal(self, frame: dict[str, Any], organization_id: uuid.UUID, trusted: Sequence[str]) -> None:
        """As an agent does it. Raises SealError, or StopIteration if the key is not among those it trusts."""
        authorities = read_authorities(self.folder / "ca" / "backend.crt")
        keys = [inspect_certificate(encoded, authorities) for encoded in trusted]
        key = next(key for key in keys if key.key_id == frame["signed_by"])
        check_seal(frame, VerifyingKey(key.public_bytes, "backend", str(organization_id)))


def read_certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@dataclass
class LinkedAgent:
    """An agent with a key of its own, as a gateway's connection sees it: everything it says is sealed."""

    pki: LinkPki
    organization_id: uuid.UUID
    agent_id: str = "srv-1"
    is_preferred: bool = False
    incarnation: str = "journal-1"
    credits: int = messages.DEFAULT_CREDITS
    labels: dict[str, str] = field(default_factory=dict)
    seq: int = 0
    session_id: str = ""
    token: str = ""
    trusted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        path = self.pki.leaf(self.organization_id, self.agent_id, PeerRole.AGENT)
        self.certificate = read_certificate(path)
        key = SealingKey.read(path.with_suffix(".key"), "agent")
        self.sealer = Sealer(key, fingerprint(self.certificate))

    def twin(self, **changes: Any) -> LinkedAgent:
        """The same agent in another session: same key, same journal."""
        twin = LinkedAgent.__new__(LinkedAgent)
        twin.__dict__.update(self.__dict__ | {"session_id": "", "token": ""} | changes)
        return twin

    def register(self, **changes: Any) -> dict[str, Any]:
        facts = {
            "agent_id": self.agent_id,
            "hostname": f"{self.agent_id}.example",
            "os": messages.OsInfo("linux", "Debian 13", "6.12", "x86_64"),
            "labels": self.labels,
            "capabilities": ["native"],
            "version": "1.0",
            "certificate": encode_certificate(self.certificate),
            "nonce": uuid.uuid4().hex,
            "is_preferred": self.is_preferred,
        }
        return self.sealer.seal_object(messages.Register(**facts | changes))

    def online(self, **changes: Any) -> messages.AgentOnline:
        self.session_id = f"session-{uuid.uuid4()}"
        return messages.AgentOnline("gw-1", self.session_id, self.register(**changes))

    def offline(self, reason: str = "connection lost") -> messages.AgentOffline:
        return messages.AgentOffline("gw-1", self.agent_id, self.session_id, reason)

    def presence(self, **changes: Any) -> str:
        facts = {
            "agent_id": self.agent_id,
            "token": self.token,
            "incarnation": self.incarnation,
            "boot_id": "boot-1",
            "first_seq": self.seq + 1,
            "last_seq": self.seq,
            "credits": self.credits,
        }
        return self.sealer.seal(messages.Presence(**facts | changes))

    async def announce(self, communicator: Communicator) -> dict[str, Any]:
        """Come in; the challenge that is answered by `presence`."""
        await say(communicator, self.online())
        self.trusted = (await hear(communicator, "trust", of=self.agent_id))["certificates"]
        challenge = await hear(communicator, "challenge", of=self.agent_id)
        self.token = challenge["token"]
        return challenge

    async def stand_by(self, communicator: Communicator) -> None:
        await self.announce(communicator)
        await say(communicator, self.presence())

    async def come_in(self, communicator: Communicator) -> dict[str, Any]:
        """Come in and prove itself; the `resume` that says that this session counts. The configuration is read too."""
        await self.stand_by(communicator)
        resume = await hear(communicator, "resume", of=self.agent_id)
        await hear(communicator, "config_update", of=self.agent_id)
        return resume

    def events(self, *bodies: messages.EventBody, **changes: Any) -> str:
        """The next events of its journal."""
        first = self.seq + 1
        self.seq += len(bodies)
        events = [messages.Event(first + index, AT, body) for index, body in enumerate(bodies)]
        facts = {"agent_id": self.agent_id, "token": self.token, "incarnation": self.incarnation, "events": events}
        return self.sealer.seal(messages.Events(**facts | changes))

    def received(self, request_id: str) -> str:
        return self.sealer.seal(messages.CommandReceived(self.agent_id, self.token, request_id))

    def seal(self, message: Any) -> str:
        return self.sealer.seal(message)

    @property
    def row(self) -> Agent:
        return Agent.objects.get(organization_id=self.organization_id, agent_id=self.agent_id)


def link(pem: str | None, **headers: str) -> Communicator:
    """A connection to the whole application, as the link server hands it over."""
    given = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    communicator = Communicator(get_default_application(), "/link/", headers=given)
    if pem is not None:
        communicator.scope["extensions"] = {"tls": {"client_cert_chain": [pem]}}
    return communicator


@asynccontextmanager
async def connected(pem: str, gateway_id: str = "gw-1") -> AsyncIterator[Communicator]:
    """A gateway whose registration was answered."""
    communicator = link(pem)
    assert (await communicator.connect(timeout=5))[0]
    await say(communicator, gateway_hello(gateway_id))
    assert (await hear(communicator))["type"] == "gateway_registered"
    try:
        yield communicator
    finally:
        await communicator.disconnect(timeout=5)


async def hear(communicator: Communicator, kind: str = "", *, of: str = "", within_s: float = 5) -> dict[str, Any]:
    """The next frame, or the next of a kind, or of a kind for an agent."""
    while True:
        frame: dict[str, Any] = json.loads(await communicator.receive_from(timeout=within_s))
        if (not kind or frame["type"] == kind) and (not of or frame.get("target_agent") == of):
            return frame


async def hear_nothing(communicator: Communicator, kind: str, *, for_s: float = 0.3) -> None:
    """No frame of that kind comes for so long; others may."""
    deadline_s = time.monotonic() + for_s
    # Channels ends the application when a read times out, so nothing is read before it is there.
    while (left_s := deadline_s - time.monotonic()) > 0:
        if not await communicator.receive_nothing(timeout=left_s, interval=0.01):
            frame = await hear(communicator)
            assert frame["type"] != kind, f"not expected: {frame}"


async def close_code(communicator: Communicator) -> int:
    """The code with which the connection is closed; frames before it are skipped."""
    while (output := await communicator.receive_output(5))["type"] != "websocket.close":
        pass
    code: int = output["code"]
    return code


async def say(communicator: Communicator, *frames: Any) -> None:
    """Messages, or frames that are sealed already."""
    for message in frames:
        await communicator.send_to(message if isinstance(message, str) else codec.encode(message))


@database_sync_to_async
def in_database(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    return function(*arguments, **keywords)


async def the_gateway(gateway_id: str = "gw-1") -> Gateway:
    gateway: Gateway = await in_database(Gateway.objects.get, gateway_id=gateway_id)
    return gateway
