"""Containers and pods: scripted engines on Unix sockets, and a scripted API server with the cluster's own CA."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from opsmap_agent.discovery import local_http
from opsmap_agent.discovery.containers import SOCKETS, discover_containers
from opsmap_agent.discovery.findings import NotAvailableError
from opsmap_agent.discovery.pods import discover_pods

if TYPE_CHECKING:
    from conftest import Pki

Answer = Callable[[BaseHTTPRequestHandler], tuple[int, bytes]]

WEB = {
    "Id": "0123456789abcdef" * 4,
    "Names": ["/shop-web-1"],
    "Image": "nginx:1.27",
    "State": "running",
    "Status": "Up 3 hours",
    "Labels": {
        "com.docker.compose.project": "shop",
        "com.docker.compose.service": "web",
        "password": "hunter2",
    },
    "Ports": [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},  # noqa: S104
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 443, "Type": "tcp"},
    ],
}


class UnixServer(HTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        # HTTPServer would ask for the name of a host.
        self.socket.bind(self.server_address)  # type: ignore[arg-type]


def handler_of(answer: Answer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

        def address_string(self) -> str:
            return ""

    return Handler


@contextmanager
def serving(server: HTTPServer) -> Iterator[HTTPServer]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def engine(path: Path, answer: Answer) -> Iterator[str]:
    with serving(UnixServer(str(path), handler_of(answer), bind_and_activate=True)):  # type: ignore[arg-type]
        yield str(path)


def says(*containers: Any) -> Answer:
    return lambda request: (200, json.dumps(containers).encode())


# Containers


def test_containers_are_told_without_what_changes_by_itself_or_is_secret(tmp_path: Path) -> None:
    paths: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        paths.append(request.path)
        return 200, json.dumps([WEB]).encode()

    with engine(tmp_path / "docker.sock", answer) as path:
        [found] = discover_containers([path]).findings
    assert paths == ["/containers/json?all=1"]
    assert found == {
        "key": "docker:shop-web-1",
        "engine": "docker",
        "id": "0123456789ab",
        "name": "shop-web-1",
        "image": "nginx:1.27",
        "status": "running",
        "compose_project": "shop",
        "compose_service": "web",
        "ports": [{"port": 80, "protocol": "tcp", "published": 8080}, {"port": 443, "protocol": "tcp"}],
    }


def test_one_engine_that_fails_does_not_hide_the_other(tmp_path: Path) -> None:
    with (
        engine(tmp_path / "docker.sock", lambda request: (500, b"broken")) as broken,
        engine(tmp_path / "podman.sock", says(WEB)) as good,
    ):
        found = discover_containers([broken, good])
    assert [each["key"] for each in found.findings] == ["podman:shop-web-1"]
    assert found.fault == f"{broken}: it answers 500: broken"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"no json", "does not answer with JSON"),
        (b"[" * 100_000, "does not answer with JSON"),
        (b'{"message": "x"}', "not answer with a list"),
    ],
)
def test_an_engine_that_talks_nonsense_is_a_fault(tmp_path: Path, body: bytes, reason: str) -> None:
    with engine(tmp_path / "d.sock", lambda request: (200, body)) as path, pytest.raises(NotAvailableError) as error:
        discover_containers([path])
    assert reason in str(error.value)


@pytest.mark.parametrize(
    "container",
    [
        {"Id": "x", "Names": None, "Labels": [], "Ports": "none", "Image": None, "State": 7},
        {"Id": "x", "Names": [], "Ports": [None, {"PrivatePort": "80"}, {"PrivatePort": 80, "PublicPort": "x"}]},
        {"Id": "x", "Names": ["/<b>\x1b[31m" + "y" * 10_000], "Labels": {"com.docker.compose.project": 7}},
    ],
)
def test_odd_containers_are_told_as_far_as_they_make_sense(tmp_path: Path, container: dict[str, Any]) -> None:
    with engine(tmp_path / "d.sock", says(container, "nonsense", {})) as path:
        [found] = discover_containers([path]).findings
    assert all(value.isprintable() and len(value) <= 300 for value in found.values() if isinstance(value, str))


def test_an_engine_that_hangs_or_floods_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_http, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(local_http, "_MAX_BYTES", 1000)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen()
        with pytest.raises(NotAvailableError, match="has not answered within"):
            discover_containers([str(tmp_path / "silent.sock")])
    with (
        engine(tmp_path / "flood.sock", lambda request: (200, b" " * 5000)) as path,
        pytest.raises(NotAvailableError, match="more than"),
    ):
        discover_containers([path])


def test_without_an_engine_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotAvailableError, match="neither Docker nor Podman"):
        discover_containers([str(tmp_path / "none.sock")])
    (tmp_path / "stale.sock").touch()
    with pytest.raises(NotAvailableError, match="it does not answer"):
        discover_containers([str(tmp_path / "stale.sock")])


@pytest.mark.skipif(not Path(SOCKETS[0]).exists(), reason="no Docker runs on this machine")
def test_containers_are_those_of_the_docker_client() -> None:
    client = shutil.which("docker")
    assert client is not None, "there is a socket of Docker, but no client to compare with"
    shown = subprocess.run([client, "ps", "-a", "--format", "{{.Names}}"], capture_output=True, text=True, check=True)
    assert {each["name"] for each in discover_containers(SOCKETS[:1]).findings} == set(shown.stdout.split())


# Pods


def pod(number: int) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"web-{number}",
            "namespace": "shop",
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web"}],
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "app", "image": "shop:1"}]},
        "status": {"phase": "Running"},
    }


@contextmanager
def cluster(pki: Pki, folder: Path, answer: Answer) -> Iterator[dict[str, Any]]:
    """An API server, and what a pod of it finds: arguments of `discover_pods`."""
    leaf = pki.gateway("kubernetes")
    folder.mkdir()
    (folder / "ca.crt").write_bytes(pki.gateway_ca.ca.read_bytes())
    (folder / "token").write_text("the-token\n")
    server = HTTPServer(("127.0.0.1", 0), handler_of(answer))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.cert, leaf.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server):
        port = str(server.server_address[1])
        yield {
            "account": folder,
            "environment": {"KUBERNETES_SERVICE_HOST": "localhost", "KUBERNETES_SERVICE_PORT": port},
        }


def test_pods_come_page_by_page_with_the_pods_own_token(pki: Pki, tmp_path: Path) -> None:
    asked: list[tuple[str, dict[str, list[str]]]] = []

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        if request.headers["Authorization"] != "Bearer the-token":
            return 401, b"who are you?"
        url = urlsplit(request.path)
        asked.append((url.path, parse_qs(url.query)))
        following = {"continue": "next"} if "continue" not in parse_qs(url.query) else {}
        return 200, json.dumps({"items": [pod(len(asked))], "metadata": following}).encode()

    with cluster(pki, tmp_path / "account", answer) as inside:
        found = discover_pods("sh/op", **inside).findings
    assert [path for path, _ in asked] == ["/api/v1/namespaces/sh%2Fop/pods"] * 2
    assert found[0] == {
        "key": "shop/web-1",
        "name": "web-1",
        "namespace": "shop",
        "status": "Running",
        "node": "node-1",
        "owner": "ReplicaSet/web",
        "containers": [{"name": "app", "image": "shop:1"}],
    }
    assert found[1]["key"] == "shop/web-2"


def test_who_may_not_list_pods_is_told_why(pki: Pki, tmp_path: Path) -> None:
    with cluster(pki, tmp_path / "account", lambda request: (403, b'pods is "forbidden"')) as inside:
        with pytest.raises(NotAvailableError, match='it answers 403: pods is "forbidden"'):
            discover_pods(**inside)
        (inside["account"] / "ca.crt").write_bytes(pki.agent_ca.ca.read_bytes())
        with pytest.raises(NotAvailableError, match="certificate"):
            discover_pods(**inside)
        (inside["account"] / "token").unlink()
        with pytest.raises(NotAvailableError, match="the service account of this pod cannot be used"):
            discover_pods(**inside)


@pytest.mark.parametrize("answer", [[], {}, {"items": 7}])
def test_an_api_server_that_talks_nonsense_is_a_fault(pki: Pki, tmp_path: Path, answer: Any) -> None:
    with (
        cluster(pki, tmp_path / "account", lambda request: (200, json.dumps(answer).encode())) as inside,
        pytest.raises(NotAvailableError, match="does not answer with a list of pods"),
    ):
        discover_pods(**inside)


@pytest.mark.parametrize(("items", "keys"), [([None, 7], []), ([{"metadata": 7, "spec": [], "status": None}], ["/"])])
def test_odd_pods_are_told_as_far_as_they_make_sense(pki: Pki, tmp_path: Path, items: Any, keys: list[str]) -> None:
    with cluster(pki, tmp_path / "account", lambda request: (200, json.dumps({"items": items}).encode())) as inside:
        assert [each["key"] for each in discover_pods(**inside).findings] == keys


def test_outside_of_a_cluster_that_is_said() -> None:
    with pytest.raises(NotAvailableError, match="does not run inside a Kubernetes cluster"):
        discover_pods(environment={})
