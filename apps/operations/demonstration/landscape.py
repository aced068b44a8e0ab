"""The components of a made-up company: what they are, what they are called, where they run, and who needs whom.

Pure and seeded: the same seed gives the same landscape. Components stand in tiers, as in most companies: what is shared
by all at the bottom, then data, brokers, services, interfaces, and what people see on top. Each belongs to a domain of
the business and needs mostly others of its domain, and only ever what stands in a tier below: there are no cycles.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

COMPONENTS_PER_DOMAIN = 120
COMPONENTS_PER_HOST = 6
WEAK_SHARE = 0.1
_FOREIGN_SHARE = 0.06
"""Of the dependencies that leave the domain: one company, not a hundred."""

_FAVOUR = 3
"""Of what all share, a few are needed by most: the share of the first tenth is its third root."""

DOMAINS = (
    *("trading", "payments", "billing", "orders", "pricing", "risk", "ledger", "custody", "settlement", "treasury"),
    *("catalogue", "search", "checkout", "shipping", "warehouse", "returns", "loyalty", "marketing", "accounts"),
    *("identity", "fraud", "claims", "policies", "underwriting", "reporting", "archive", "messaging", "support"),
    *("planning", "production", "quality", "maintenance", "fleet", "metering", "grid", "tickets", "bookings"),
)
TEAMS = ("north", "south", "east", "west", "core", "edge")


@dataclass(frozen=True, slots=True)
class Kind:
    """Something a company runs. `start_ms` and `stop_ms` are usual durations."""

    name: str
    type: str
    technology: str
    versions: tuple[str, ...]
    port: int
    start_ms: int
    stop_ms: int


@dataclass(frozen=True, slots=True)
class Tier:
    """`share` of all components stand here."""

    group: str
    title: str
    share: float
    kinds: tuple[Kind, ...]


TIERS = (
    Tier(
        "foundation",
        "Foundation",
        0.04,
        (
            Kind("vault", "service", "vault", ("1.17.6", "1.18.3"), 8200, 6_000, 2_000),
            Kind("consul", "service", "consul", ("1.19.2", "1.20.1"), 8500, 5_000, 2_000),
            Kind("directory", "service", "openldap", ("2.5.18", "2.6.8"), 636, 4_000, 1_500),
            Kind("storage", "storage", "minio", ("2024.11.7",), 9000, 8_000, 3_000),
        ),
    ),
    Tier(
        "databases",
        "Databases",
        0.16,
        (
            Kind("db", "database", "postgresql", ("12.20", "14.15", "16.6", "17.2"), 5432, 9_000, 6_000),
            Kind("store", "database", "mariadb", ("10.6.20", "11.4.4"), 3306, 11_000, 7_000),
            Kind("documents", "database", "mongodb", ("6.0.19", "7.0.15", "8.0.4"), 27017, 12_000, 5_000),
            Kind("timeseries", "database", "influxdb", ("2.7.11",), 8086, 7_000, 3_000),
        ),
    ),
    Tier(
        "middleware",
        "Caches and brokers",
        0.14,
        (
            Kind("cache", "cache", "redis", ("6.2.16", "7.2.6", "7.4.1"), 6379, 1_200, 600),
            Kind("queue", "broker", "rabbitmq", ("3.13.7", "4.0.4"), 5672, 14_000, 8_000),
            Kind("stream", "broker", "kafka", ("3.6.2", "3.9.0"), 9092, 25_000, 15_000),
            Kind("index", "database", "elasticsearch", ("7.17.26", "8.16.1"), 9200, 35_000, 9_000),
        ),
    ),
    Tier(
        "services",
        "Services",
        0.38,
        (
            Kind("service", "service", "openjdk", ("8", "11", "17", "21"), 8080, 22_000, 5_000),
            Kind("engine", "service", "go", ("1.22", "1.23"), 8081, 1_500, 800),
            Kind("worker", "service", "python", ("3.9.20", "3.11.10", "3.12.7"), 8082, 4_000, 3_000),
            Kind("processor", "service", "dotnet", ("6.0.36", "8.0.11"), 8083, 9_000, 3_000),
        ),
    ),
    Tier(
        "interfaces",
        "Interfaces",
        0.14,
        (
            Kind("api", "service", "openjdk", ("17", "21"), 8090, 18_000, 4_000),
            Kind("gateway", "web", "kong", ("3.4.2", "3.8.1"), 8000, 6_000, 2_000),
            Kind("bff", "service", "nodejs", ("18.20.5", "20.18.1", "22.11.0"), 3000, 3_000, 1_000),
        ),
    ),
    Tier(
        "frontends",
        "Frontends and jobs",
        0.14,
        (
            Kind("web", "web", "nginx", ("1.24.0", "1.26.2", "1.27.3"), 443, 900, 400),
            Kind("portal", "web", "tomcat", ("9.0.97", "10.1.33"), 8443, 20_000, 6_000),
            Kind("export", "batch", "python", ("3.11.10", "3.12.7"), 0, 2_000, 2_000),
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class DraftComponent:
    """`tier` is a place in `TIERS`, `domain` a number. `version` is that of its technology."""

    name: str
    kind: Kind
    version: str
    tier: int
    domain: int
    host: str
    labels: dict[str, str]

    def spec(self, dependencies: Sequence[Any]) -> dict[str, Any]:
        """As a document of kind Component says it."""
        service = self.name
        spec: dict[str, Any] = {
            "type": self.kind.type,
            "host": self.host,
            "group": TIERS[self.tier].group,
            "technology": {"name": self.kind.technology, "version": self.version},
            **({"dependsOn": list(dependencies)} if dependencies else {}),
            "commands": {
                "start": {"command": f"systemctl start {service}"},
                "stop": {"command": f"systemctl stop {service}"},
                "status": {
                    "command": f"systemctl is-active {service}",
                    "execution": {"mode": "sync", "timeout_ms": 5000},
                },
            },
        }
        if self.kind.port:
            spec["healthcheck"] = {"type": "tcp", "port": self.kind.port}
        return spec


@dataclass(frozen=True, slots=True)
class Landscape:
    """Components from the bottom up, and (source, target, is_strong) by their places: the source needs the target."""

    components: list[DraftComponent]
    dependencies: list[tuple[int, int, bool]]

    def specs(self) -> list[dict[str, Any]]:
        """The spec of each component."""
        needs: dict[int, list[Any]] = defaultdict(list)
        for source, target, is_strong in self.dependencies:
            name = self.components[target].name
            needs[source].append(name if is_strong else {"component": name, "kind": "weak"})
        return [component.spec(needs[place]) for place, component in enumerate(self.components)]


def draw_landscape(draw: random.Random, components: int, dependencies: int, *, host_prefix: str = "srv") -> Landscape:
    """A landscape of so many components, and as near to so many dependencies as there are pairs for."""
    drafts = list(_draw_components(draw, components, host_prefix))
    return Landscape(drafts, _draw_dependencies(draw, drafts, dependencies))


def hosts_of(landscape: Landscape) -> list[str]:
    """Each host once, in order."""
    return sorted({component.host for component in landscape.components})


def _draw_components(draw: random.Random, count: int, host_prefix: str) -> Iterator[DraftComponent]:
    domains = max(1, round(count / COMPONENTS_PER_DOMAIN))
    hosts = max(1, round(count / COMPONENTS_PER_HOST / domains))
    numbers: dict[tuple[int, str], int] = defaultdict(int)
    for tier, size in enumerate(_tier_sizes(count)):
        for place in range(size):
            domain = place % domains
            kind = draw.choice(TIERS[tier].kinds)
            numbers[domain, kind.name] += 1
            name = domain_name(domain)
            yield DraftComponent(
                name=f"{name}-{kind.name}-{numbers[domain, kind.name]:02}",
                kind=kind,
                version=draw.choice(kind.versions),
                tier=tier,
                domain=domain,
                host=f"{host_prefix}-{name}-{draw.randrange(hosts) + 1:02}",
                labels={
                    "domain": name,
                    "team": TEAMS[domain % len(TEAMS)],
                    "tier": TIERS[tier].group,
                    "critical": "yes" if draw.random() < 0.2 else "no",
                },
            )


def domain_name(domain: int) -> str:
    """Different for each number; a company with more domains than we have words for has them once for each country."""
    again, word = divmod(domain, len(DOMAINS))
    return DOMAINS[word] + (f"-{again + 1}" if again else "")


def _tier_sizes(count: int) -> list[int]:
    """How many components stand in each tier; together `count`."""
    ends, share = [], 0.0
    for tier in TIERS:
        share += tier.share
        ends.append(round(count * share))
    ends[-1] = count
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def _draw_dependencies(
    draw: random.Random, drafts: Sequence[DraftComponent], count: int
) -> list[tuple[int, int, bool]]:
    begins = [0] * (len(TIERS) + 1)
    for draft in drafts:
        begins[draft.tier + 1] += 1
    for tier in range(len(TIERS)):
        begins[tier + 1] += begins[tier]
    near: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, draft in enumerate(drafts):
        near[draft.domain, draft.tier].append(place)
    upper = range(begins[1], len(drafts))
    possible = sum(begins[drafts[place].tier] for place in upper)
    links: dict[tuple[int, int], bool] = {}
    attempts = 0
    while len(links) < min(count, possible) and attempts < 30 * count:
        attempts += 1
        # Everybody first once, so that nobody floats alone.
        source = upper[attempts - 1] if attempts <= len(upper) else draw.choice(upper)
        tier = drafts[source].tier
        # Mostly the tier right below, else any.
        below = tier - 1 if draw.random() < 0.6 else draw.randrange(tier)
        candidates: Sequence[int] = near[drafts[source].domain, below]
        if below == 0 or not candidates or draw.random() < _FOREIGN_SHARE:
            candidates = range(begins[below], begins[below + 1])
        if candidates:
            target = candidates[int(len(candidates) * draw.random() ** (_FAVOUR if below == 0 else 1))]
            links.setdefault((source, target), draw.random() >= WEAK_SHARE)
    return [(source, target, is_strong) for (source, target), is_strong in sorted(links.items())]
