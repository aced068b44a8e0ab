"""`opsmap-gateway enroll`: a gateway's first certificate, for an enrolment token, by the backend's REST API.

The key is made here and stays here. The web server is verified as any is, by the authorities of this system or by
`--ca-file`; what it answers counts only below the root that the token names.

Loads OpenSSL's binding: for this command alone, never in a running gateway.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import http.client
import ipaddress
import json
import socket
import ssl
import sys
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509

from opsmap_daemon import tls
from opsmap_daemon.configuration import ConfigurationError, load, websocket_url
from opsmap_daemon.enrolment import (
    EXIT_REFUSED,
    EXIT_TRY_AGAIN,
    EnrolmentError,
    Place,
    add_common_arguments,
    as_yaml,
    check_name,
    finished_before,
    read_token,
    told_in_one_line,
)
from opsmap_daemon.files import write_whole
from opsmap_daemon.pair import Pair
from opsmap_gateway.configuration import Configuration
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import Identity, parse_identity
from opsmap_trust import chains, requests
from opsmap_trust.certificates import decode_certificate
from opsmap_trust.enrolment_tokens import EnrolmentTokenText

DEFAULT_CONFIGURATION = Path("/etc/opsmap/gateway.yaml")
EXIT_CONFIGURATION = 78
_PATH = "/api/v1/enrolments"
_LINK_PORT, _AGENT_PORT = 9443, 8443
_TIMEOUT_S = 30.0
_MAX_ANSWER_BYTES = 256 * 1024


@dataclass(frozen=True)
class _Backend:
    """The web server, as `--backend` names it."""

    scheme: str
    host: str
    port: int | None
    prefix: str
    ca_file: Path | None

    def connect(self) -> http.client.HTTPConnection:
        if self.scheme == "http":
            return http.client.HTTPConnection(self.host, self.port, timeout=_TIMEOUT_S)
        context = ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
        return http.client.HTTPSConnection(self.host, self.port, timeout=_TIMEOUT_S, context=context)


@dataclass(frozen=True)
class _Plan:
    """All that is known before the backend is asked."""

    backend: _Backend
    token: EnrolmentTokenText
    token_text: str
    gateway_id: str
    hostname: str
    place: Place
    new_configuration: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `opsmap-gateway enroll`."""
    parser.add_argument("--backend", required=True, metavar="URL", help="where OpsMap is, https://host")
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="verify the web server by these authorities")
    parser.add_argument("--id", metavar="NAME", help="this gateway's name (default: gateway.id, else the host name)")
    parser.add_argument("--zone", default="default", help="its zone in a configuration that is written (%(default)s)")
    parser.add_argument(
        "--hostname", help="the name that agents will find it by, and that is in its certificate (default: the host's)"
    )
    parser.add_argument(
        "--link",
        metavar="URL",
        help=f"the backend's link in a configuration that is written (default: the same host, port {_LINK_PORT})",
    )
    add_common_arguments(parser, DEFAULT_CONFIGURATION)


def enroll(options: argparse.Namespace) -> int:
    """Carry out the command; its exit code."""
    try:
        with told_in_one_line():
            plan = _plan(options)
            if not _is_done_already(plan, options):
                identity = _enroll(plan)
                _write_configuration(plan, options.config)
                print(f"enrolled as gateway {identity.name} of organization {identity.organization_id}")
    except ConfigurationError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
        return EXIT_CONFIGURATION
    except EnrolmentError as error:
        print(f"not enrolled: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _plan(options: argparse.Namespace) -> _Plan:
    """Raises EnrolmentError or ConfigurationError."""
    path: Path = options.config
    present = load(path, Configuration) if path.exists() else None
    backend = _backend(options.backend, options.ca_file)
    if present is None:
        place = _default_place(path.absolute().parent / "gateway-certs")
        name = options.id or socket.gethostname()
    else:
        place = _place_of(present)
        name = options.id or present.gateway.id
        if name != present.gateway.id:
            raise EnrolmentError(f"{path} says gateway.id {present.gateway.id!r}, and --id {name!r}: change one")
    token, token_text = read_token(options)
    new = None if present is not None else _new_configuration(backend, options, name, place)
    hostname = options.hostname or socket.gethostname()
    return _Plan(backend, token, token_text, check_name(name, PeerRole.GATEWAY), hostname, place, new)


def _backend(url: str, ca_file: Path | None) -> _Backend:
    expected = "expected https://host, or http://127.0.0.1 on the backend's own machine"
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        raise EnrolmentError(f"--backend {url[:200]!r}: {expected}") from None
    is_plain = parts.scheme == "http"
    if not host or parts.scheme not in ("http", "https") or (is_plain and not _is_loopback(host)):
        raise EnrolmentError(f"--backend {url[:200]!r}: {expected}")
    return _Backend(parts.scheme, host, port, parts.path.rstrip("/"), ca_file)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _default_place(folder: Path) -> Place:
    return Place(
        pair=Pair(folder / "gateway.crt", folder / "gateway.key"),
        root=folder / "root-ca.crt",
        authorities={"backend": folder / "backend-ca.crt", "agent": folder / "agent-ca.crt"},
    )


def _place_of(present: Configuration) -> Place:
    server, client = present.agent_server.tls, present.backend_connection.tls
    if (server.cert_file, server.key_file) != (client.cert_file, client.key_file):
        raise EnrolmentError("agent_server.tls and backend_connection.tls name different certificates: enrol fills one")
    root = client.root_ca_file
    if root is None:
        root = client.ca_file.with_name("root-ca.crt")
        key = "backend_connection.tls.root_ca_file"
        print(f"note: set {key} to {root}, so that new authorities can come by themselves", file=sys.stderr)
    return Place(
        pair=Pair(client.cert_file, client.key_file),
        root=root,
        authorities={"backend": client.ca_file, "agent": server.client_ca_file},
    )


def _new_configuration(backend: _Backend, options: argparse.Namespace, name: str, place: Place) -> str:
    host = f"[{backend.host}]" if ":" in backend.host else backend.host
    link = options.link or f"wss://{host}:{_LINK_PORT}"
    expected = websocket_url(link)
    if expected is not None:
        raise EnrolmentError(f"--link {link[:200]!r}: expected {expected}")
    own = {"cert_file": place.pair.cert, "key_file": place.pair.key}
    content: dict[str, Any] = {
        "gateway": {"id": name, "zone": options.zone},
        "agent_server": {
            "bind_address": f"0.0.0.0:{_AGENT_PORT}",
            "tls": {**own, "client_ca_file": place.authorities["agent"]},
            "enrolment": {"enabled": False},
        },
        "backend_connection": {
            "url": link,
            "tls": {**own, "ca_file": place.authorities["backend"], "root_ca_file": place.root},
        },
    }
    return "# Written by opsmap-gateway enroll. Everything else has its default.\n" + as_yaml(content)


def _is_done_already(plan: _Plan, options: argparse.Namespace) -> bool:
    """Whether an earlier try has got so far that nothing is left to do. Raises EnrolmentError."""
    is_new = plan.new_configuration is not None
    identity = finished_before(plan.place.pair, PeerRole.GATEWAY, is_new=is_new, is_forced=options.force)
    if identity is None:
        return False
    _write_configuration(plan, options.config)
    print(f"enrolled as gateway {identity.name} by an earlier attempt, which was interrupted")
    return True


def _write_configuration(plan: _Plan, path: Path) -> None:
    if plan.new_configuration is not None:
        write_whole(path, plan.new_configuration, 0o644)
        print(f"{path} is written; look whether backend_connection.url in it is the backend's link")


def _enroll(plan: _Plan) -> Identity:
    new = requests.new_key("p256")
    answer = _post(plan, new.request)
    root = _checked_root(plan, answer["root"])
    accepted = chains.accept_chain(
        answer["certificate"],
        new.key,
        uri=None,
        root=root,
        authorities={"backend": answer["backendAuthorities"], "agent": answer["agentAuthorities"]},
    )
    identity = _identity(plan, accepted.uri)
    plan.place.fill(root=chains.to_pem(root), authorities=accepted.authorities, chain=accepted.chain, key=new.key)
    return identity


def _post(plan: _Plan, request: str) -> dict[str, Any]:
    """The backend's answer, its shape checked. Raises EnrolmentError."""
    backend = plan.backend
    body = {
        "token": plan.token_text,
        "role": "gateway",
        "name": plan.gateway_id,
        "hostname": plan.hostname,
        "csr": request,
    }
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    connection = backend.connect()
    try:
        connection.request("POST", backend.prefix + _PATH, json.dumps(body), headers)
        response = connection.getresponse()
        content = response.read(_MAX_ANSWER_BYTES + 1)
    except ssl.SSLError as error:
        raise EnrolmentError(f"{backend.host}: {tls.describe(error)}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise EnrolmentError(f"{backend.host}: {reason}", EXIT_TRY_AGAIN) from None
    finally:
        connection.close()
    answer = _parse(content)
    if response.status not in (HTTPStatus.OK, HTTPStatus.CREATED):
        raise _refusal(response.status, answer)
    lists = ("certificate", "backendAuthorities", "agentAuthorities")
    if not all(_is_texts(answer.get(key)) for key in lists) or not isinstance(answer.get("root"), str):
        raise EnrolmentError(f"{backend.host}: it does not answer like OpsMap: is the address right?")
    return answer


def _parse(content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content) if len(content) <= _MAX_ANSWER_BYTES else None
    except (ValueError, RecursionError):
        answer = None
    return answer if isinstance(answer, dict) else {}


def _refusal(status: int, problem: dict[str, Any]) -> EnrolmentError:
    reason = str(problem.get("detail") or problem.get("title") or "it does not say why")[:500]
    is_passing = status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    code = str(problem.get("code") or f"HTTP {status}")[:80]
    return EnrolmentError(f"refused: {reason} ({code})", EXIT_TRY_AGAIN if is_passing else EXIT_REFUSED)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _checked_root(plan: _Plan, encoded: str) -> x509.Certificate:
    try:
        der = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        der = b""
    if not plan.token.names_root(der):
        raise EnrolmentError("the backend's root is not the one that the token names: nothing of its answer is used")
    return decode_certificate(encoded)


def _identity(plan: _Plan, uri: str) -> Identity:
    """Whom the certificate names: us, in the organization of the token, which only the backend knows."""
    identity = parse_identity(uri)
    if (identity.role, identity.name) != (PeerRole.GATEWAY, plan.gateway_id):
        raise EnrolmentError(f"the backend sent a certificate of {uri}, which is not of gateway {plan.gateway_id}")
    return identity
