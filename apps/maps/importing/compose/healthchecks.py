"""A container's health check as one that the agent of its host can do: http or tcp on a published port, else the same
command within the container.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from apps.maps.importing.compose.commands import Project
from apps.maps.importing.compose.fields import Port, milliseconds

_EXIT = re.compile(r"\s*\|\|\s*(?:exit\s+(?:1|\$\?)|false|kill\b[^|&;]*)\s*;?\s*$")
"""`|| exit 1`: all that it does is done by the exit code anyway."""

_SHELL = re.compile(r"[|&;<>$`\n(){}*?\[\]~!]")
_LOCAL = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}  # noqa: S104 - compared with, not bound
# Options by which curl and wget ask for the same page as without them.
_HARMLESS = re.compile(
    r"-[fsSLqiIvnO]+-?|--(?:fail|silent|show-error|location|quiet|spider|head|no-verbose|fail-with-body)"
    r"|--(?:tries|timeout|max-time|connect-timeout|retry|output|output-document)(?:=\S*)?|-[oTtm]\d*|-nv|-|/dev/null|\d+"
)


@dataclass(frozen=True, slots=True)
class Health:
    """`check` is the health check of a component; `text` says where it is from, `is_exact` whether it is the same."""

    check: dict[str, Any]
    text: str
    is_exact: bool
    key: str = "healthcheck"
    start_wait_ms: int = 0


def declared_test(declared: Any) -> list[str] | str | None:
    """The test of a `healthcheck`: words, a text for a shell, or None if it is switched off or there is none."""
    if not isinstance(declared, Mapping) or declared.get("disable") is True or str(declared.get("disable")) == "true":
        return None
    test = declared.get("test")
    if isinstance(test, str):
        return None if test == "NONE" else test or None
    if not isinstance(test, list) or not test:
        return None
    kind, *words = [str(item) for item in test]
    if kind == "CMD-SHELL":
        return " ".join(words) or None
    if kind == "CMD":
        return words or None
    return None


def health_of(
    declared: Mapping[str, Any], test: list[str] | str, service: str, ports: Sequence[Port], project: Project
) -> Health:
    """The check for this test."""
    words = _words(test)
    check = _from_outside(words, service, ports) if words else None
    if check:
        text = "asked for on the published port instead of inside the container"
        return Health({**check, **_timing(declared)}, text, is_exact=False, start_wait_ms=_start_wait(declared))
    command = words or ["sh", "-c", test if isinstance(test, str) else ""]
    args = project.elsewhere("exec", "-T", service, *command)
    check = {"type": "command", "command": "docker", "args": args}
    text = "the same command, run in the container by the agent"
    return Health({**check, **_timing(declared)}, text, is_exact=True, start_wait_ms=_start_wait(declared))


def guessed_health(ports: Sequence[Port], container: str) -> Health:
    """A check for a service that declares none: its first published port, else that its container runs."""
    for port in ports:
        if port.protocol == "tcp" and port.published:
            check = {"type": "tcp", "port": port.published, **({} if port.host == "localhost" else {"host": port.host})}
            return Health(check, f"port {port.published} must be open, as nothing else is said", False, key="ports")
    check = {"type": "command", "command": "docker", "args": ["container", "top", container]}
    return Health(check, f"the container {container} must be running, as nothing else is said", False)


def _words(test: list[str] | str) -> list[str] | None:
    """The words of a test that needs no shell; None if it does."""
    if isinstance(test, list):
        if len(test) == 3 and test[0].rpartition("/")[2] in {"sh", "bash", "ash"} and test[1] == "-c":
            return _words(test[2]) or test
        return test
    plain = _EXIT.sub("", test).strip()
    if not plain or _SHELL.search(_without_addresses(plain)):
        return None
    try:
        return shlex.split(plain) or None
    except ValueError:
        return None


def _without_addresses(text: str) -> str:
    """The question mark and ampersand of an address within quotes are no signs of a shell."""
    return re.sub(r"'[^']*'|\"[^\"$`]*\"", "", text)


def _from_outside(words: list[str], service: str, ports: Sequence[Port]) -> dict[str, Any] | None:
    program = words[0].rpartition("/")[2]
    if program in {"curl", "wget"}:
        return _http(words[1:], service, ports)
    if program in {"nc", "netcat", "ncat"}:
        return _tcp(words[1:], service, ports)
    return None


def _http(words: list[str], service: str, ports: Sequence[Port]) -> dict[str, Any] | None:
    addresses = [word for word in words if not _HARMLESS.fullmatch(word)]
    if len(addresses) != 1 or addresses[0].startswith("-"):
        return None
    address = addresses[0] if "://" in addresses[0] else f"http://{addresses[0]}"
    try:
        parts = urlsplit(address)
        inside = parts.port or 80
    except ValueError:
        return None
    if parts.scheme != "http" or parts.username or parts.hostname not in {*_LOCAL, service}:
        return None
    port = _published(inside, ports)
    if port is None:
        return None
    query = f"?{parts.query}" if parts.query else ""
    return {"type": "http", "url": f"http://{_bracketed(port.host)}:{port.published}{parts.path or '/'}{query}"}


def _tcp(words: list[str], service: str, ports: Sequence[Port]) -> dict[str, Any] | None:
    plain = [word for word in words if not word.startswith("-")]
    if len(plain) != 2 or plain[0] not in {*_LOCAL, service} or not plain[1].isdecimal():
        return None
    port = _published(int(plain[1][:6]), ports)
    if port is None:
        return None
    host = {} if port.host == "localhost" else {"host": port.host}
    return {"type": "tcp", "port": port.published, **host}


def _published(inside: int, ports: Sequence[Port]) -> Port | None:
    return next((port for port in ports if port.target == inside and port.published and port.protocol == "tcp"), None)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _timing(declared: Mapping[str, Any]) -> dict[str, int]:
    timing = {}
    interval, timeout = milliseconds(declared.get("interval")), milliseconds(declared.get("timeout"))
    if interval:
        timing["interval_ms"] = max(interval, 250)
    if timeout:
        timing["timeout_ms"] = timeout
    retries = str(declared.get("retries"))
    if retries.isdecimal() and 0 < int(retries[:6]) <= 100:
        timing["failure_threshold"] = int(retries)
    return timing


def _start_wait(declared: Mapping[str, Any]) -> int:
    """How long a start may take by the check's own words: the start period and all retries, and something more."""
    period = milliseconds(declared.get("start_period")) or 0
    interval = milliseconds(declared.get("interval")) or 30_000
    retries = str(declared.get("retries") or 3)
    return period + interval * (int(retries[:3]) if retries.isdecimal() else 3) + 60_000
