"""A small client of the REST API over one kept connection, as a script of a customer would have it."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException
from typing import Any

from tests.smoke.errors import SmokeError

_TIMEOUT_S = 15.0


class Rest:
    """Calls below `/api/v1`. `token` is sent with every call once it is set."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = HTTPConnection(host, port, timeout=_TIMEOUT_S)
        self.token: str | None = None

    def get(self, path: str) -> Any:
        return self._call("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("POST", path, body)

    def close(self) -> None:
        self._connection.close()

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        """The parsed answer; anything but 2xx is an error that quotes the problem document."""
        headers = {"Accept": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body).encode()
        try:
            self._connection.request(method, f"/api/v1{path}", body=content, headers=headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (HTTPException, OSError) as error:
            # The next call opens a new connection; this one's answer is lost, and a lost answer is a failure.
            self._connection.close()
            raise SmokeError(f"{method} {path}: {type(error).__name__}: {error}") from error
        if not 200 <= answer.status < 300:
            raise SmokeError(f"{method} {path} answered {answer.status}: {text[:500].decode('utf-8', 'replace')}")
        try:
            return json.loads(text)
        except ValueError as error:
            raise SmokeError(f"{method} {path} answered no JSON: {text[:200]!r}") from error
