"""Technologies by the names of images and units. To add one, add its line here.

`images` are last parts of image names (`postgres` of `docker.io/library/postgres:17`), or as many as the pattern has;
`units` are those of systemd without `.service`. `*` stands for anything. The first line that fits counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Technology:
    name: str
    component_type: str
    images: tuple[str, ...]
    units: tuple[str, ...]


def _line(name: str, component_type: str, images: str = "", units: str = "") -> Technology:
    return Technology(name, component_type, tuple(images.split() or [name]), tuple(units.split() or [name]))


TECHNOLOGIES: tuple[Technology, ...] = (
    # Monitoring first: postgres-exporter is no postgresql.
    _line("prometheus-exporter", "monitoring", "*exporter *_exporter cadvisor", "*exporter *_exporter"),
    _line("prometheus", "monitoring"),
    _line("alertmanager", "monitoring", "alertmanager", "alertmanager prometheus-alertmanager"),
    _line("grafana", "monitoring", "grafana grafana-oss grafana-enterprise", "grafana grafana-server"),
    _line("loki", "monitoring"),
    _line("promtail", "monitoring"),
    _line("alloy", "monitoring"),
    _line("tempo", "monitoring"),
    _line("jaeger", "monitoring", "jaeger all-in-one jaeger-*"),
    _line("opentelemetry-collector", "monitoring", "opentelemetry-collector*", "otelcol*"),
    _line("kibana", "monitoring"),
    _line("zabbix", "monitoring", "zabbix-*", "zabbix-*"),
    # Databases and search
    _line(
        "postgresql",
        "database",
        "postgres postgresql postgis timescaledb* pgvector* pgvecto-rs *postgres",
        "postgresql postgresql@* postgresql-*",
    ),
    _line("mariadb", "database", "mariadb mariadb-galera"),
    _line("mysql", "database", "mysql mysql-server percona*", "mysql mysqld"),
    _line("mongodb", "database", "mongo mongodb mongodb-community-server", "mongod mongodb"),
    _line("elasticsearch", "database"),
    _line("opensearch", "database"),
    _line("clickhouse", "database", "clickhouse clickhouse-server", "clickhouse-server"),
    _line("influxdb", "database"),
    _line("cassandra", "database"),
    _line("couchdb", "database"),
    _line("neo4j", "database"),
    _line("etcd", "database"),
    _line("meilisearch", "database"),
    _line("typesense", "database"),
    _line("solr", "database"),
    _line("sqlserver", "database", "mssql/server mssql-server", "mssql-server"),
    # Caches
    _line("redis", "cache", "redis redis-stack* redis-server", "redis redis-server redis@* redis-server@*"),
    _line("valkey", "cache", "valkey", "valkey valkey-server valkey@*"),
    _line("memcached", "cache"),
    _line("varnish", "cache"),
    # Brokers
    _line("kafka", "broker", "kafka cp-kafka kafka-native"),
    _line("zookeeper", "broker", "zookeeper cp-zookeeper"),
    _line("rabbitmq", "broker", "rabbitmq", "rabbitmq rabbitmq-server"),
    _line("nats", "broker", "nats", "nats nats-server"),
    _line("mosquitto", "broker", "eclipse-mosquitto mosquitto"),
    _line("activemq", "broker", "activemq* artemis"),
    # Web servers and proxies
    _line("nginx", "web", "nginx nginx-unprivileged openresty"),
    _line("apache-httpd", "web", "httpd apache2", "apache2 httpd"),
    _line("traefik", "web"),
    _line("caddy", "web"),
    _line("haproxy", "web"),
    _line("envoy", "web", "envoy envoy-alpine"),
    # Storage
    _line("minio", "storage"),
    _line("seaweedfs", "storage"),
    # Well-known applications and what they are built on
    _line("keycloak", "service"),
    _line("vault", "service"),
    _line("consul", "service"),
    _line("gitea-runner", "service", "act_runner", "act_runner gitea-runner"),
    _line("gitea", "service"),
    _line("forgejo", "service"),
    _line("gitlab", "service", "gitlab-ce gitlab-ee", "gitlab-runsvdir"),
    _line("jenkins", "service", "jenkins"),
    _line("nextcloud", "service"),
    _line("wordpress", "service"),
    _line("mattermost", "service", "mattermost-*", "mattermost"),
    _line("tomcat", "service", "tomcat", "tomcat tomcat*"),
    _line("openjdk", "service", "openjdk eclipse-temurin amazoncorretto"),
    _line("node", "service", "node"),
    _line("python", "service", "python"),
    _line("php", "service", "php php-fpm", "php-fpm php*-fpm"),
    _line("docker", "service", "docker dind", "docker"),
)

_UNIT_SUFFIX = ".service"
# "17.2", "v2.53.0", "7-alpine", "2024.1.1-ce"; not "latest", not "alpine".
_VERSION = re.compile(r"v?(\d+(?:\.\d+)*)")


@dataclass(frozen=True, slots=True)
class Recognized:
    """`technology` is None for what is known by no name, `version` where the name has none."""

    component_type: str
    technology: str | None
    version: str | None

    def as_spec(self) -> dict[str, str] | None:
        if self.technology is None:
            return None
        return {"name": self.technology, **({"version": self.version} if self.version else {})}


def recognize_image(image: str) -> Recognized:
    """What an image is, by its name and tag: `ghcr.io/x/postgres:17-alpine@sha256:…` is postgresql 17."""
    folder, _, last = image.partition("@")[0].rpartition("/")
    name, _, tag = last.lower().partition(":")
    version = _VERSION.match(tag)
    parent = folder.lower().rpartition("/")[2]
    known = _known((name, f"{parent}/{name}"), ((item, item.images) for item in TECHNOLOGIES))
    if known is None:
        return Recognized("service", None, None)
    return Recognized(known.component_type, known.name, version[1] if version else None)


def recognize_unit(unit: str) -> Recognized:
    """What a unit of systemd is, by its name: `postgresql@17-main.service` is postgresql."""
    known = _known((unit.removesuffix(_UNIT_SUFFIX).lower(),), ((item, item.units) for item in TECHNOLOGIES))
    return Recognized(known.component_type, known.name, None) if known else Recognized("service", None, None)


def technology_type(name: str) -> str | None:
    """The type of a component of this technology, if it is a known one."""
    return next((item.component_type for item in TECHNOLOGIES if item.name == name.lower()), None)


def _known(names: tuple[str, ...], patterns: Iterable[tuple[Technology, tuple[str, ...]]]) -> Technology | None:
    for item, known in patterns:
        if any(fnmatchcase(name, pattern) for pattern in known for name in names):
            return item
    return None
