"""One GET of JSON from an API next to us: a Unix socket, or the API server of the cluster. Bounded in time and size."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any

from opsmap_agent.discovery.findings import NotAvailableError

TIMEOUT_S = 10.0
_MAX_BYTES = 32 * 1024 * 1024


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the Unix socket at `path`."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def get_json(connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str] | None = None) -> Any:
    """Raises NotAvailableError with the reason for a person."""
    try:
        connection.request("GET", path, headers={"Accept": "application/json", **(headers or {})})
        response = connection.getresponse()
        body = response.read(_MAX_BYTES + 1)
    except PermissionError:
        raise NotAvailableError("the agent's user may not use it") from None
    except TimeoutError:
        raise NotAvailableError(f"it has not answered within {TIMEOUT_S:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise NotAvailableError(f"it does not answer: {error}") from None
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise NotAvailableError(f"it answers {response.status}: {body[:200].decode('utf-8', 'replace')}")
    if len(body) > _MAX_BYTES:
        raise NotAvailableError(f"it answers with more than {_MAX_BYTES // 2**20} MiB")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise NotAvailableError("it does not answer with JSON") from None
