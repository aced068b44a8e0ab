"""The one program behind every HTTP service of the demonstration.

It loads for a while with its port closed, then answers `/health` by asking what it needs. Written on bare
sockets: a dozen of these stay resident on one machine, and `http.server` or `asyncio` would double their
memory.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from deploy.demo.components import COMPONENTS, Component
from deploy.demo.journal import say
from deploy.demo.probes import UP, answers, ask_port, ask_process

PROBE_TIMEOUT_S = 0.4
"""Below the 800 ms of the documents' health checks, so that a dependency that hangs is named and not just timed out."""

VERDICT_MAX_AGE_S = 0.25
"""Services ask each other down the graph: were no answer kept for a moment, one question would become hundreds."""

_CLIENT_TIMEOUT_S = 0.3
_MAX_REQUEST_BYTES = 8192
_LOADING_STEPS = 4


class Health(NamedTuple):
    needs: dict[str, str]
    uses: dict[str, str]

    @property
    def is_up(self) -> bool:
        """A service is up if everything that it needs is; what it merely uses may be missing."""
        return all(verdict == UP for verdict in self.needs.values())


class Service:
    """Serves one component on 127.0.0.1 until `is_over`, which is asked about once a second, says so."""

    def __init__(self, component: Component, ports: dict[str, int], *, is_over: Callable[[], bool]) -> None:
        self._component = component
        self._port = ports[component.name]
        self._needs = [ask_process(name, COMPONENTS[name].kind, ports[name]) for name in component.needs]
        self._uses = [ask_port(name, ports[name]) for name in component.uses]
        self._is_over = is_over
        self._health: Health | None = None
        self._asked_at = 0.0

    def run(self) -> None:
        if not self._warm_up():
            return
        with socket.create_server(("127.0.0.1", self._port), backlog=64) as listener:
            say(f"listening on 127.0.0.1:{self._port}")
            listener.settimeout(1.0)
            checked_at = time.monotonic()
            while True:
                try:
                    client, _address = listener.accept()
                except TimeoutError:
                    pass
                else:
                    self._serve(client)
                if time.monotonic() - checked_at >= 1.0:
                    checked_at = time.monotonic()
                    if self._is_over():
                        return

    def _warm_up(self) -> bool:
        """Load, as a real service does before it opens its port; False if it was over before it began."""
        for step in range(1, _LOADING_STEPS + 1):
            time.sleep(self._component.warm_up_s / _LOADING_STEPS)
            if self._is_over():
                return False
            say(f"loaded {100 * step // _LOADING_STEPS} %")
        return True

    def _serve(self, client: socket.socket) -> None:
        """Answer one request and close. A client that sends nothing, or goes away, costs a moment and no more."""
        with client:
            client.settimeout(_CLIENT_TIMEOUT_S)
            try:
                request = _read_request(client)
                if request:
                    client.sendall(self._respond(request))
            except OSError as error:
                say(f"a client went away: {error}")

    def _respond(self, request: bytes) -> bytes:
        words = request.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3:
            return _response("400 Bad Request", {"error": "not an HTTP request"})
        method, path, _version = words
        if path != b"/health":
            return _response("404 Not Found", {"error": "there is only /health here"})
        if method != b"GET":
            return _response("405 Method Not Allowed", {"error": "/health is only read"})
        health = self._ask()
        return _response(
            "200 OK" if health.is_up else "503 Service Unavailable",
            {
                "status": UP if health.is_up else "DOWN",
                "component": self._component.name,
                "needs": health.needs,
                "uses": health.uses,
            },
        )

    def _ask(self) -> Health:
        """What is needed and whether it is there, at most `VERDICT_MAX_AGE_S` old."""
        if self._health is not None and time.monotonic() - self._asked_at < VERDICT_MAX_AGE_S:
            return self._health
        verdicts = answers([*self._needs, *self._uses], timeout_s=PROBE_TIMEOUT_S)
        health = Health(
            {question.name: verdicts[question.name] for question in self._needs},
            {question.name: verdicts[question.name] for question in self._uses},
        )
        if self._health is None or health.is_up != self._health.is_up:
            say("up" if health.is_up else f"down: {_missing(health)}")
        self._health, self._asked_at = health, time.monotonic()
        return health


def _missing(health: Health) -> str:
    return ", ".join(f"{name}: {verdict}" for name, verdict in health.needs.items() if verdict != UP)


def _read_request(client: socket.socket) -> bytes:
    """The head of a request, or nothing if the client only opened the connection, as a port check does."""
    head = b""
    deadline = time.monotonic() + _CLIENT_TIMEOUT_S
    while b"\r\n\r\n" not in head:
        received = client.recv(_MAX_REQUEST_BYTES)
        head += received
        if not received or len(head) > _MAX_REQUEST_BYTES or time.monotonic() > deadline:
            return b""
    return head


def _response(status: str, body: dict[str, object]) -> bytes:
    # Without spaces: checks look for the text '"status":"UP"'.
    content = json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + content
