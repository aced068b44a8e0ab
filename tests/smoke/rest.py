"""A small client of the REST API over one kept connection, as a script of a customer would have it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any

from tests.smoke.errors import LostAnswerError, RefusedError, SmokeError

_TIMEOUT_S = 15.0


class Rest:
    """Calls below `/api/v1`. `token` is sent with every call once it is set."""

    def __init__(self, host: str, port: int, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._connection = HTTPConnection(host, port, timeout=timeout_s)
        self.token: str | None = None

    def get(self, path: str) -> Any:
        return self._call("GET", path, None, {})

    def post(self, path: str, body: Mapping[str, Any], *, idempotency_key: str | None = None) -> Any:
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self._call("POST", path, body, headers)

    def close(self) -> None:
        self._connection.close()

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None, headers: dict[str, str]) -> Any:
        """The parsed answer of success.

        Raises:
            RefusedError: any other answer.
            LostAnswerError: none came. The next call opens a new connection.
        """
        headers["Accept"] = "application/json"
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
            self._connection.close()
            raise LostAnswerError(f"{method} {path}: {type(error).__name__}: {error}") from error
        parsed = _parsed(text)
        if not 200 <= answer.status < 300:
            shown = text[:500].decode("utf-8", "replace")
            raise RefusedError(f"{method} {path} answered {answer.status}: {shown}", answer.status, parsed)
        if parsed is None:
            raise SmokeError(f"{method} {path} answered no JSON: {text[:200]!r}")
        return parsed


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
