"""A very small HTTP client for health checks: one request, no redirects, a bounded body, no connection kept.

Written here because it costs no thread per request, no import of a larger client, and follows nobody anywhere.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from functools import cache
from urllib.parse import SplitResult, urlsplit

from opsmap_agent.rules.reach import Reach

_MAX_BODY_BYTES = 64 * 1024
_MAX_HEADER_BYTES = 32 * 1024


class HttpError(Exception):
    """No usable answer. The message says what happened instead."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    status: int
    body: str
    latency_ms: int
    headers: dict[str, str]
    """By their names in small letters; of several with one name the last."""


async def open_stream(
    host: str, port: int, reach: Reach, tls: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the first address of `host` that answers, of those that `reach` allows.

    Raises:
        RejectedError: none of them is allowed.
        OSError: nobody answers there.
    """
    first_error: OSError | None = None
    for address in await reach.addresses(host, port):
        try:
            return await asyncio.open_connection(
                address,
                port,
                ssl=tls,
                server_hostname=host if tls is not None else None,
                limit=_MAX_HEADER_BYTES,
            )
        except OSError as error:
            first_error = first_error or error
        except OverflowError as error:
            raise OSError(f"not a port: {port} ({error})") from None
    raise first_error or OSError(f"no address for {host}")


async def get(url: str, reach: Reach, *, method: str = "GET", is_verified: bool = True) -> HttpAnswer:
    """The answer to one request without a body. The caller sets the time limit.

    Without `is_verified` a server may show any certificate: for a look at a host whose certificate is just what is
    wrong.

    Raises:
        HttpError: the URL cannot be asked, or what answers is not HTTP.
        RejectedError: `reach` does not allow its host.
        OSError: nobody answers.
    """
    parts = _split(url)
    begun = time.monotonic()
    tls = None
    if parts.scheme == "https":
        tls = _trust() if is_verified else _no_trust()
    reader, writer = await open_stream(parts.hostname or "", parts.port or (443 if tls else 80), reach, tls)
    try:
        writer.write(_request(method, parts))
        await writer.drain()
        status, headers = await _read_head(reader)
        body = b"" if method == "HEAD" else await _read_body(reader, headers)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        raise HttpError(f"not a complete HTTP answer: {error}") from None
    finally:
        # Not awaited: a server that never closes its side would hold the check.
        writer.transport.abort()
    latency_ms = round((time.monotonic() - begun) * 1000)
    return HttpAnswer(status, body.decode("utf-8", "replace"), latency_ms, headers)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_fine = False
    if not is_fine or any(character.isspace() or ord(character) < 32 for character in url):
        raise HttpError(f"not an http or https URL: {url[:200]!r}")
    return parts


@cache
def _trust() -> ssl.SSLContext:
    """Made at the first https check only: the host's certificate store takes some megabytes."""
    return ssl.create_default_context()


@cache
def _no_trust() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _request(method: str, parts: SplitResult) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    head = [
        f"{method} {target} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: opsmap-agent",
        "Accept: */*",
        "Connection: close",
    ]
    return ("\r\n".join(head) + "\r\n\r\n").encode("utf-8")


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.split("\r\n")
    words = status_line.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise HttpError(f"not an HTTP answer: {status_line[:80]!r}")
    fields = (line.partition(":") for line in lines if line)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in fields}


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _read_chunks(reader)
    length = int(headers.get("content-length", _MAX_BODY_BYTES))
    body = bytearray()
    while len(body) < min(length, _MAX_BODY_BYTES):
        data = await reader.read(min(length, _MAX_BODY_BYTES) - len(body))
        if not data:
            break
        body += data
    return bytes(body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while len(body) < _MAX_BODY_BYTES:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        body += await reader.readexactly(min(size, _MAX_BODY_BYTES - len(body)))
        if len(body) < _MAX_BODY_BYTES:
            await reader.readexactly(2)
    return bytes(body)
