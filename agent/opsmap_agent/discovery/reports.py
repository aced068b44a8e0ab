"""What one look at a kind comes to: what has changed since the backend was told, and how much of it may be told.

Apart from `survey`, which loads every collector: the agent itself only reads reports.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from opsmap_agent.discovery.findings import Finding, Found, clean
from opsmap_protocol.codec import canonical
from opsmap_protocol.enums import DiscoveryKind

KIBIBYTE = 1024
BUDGETS = {
    DiscoveryKind.PORTS: 130 * KIBIBYTE,
    DiscoveryKind.PROCESSES: 250 * KIBIBYTE,
    DiscoveryKind.CONNECTIONS: 200 * KIBIBYTE,
    DiscoveryKind.TECHNOLOGIES: 80 * KIBIBYTE,
    DiscoveryKind.SERVICES: 120 * KIBIBYTE,
    DiscoveryKind.CONTAINERS: 100 * KIBIBYTE,
    DiscoveryKind.PODS: 70 * KIBIBYTE,
    DiscoveryKind.FILESYSTEMS: 50 * KIBIBYTE,
}
"""Together below 1 MiB, so that a host with ten thousand connections still tells of its services. In the order in which
they are looked at: what may have to wait for others comes last."""

_MAX_FAULT = 400

Digests = dict[str, str]
"""By key, of the findings of one kind: enough to know which have changed."""


@dataclass(frozen=True, slots=True)
class KindReport:
    """What has changed of one kind, and the digests of all that there is now."""

    kind: DiscoveryKind
    changed: list[Finding] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    digests: Digests = field(default_factory=dict)
    fault: str | None = None


def within(found: Found, max_bytes: int) -> Found:
    """As many of the findings, in their order, as fit."""
    size = 0
    for index, finding in enumerate(found.findings):
        size += len(canonical(finding).encode("utf-8", "surrogatepass")) + 1
        if size > max_bytes:
            fault = f"only {index} of {len(found.findings)} are told: together they exceed {max_bytes // KIBIBYTE} KiB"
            return Found(found.findings[:index], fault)
    return found


def compare(kind: DiscoveryKind, found: Found, told: Digests) -> KindReport:
    """The difference to what was told."""
    by_key = {finding["key"]: finding for finding in found.findings}
    digests = {key: digest(finding) for key, finding in by_key.items()}
    return KindReport(
        kind,
        changed=[by_key[key] for key, value in digests.items() if told.get(key) != value],
        removed=[key for key in told if key not in digests],
        digests=digests,
        fault=clean(found.fault, _MAX_FAULT) if found.fault else None,
    )


def digest(finding: Finding) -> str:
    text = canonical(finding).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=8).hexdigest()
