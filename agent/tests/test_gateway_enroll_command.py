"""`opsmap-gateway enroll` against a scripted web server."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from opsmap_daemon.configuration import load
from opsmap_daemon.files import beside
from opsmap_gateway.cli import main
from opsmap_gateway.configuration import Configuration
from opsmap_gateway.gateway import Gateway
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.identity import Identity
from opsmap_trust.certificates import encode_certificate
from opsmap_trust.enrolment_tokens import EnrolmentTokenText
from testing_pki import ORGANIZATION, Pki

Answer = Callable[[dict[str, Any]], tuple[int, bytes]]


class Web:
    """Answers every POST with `answer`; `bodies` are what it was sent."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.answer: Answer = lambda body: (500, b"")
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                web.bodies.append(body)
                status, content = web.answer(body)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: Any) -> None:
                """Nobody reads it."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    thread = Thread(target=web.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield web
    web.server.shutdown()
    web.server.server_close()
    thread.join()


def token_for(pki: Pki) -> str:
    der = pki.root.certificate.public_bytes(serialization.Encoding.DER)
    return str(EnrolmentTokenText(secrets.token_bytes(32), hashlib.sha256(der).digest()))


def issuing(pki: Pki, **others: Any) -> Answer:
    """The backend's answer; `others` replace parts of it."""

    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        uri = Identity(ORGANIZATION, PeerRole.GATEWAY, body["name"]).uri
        found = {
            "certificate": pki.issue(pki.gateway_ca, uri, body["csr"]),
            "root": encode_certificate(pki.root.certificate),
            "backendAuthorities": [encode_certificate(pki.backend_ca.certificate)],
            "gatewayAuthorities": [encode_certificate(pki.gateway_ca.certificate)],
            "agentAuthorities": [encode_certificate(pki.agent_ca.certificate)],
        }
        return 201, json.dumps(found | others).encode()

    return answer


@pytest.fixture
def run(web: Web, tmp_path: Path, pki: Pki, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`run(...)`: the command with further arguments; its exit code."""
    monkeypatch.setenv("OPSMAP_ENROLMENT_TOKEN", token_for(pki))

    def run_(*extra: str, backend: str | None = None) -> int:
        config = str(tmp_path / "gateway.yaml")
        return main(["enroll", "--backend", backend or web.url, "--id", "gw-7", "--config", config, *extra])

    return run_


def test_enrolled_gateway_can_start_with_what_was_written(
    web: Web, run: Callable[..., int], pki: Pki, tmp_path: Path
) -> None:
    web.answer = issuing(pki)
    assert run("--zone", "lab", "--link", "wss://backend.example:9443") == 0
    (body,) = web.bodies
    assert (body["role"], body["name"]) == ("gateway", "gw-7")
    assert "PRIVATE" not in json.dumps(body)
    configuration = load(tmp_path / "gateway.yaml", Configuration)
    assert (configuration.gateway.zone, configuration.backend_connection.url) == ("lab", "wss://backend.example:9443")
    assert Gateway(configuration).credentials.identity.name == "gw-7"
    key = configuration.agent_server.tls.key_file
    assert key.stat().st_mode & 0o777 == 0o600
    assert run() == 1, "it is not overwritten"
    assert len(web.bodies) == 1, "and nobody is asked"
    assert run("--force") == 0


def test_interrupted_enrolment_is_finished_without_a_second_token(
    web: Web, run: Callable[..., int], pki: Pki, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it is after a kill between the certificate's last byte and its last name."""
    web.answer = issuing(pki)
    assert run() == 0
    for name in ("gateway.crt", "gateway.key"):
        path = tmp_path / "gateway-certs" / name
        path.rename(beside(path))
    (tmp_path / "gateway.yaml").unlink()
    assert run() == 0
    assert len(web.bodies) == 1
    assert "by an earlier attempt" in capsys.readouterr().out
    assert (tmp_path / "gateway.yaml").exists()


def problem(status: int, code: str) -> Answer:
    return lambda body: (status, json.dumps({"code": code, "detail": "The token was used."}).encode())


@pytest.mark.parametrize(
    ("answer", "exit_code", "complaint"),
    [
        (lambda pki: problem(403, "token_spent"), 77, "refused: The token was used. (token_spent)"),
        (lambda pki: problem(429, "too_many_refusals"), 75, "(too_many_refusals)"),
        (lambda pki: lambda body: (503, b"<h1>maintenance</h1>"), 75, "it does not say why (HTTP 503)"),
        (lambda pki: lambda body: (200, b"<h1>hello</h1>"), 1, "does not answer like OpsMap"),
        (lambda pki: lambda body: (200, b"[" * 100_000), 1, "does not answer like OpsMap"),
        (lambda pki: lambda body: (200, b"x" * 1_000_000), 1, "does not answer like OpsMap"),
        (lambda pki: issuing(pki, certificate=["AAAA"]), 1, "the chain has 1 certificates"),
        (lambda pki: issuing(pki, agentAuthorities=[]), 1, "0 agent authorities"),
        (lambda pki: issuing(pki, root=encode_certificate(pki.agent_ca.certificate)), 1, "root is not the one"),
    ],
)
def test_what_goes_wrong_is_told_and_leaves_nothing(
    web: Web,
    run: Callable[..., int],
    pki: Pki,
    tmp_path: Path,
    answer: Callable[[Pki], Answer],
    exit_code: int,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    web.answer = answer(pki)
    assert run() == exit_code
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_certificate_of_another_gateway_is_not_written(
    web: Web, run: Callable[..., int], pki: Pki, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    web.answer = lambda body: issuing(pki)({**body, "name": "gw-8"})
    assert run() == 1
    assert "which is not of gateway gw-7" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["http://backend.example", "ftp://127.0.0.1", "backend.example", "http://", "https://h:x"]
)
def test_token_never_travels_in_the_clear(
    run: Callable[..., int], url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(backend=url) == 1
    assert "expected https://host" in capsys.readouterr().err


def test_token_comes_from_where_it_is_told(
    web: Web, run: Callable[..., int], pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    web.answer = problem(403, "token_spent")
    given = token_for(pki)
    (tmp_path / "token").write_text(f"  {given}\n")
    assert run("--token-file", str(tmp_path / "token")) == 77
    assert run("--token", given) == 77
    assert "shows the token to every user" in capsys.readouterr().err
    assert [body["token"] for body in web.bodies] == [given, given]
    monkeypatch.delenv("OPSMAP_ENROLMENT_TOKEN")
    assert run() == 1
    assert run("--token-file", str(tmp_path / "absent")) == 1
    assert run("--token", "opsmap-enrol-secret") == 1
    said = capsys.readouterr().err
    assert "no enrolment token: give --token-file" in said
    assert "absent: cannot be read: No such file" in said
    assert "has two parts of 43 characters" in said
    assert "secret" not in said
    assert base64.b64encode(b"secret").decode() not in said
