"""The whole product as processes, for tests across them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.smoke.stack import Stack


class Client:
    """The REST API as a script sees it, with a token."""

    def __init__(self, web_url: str, credentials: dict[str, str]) -> None:
        self.web_url = web_url.rstrip("/")
        self.credentials = credentials
        self._token = ""
        _, token = self.post("/auth/tokens", {**credentials, "name": "tests"})
        self._token = token["token"]

    def get(self, path: str) -> tuple[int, Any]:
        return self._call("GET", path)

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(urlsplit(self.web_url).netloc, timeout=40)
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        payload = None if body is None else json.dumps(body)
        try:
            connection.request(method, f"/api/v1{path}", payload, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(text) if text else None


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Everything `make run` starts, on free ports in a temporary folder; nothing of it may be left."""
    running = Stack()
    try:
        running.start()
        yield running
        running.stop()
        running.remove()
    finally:
        running.abandon()


@pytest.fixture(scope="session")
def client(stack: Stack) -> Client:
    return Client(stack.ready["web_url"], stack.credentials())
