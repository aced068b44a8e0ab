"""The fields of a Compose service that have several forms, each brought to one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|ns|h|m|s|d|w)")
_UNIT_MS = {"ns": 1e-6, "us": 1e-3, "ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_MAX_MS = 86_400_000
_PORT = re.compile(
    r"(?:(?P<ip>\[[0-9a-fA-F:]+\]|\d+\.\d+\.\d+\.\d+):)?"
    r"(?:(?P<published>\d{0,5}(?:-\d{1,5})?):)?(?P<target>\d{1,5}(?:-\d{1,5})?)(?:/(?P<protocol>[a-z]+))?"
)
_EVERYWHERE = {"", "0.0.0.0", "::", "127.0.0.1", "::1"}  # noqa: S104 - compared with, not bound
_MAX_RANGE = 1_000

Condition = str
STARTED, HEALTHY, COMPLETED = "service_started", "service_healthy", "service_completed_successfully"


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a container and where the host has it; `published` is None where Docker chooses."""

    target: int
    published: int | None
    host_ip: str = ""
    protocol: str = "tcp"

    @property
    def host(self) -> str:
        """By which name the host itself reaches it."""
        return "localhost" if self.host_ip in _EVERYWHERE else self.host_ip


@dataclass(frozen=True, slots=True)
class Wait:
    """That a service waits for another, and until when."""

    service: str
    condition: Condition = STARTED
    is_required: bool = True
    restarts: bool = False


def milliseconds(value: Any) -> int | None:
    """`1m30s` as milliseconds, at most a day; None for what is no duration."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return min(int(value / 1_000_000), _MAX_MS)  # A bare number counts nanoseconds.
    if not isinstance(value, str) or len(value) > 50:
        return None
    parts = _DURATION.findall(value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        return None
    total = sum(float(number) * _UNIT_MS[unit] for number, unit in parts)
    return min(round(total), _MAX_MS)


def ports(value: Any) -> Iterator[Port | str]:
    """The ports of a service in all their forms; what is no port comes back as it was written."""
    for item in value if isinstance(value, list) else ():
        if isinstance(item, Mapping):
            yield from _long_port(item)
        else:
            yield from _short_port(str(item))


def _short_port(text: str) -> Iterator[Port | str]:
    found = _PORT.fullmatch(text.strip())
    if found is None:
        yield text
        return
    targets = _range(found["target"])
    published: list[int | None] = [*_range(found["published"])] if found["published"] else []
    published = published or [None] * len(targets)
    if not targets or len(published) != len(targets):
        # "8000-9000:80" lets Docker choose one of them.
        published = [None] * len(targets)
    ip = (found["ip"] or "").strip("[]")
    for target, outside in zip(targets, published, strict=True):
        yield Port(target, outside, ip, found["protocol"] or "tcp")


def _long_port(item: Mapping[str, Any]) -> Iterator[Port | str]:
    target = _number(item.get("target"))
    if target is None:
        yield str(dict(item))[:100]
        return
    protocol = str(item.get("protocol") or "tcp")
    yield Port(target, _number(item.get("published")), str(item.get("host_ip") or ""), protocol)


def _range(text: str) -> list[int]:
    first, _, last = text.partition("-")
    begin, end = int(first or 0), int(last or first or 0)
    return list(range(begin, end + 1)) if 0 < begin <= end <= 65_535 and end - begin < _MAX_RANGE else []


def _number(value: Any) -> int | None:
    text = str(value)
    number = int(text) if text.isdecimal() and len(text) <= 5 else 0
    return number if 0 < number <= 65_535 else None


def waits(value: Any) -> Iterator[Wait]:
    """`depends_on` as a list of names or as a mapping to conditions."""
    if isinstance(value, list):
        yield from (Wait(str(name)) for name in value)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            given = item if isinstance(item, Mapping) else {}
            yield Wait(
                str(name),
                str(given.get("condition") or STARTED),
                is_required=given.get("required", True) is not False,
                restarts=given.get("restart", False) is True,
            )


def implied_waits(service: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Key and service of what Docker Compose starts first without being told in `depends_on`."""
    for key in ("links", "volumes_from"):
        items = service.get(key)
        for item in items if isinstance(items, list) else ():
            name = str(item).partition(":")[0]
            if name != "container":
                yield key, name
    for key in ("network_mode", "pid", "ipc"):
        kind, _, name = str(service.get(key) or "").partition(":")
        if kind == "service" and name:
            yield key, name


def replicas(service: Mapping[str, Any]) -> int | None:
    """How many containers of it are asked for; None where nothing is said."""
    deploy = service.get("deploy")
    wanted = deploy.get("replicas") if isinstance(deploy, Mapping) else None
    if wanted is None:
        wanted = service.get("scale")
    text = str(wanted)
    return int(text) if text.isdecimal() and len(text) <= 6 else None


def texts(value: Any) -> list[str]:
    """A list of texts, or one text as a list of it."""
    if isinstance(value, list):
        return [str(item) for item in value if not isinstance(item, Mapping | list)]
    return [str(value)] if isinstance(value, str | int | float) else []
