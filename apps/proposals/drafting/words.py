"""Taking plain values out of findings. Hosts say them, and a host may be in other hands: nothing is believed unread."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

Findings = Mapping[str, Mapping[str, Any]]
"""By kind, the findings by their keys, as `AgentDiscovery.findings` has them."""

_UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]{1,200}\.service")
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_VERSION = re.compile(r"[\w.+~:-]{1,60}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]{0,59}")
_ADDRESS = re.compile(r"[0-9a-fA-F.:]{2,45}")


def each_of(findings: Findings, kind: str) -> Iterator[Mapping[str, Any]]:
    """The findings of a kind in the order of their keys."""
    of_kind = findings.get(kind)
    if isinstance(of_kind, Mapping):
        for key in sorted(of_kind):
            if isinstance(of_kind[key], Mapping):
                yield of_kind[key]


def text_of(finding: Mapping[str, Any], name: str, max_characters: int = 200) -> str:
    value = finding.get(name)
    return value[:max_characters] if isinstance(value, str) and value.isprintable() else ""


def technology_of(finding: Mapping[str, Any]) -> str:
    return _matching(_NAME, finding.get("name"))


def version_of(finding: Mapping[str, Any]) -> str:
    return _matching(_VERSION, finding.get("version"))


def unit_of(finding: Mapping[str, Any], name: str = "service") -> str:
    return _matching(_UNIT, finding.get(name))


def container_name_of(finding: Mapping[str, Any]) -> str:
    return _matching(_CONTAINER, finding.get("name"))


def address_of(finding: Mapping[str, Any], name: str) -> str:
    return _matching(_ADDRESS, finding.get(name))


def is_port(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536


def ports_of(finding: Mapping[str, Any]) -> tuple[int, ...]:
    ports = finding.get("ports")
    return tuple(sorted({port for port in ports if is_port(port)})) if isinstance(ports, list) else ()


def published_ports_of(finding: Mapping[str, Any]) -> tuple[int, ...]:
    """The ports of the host that lead into a container."""
    ports = finding.get("ports")
    entries = [entry for entry in ports if isinstance(entry, Mapping)] if isinstance(ports, list) else []
    found = {entry.get("published") for entry in entries if entry.get("protocol", "tcp") == "tcp"}
    return tuple(sorted(port for port in found if is_port(port)))


def _matching(pattern: re.Pattern[str], value: Any) -> str:
    return value if isinstance(value, str) and pattern.fullmatch(value) else ""
