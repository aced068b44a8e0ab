"""What is known of technologies beyond their names: where they answer, and which are no part of an application.

To add one, add its line. Names are those of the agents' catalogue (docs/discovery.md).
"""

from __future__ import annotations

from dataclasses import dataclass

_DEFAULT_TYPE = "service"
TYPES = frozenset({"database", "cache", "broker", "web", "service", "batch", "storage", "monitoring"})

STRONG_TYPES = frozenset({"database", "cache", "broker", "storage"})
"""Who talks to one of these most likely cannot start without it; any other conversation only suggests an order."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The port that a technology usually answers at, and the path that says by HTTP 200 that it is well, if any."""

    port: int
    path: str = ""


ANSWERS: dict[str, Answer] = {
    # Databases and search
    "postgresql": Answer(5432),
    "mysql": Answer(3306),
    "mariadb": Answer(3306),
    "mongodb": Answer(27017),
    "clickhouse": Answer(8123, "/ping"),
    "influxdb": Answer(8086, "/health"),
    "sqlserver": Answer(1433),
    "cockroachdb": Answer(26257),
    "oracle-database": Answer(1521),
    "couchdb": Answer(5984, "/_up"),
    "cassandra": Answer(9042),
    "neo4j": Answer(7687),
    # Both may ask for a password: that they listen must do.
    "elasticsearch": Answer(9200),
    "opensearch": Answer(9200),
    "solr": Answer(8983),
    "etcd": Answer(2379),
    # Caches
    "redis": Answer(6379),
    "valkey": Answer(6379),
    "memcached": Answer(11211),
    "varnish": Answer(6081),
    # Brokers and coordination
    "kafka": Answer(9092),
    "zookeeper": Answer(2181),
    "activemq": Answer(61616),
    "pulsar": Answer(6650),
    "rabbitmq": Answer(5672),
    "nats": Answer(4222),
    "mosquitto": Answer(1883),
    "consul": Answer(8500, "/v1/status/leader"),
    "vault": Answer(8200),
    # Web servers and proxies: what they answer at / is their applications' business.
    "nginx": Answer(80),
    "apache-httpd": Answer(80),
    "haproxy": Answer(80),
    "traefik": Answer(80),
    "caddy": Answer(80),
    "tomcat": Answer(8080),
    # Watching
    "prometheus": Answer(9090, "/-/healthy"),
    "alertmanager": Answer(9093, "/-/healthy"),
    "grafana": Answer(3000, "/api/health"),
    "loki": Answer(3100, "/ready"),
    # Storing and building
    "minio": Answer(9000, "/minio/health/live"),
    "gitea": Answer(3000, "/api/healthz"),
    "jenkins": Answer(8080, "/login"),
    "nexus": Answer(8081, "/service/rest/v1/status"),
    "sonarqube": Answer(9000, "/api/system/ping"),
    "keycloak": Answer(8080),
}

RUNTIMES = frozenset({"java", "node.js", "dotnet", "erlang", "python", "ruby", "php", "perl"})
"""They run components and are none."""

OF_THE_SYSTEM = frozenset(
    {
        *(
            "openssh",
            "postfix",
            "exim",
            "dovecot",
            "bind",
            "unbound",
            "dnsmasq",
            "chrony",
            "ntp",
            "cups",
            "salt-minion",
        ),
        *("docker", "containerd", "cri-o", "kubelet", "k3s", "kube-apiserver"),
        *("node_exporter", "telegraf", "fluent-bit", "zabbix-agent", "gitlab-runner"),
    }
)
"""On every host, and of no application: whoever wants one on a Map writes it there."""

UNITS_OF_THE_SYSTEM = (
    *("systemd-", "user@", "session-", "ssh", "dbus", "getty@", "serial-getty@", "cron", "rpcbind", "avahi", "cups"),
    *("NetworkManager", "ModemManager", "polkit", "snapd", "chrony", "ntp", "postfix", "exim", "docker", "containerd"),
    *("kubelet", "k3s", "opsmap-", "rsyslog", "node_exporter", "prometheus-node-exporter", "telegraf", "bluetooth"),
    *("smartd", "nfs-", "rpc-", "unattended-upgrades", "fwupd", "udisks2", "accounts-daemon", "cloud-", "qemu-guest"),
)
"""Prefixes of units that listen and belong to the system."""


def component_type(said: str) -> str:
    return said if said in TYPES else _DEFAULT_TYPE
