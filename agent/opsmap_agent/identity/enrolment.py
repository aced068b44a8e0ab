"""`opsmap-agent enroll`: this host's first certificate, for an enrolment token.

The key is made here and stays here. The agent visits its gateway's door twice: first it trusts nobody, says nothing,
and looks whether the installation is the one that its token names; then it verifies the gateway below that root, and
only then shows the token. Nothing is left half done, whatever fails when; but a token that was spent on an answer that
never arrived is spent.

Loads OpenSSL's binding: for this command alone, never in a running agent.
"""

from __future__ import annotations

import argparse
import asyncio
import binascii
import re
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from websockets.asyncio.client import ClientConnection, connect

from opsmap_agent.configuration import Configuration
from opsmap_agent.host import description as host
from opsmap_daemon import tls
from opsmap_daemon.configuration import ConfigurationError, load, websocket_url
from opsmap_daemon.connection import judge, with_default_path
from opsmap_daemon.enrolment import (
    EnrolmentError,
    Place,
    add_common_arguments,
    as_yaml,
    check_name,
    finished_before,
    read_token,
    refusal,
    told_in_one_line,
)
from opsmap_daemon.files import write_whole
from opsmap_daemon.pair import Pair
from opsmap_protocol.codec import encode
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import FatalError, ProtocolError
from opsmap_protocol.identity import Identity, identity_of_peer
from opsmap_protocol.messages import Enroll, Enrolled, Introduction
from opsmap_protocol.session import ENROLLING_OF_GATEWAY, MAX_GREETING_BYTES, Session
from opsmap_trust import chains, requests
from opsmap_trust.certificates import decode_certificate
from opsmap_trust.enrolment_tokens import EnrolmentTokenText

DEFAULT_CONFIGURATION = Path("/etc/opsmap/agent.yaml")
EXIT_CONFIGURATION = 78
ENROLMENT_PATH = "/enroll/"
_ENROLMENT_PORT, _AGENT_PORT = 8444, 8443
_OPEN_TIMEOUT_S = 10.0
_ANSWER_TIMEOUT_S = 30.0
_SUSPICIOUS_AGE = timedelta(minutes=10)
"""A certificate that was just issued begins a few minutes ago, so that clocks may differ a little."""
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)


@dataclass(frozen=True)
class _Plan:
    """All that is known before anybody is visited."""

    door: str
    token: EnrolmentTokenText
    token_text: str
    agent_id: str
    place: Place
    new_configuration: str | None
    """What to write if there is no configuration file yet."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `opsmap-agent enroll`."""
    parser.add_argument(
        "--gateway",
        metavar="URL",
        help=f"the gateway's door for enrolments, wss://host:{_ENROLMENT_PORT} (default: the host of gateway.url)",
    )
    parser.add_argument(
        "--connect-to",
        metavar="URL",
        help=f"gateway.url in a configuration file that is written (default: the same host, port {_AGENT_PORT})",
    )
    parser.add_argument(
        "--id", metavar="NAME", help="this agent's name (default: agent.id, else host name and network address)"
    )
    add_common_arguments(parser, DEFAULT_CONFIGURATION)


def enroll(options: argparse.Namespace) -> int:
    """Carry out the command; its exit code."""
    try:
        with told_in_one_line():
            plan = _plan(options)
            if not _is_done_already(plan, options):
                identity = asyncio.run(_enroll(plan))
                _write_configuration(plan, options.config)
                print(f"enrolled as agent {identity.name} of organization {identity.organization_id}")
    except ConfigurationError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
        return EXIT_CONFIGURATION
    except EnrolmentError as error:
        print(f"not enrolled: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def default_agent_id() -> str:
    """Host name and the end of a network address, as the reference has it: two hosts may have the same name.

    The address is that of the first interface, by name, that is a device; a host without one is named by its name.
    """
    name = _NOT_IN_NAMES.sub("-", host.hostname()).strip(".-_")[:100] or "host"
    address = _first_hardware_address()
    return f"{name}-{address[-6:]}" if address else name


def _first_hardware_address(folder: Path = Path("/sys/class/net")) -> str:
    for interface in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            address = (interface / "address").read_text(encoding="ascii").strip().replace(":", "")
        except (OSError, UnicodeDecodeError):
            continue
        if (interface / "device").exists() and address.strip("0"):
            return address
    return ""


def _plan(options: argparse.Namespace) -> _Plan:
    """Raises EnrolmentError or ConfigurationError."""
    path: Path = options.config
    present = load(path, Configuration) if path.exists() else None
    door = _door(options.gateway, present)
    if present is None:
        place = _default_place(path.absolute().parent / "certs")
        name = options.id or default_agent_id()
    else:
        place = _place_of(present)
        name = options.id or present.agent.id or default_agent_id()
        if present.agent.id not in ("", name):
            raise EnrolmentError(f"{path} says agent.id {present.agent.id!r}, and --id {name!r}: change one of them")
    token, token_text = read_token(options)
    new = None if present is not None else _new_configuration(door, options.connect_to, name, place)
    return _Plan(door, token, token_text, check_name(name, PeerRole.AGENT), place, new)


def _door(given: str | None, present: Configuration | None) -> str:
    if given is None:
        if present is None:
            raise EnrolmentError("--gateway is needed: there is no configuration file that names one")
        given = f"wss://{_host_of(present.gateway.url)}:{_ENROLMENT_PORT}"
    expected = websocket_url(given)
    if expected is not None:
        raise EnrolmentError(f"--gateway {given[:200]!r}: expected {expected}")
    return with_default_path(given, ENROLMENT_PATH)


def _host_of(url: str) -> str:
    found = urlsplit(url).hostname or ""
    return f"[{found}]" if ":" in found else found


def _default_place(folder: Path) -> Place:
    return Place(
        pair=Pair(folder / "agent.crt", folder / "agent.key"),
        root=folder / "root-ca.crt",
        authorities={"gateway": folder / "ca.crt", "backend": folder / "backend-ca.crt"},
    )


def _place_of(present: Configuration) -> Place:
    files = present.tls
    root = files.root_ca_file
    if root is None:
        root = files.ca_file.with_name("root-ca.crt")
        print(f"note: set tls.root_ca_file to {root}, so that new authorities can come by themselves", file=sys.stderr)
    return Place(
        pair=Pair(files.cert_file, files.key_file),
        root=root,
        authorities={"gateway": files.ca_file, "backend": files.backend_ca_file},
    )


def _new_configuration(door: str, connect_to: str | None, name: str, place: Place) -> str:
    url = connect_to or f"wss://{_host_of(door)}:{_AGENT_PORT}"
    expected = websocket_url(url)
    if expected is not None:
        raise EnrolmentError(f"--connect-to {url[:200]!r}: expected {expected}")
    content = {
        "agent": {"id": name},
        "gateway": {"url": url},
        "tls": {
            "cert_file": place.pair.cert,
            "key_file": place.pair.key,
            "ca_file": place.authorities["gateway"],
            "backend_ca_file": place.authorities["backend"],
            "root_ca_file": place.root,
        },
    }
    return "# Written by opsmap-agent enroll. Everything else has its default.\n" + as_yaml(content)


def _is_done_already(plan: _Plan, options: argparse.Namespace) -> bool:
    """Whether an earlier try has got so far that nothing is left to do. Raises EnrolmentError."""
    is_new = plan.new_configuration is not None
    identity = finished_before(plan.place.pair, PeerRole.AGENT, is_new=is_new, is_forced=options.force)
    if identity is None:
        return False
    _write_configuration(plan, options.config)
    print(f"enrolled as agent {identity.name} by an earlier attempt, which was interrupted")
    return True


def _write_configuration(plan: _Plan, path: Path) -> None:
    if plan.new_configuration is not None:
        write_whole(path, plan.new_configuration, 0o644)
        print(f"{path} is written; look whether gateway.url in it is where agents connect")


async def _enroll(plan: _Plan) -> Identity:
    root, authorities = await _first_visit(plan)
    new = requests.new_key("ed25519")
    gateway, enrolled = await _second_visit(plan, authorities, new.request)
    identity = Identity(gateway.organization_id, PeerRole.AGENT, plan.agent_id)
    accepted = chains.accept_chain(
        enrolled.certificate,
        new.key,
        uri=identity.uri,
        root=root,
        authorities={"gateway": enrolled.gateway_authorities, "backend": enrolled.backend_authorities},
    )
    if datetime.now(UTC) - accepted.not_before > _SUSPICIOUS_AGE:
        print(f"warning: the new certificate begins at {accepted.not_before}: is the clock right?", file=sys.stderr)
    plan.place.fill(root=chains.to_pem(root), authorities=accepted.authorities, chain=accepted.chain, key=new.key)
    return identity


async def _first_visit(plan: _Plan) -> tuple[x509.Certificate, str]:
    """Whether it is the installation of the token: its root, and the Gateway CAs below it, PEM."""
    async with _visit(plan.door, tls.enrolling_context(None)) as (socket, session):
        introduction = await _read_introduction(socket, session)
    try:
        der = binascii.a2b_base64(introduction.root, strict_mode=True)
    except (binascii.Error, ValueError):
        der = b""
    if not plan.token.names_root(der):
        raise EnrolmentError(
            f"{plan.door} belongs to another installation than the token. It was told nothing; the token is unused"
        )
    root = decode_certificate(introduction.root)
    return root, chains.below_root({"gateway": introduction.gateway_authorities}, root)["gateway"]


async def _second_visit(plan: _Plan, authorities: str, request: str) -> tuple[Identity, Enrolled]:
    """Show the token to a gateway that is verified; who it is, and what it answers."""
    async with _visit(plan.door, tls.enrolling_context(authorities)) as (socket, session):
        gateway = identity_of_peer(tls.peer_certificate(socket), PeerRole.GATEWAY)
        await _read_introduction(socket, session)
        words = Enroll(plan.token_text, plan.agent_id, host.hostname()[:253], request)
        await socket.send(encode(words))
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            answer = session.understand(session.read(await socket.recv()))
        if not isinstance(answer, Enrolled):
            raise refusal(answer.code, answer.reason)
        return gateway, answer


async def _read_introduction(socket: ClientConnection, session: Session) -> Introduction:
    async with asyncio.timeout(_OPEN_TIMEOUT_S):
        frame = await socket.recv()
    try:
        introduction: Introduction = session.understand(session.read(frame))
    except FatalError as error:
        raise refusal(error.code, str(error)) from None
    return introduction


@asynccontextmanager
async def _visit(url: str, context: ssl.SSLContext) -> AsyncIterator[tuple[ClientConnection, Session]]:
    """A connection to the door. Whatever goes wrong with it is an EnrolmentError, in one line."""
    try:
        async with connect(
            url,
            ssl=context,
            compression=None,
            proxy=None,
            open_timeout=_OPEN_TIMEOUT_S,
            close_timeout=1.0,
            max_size=MAX_GREETING_BYTES,
        ) as socket:
            yield socket, Session(ENROLLING_OF_GATEWAY)
    except EnrolmentError:
        raise
    except ProtocolError as error:
        raise EnrolmentError(f"{url}: {error}") from None
    except Exception as error:
        verdict = judge(error)
        if verdict is None:
            raise
        raise EnrolmentError(f"{url}: {verdict.text}") from None
