"""Technologies that are recognised. To add one, add its entry here and its example to the test of this table.

`programs` are names of the program itself. `pattern` is looked for in the command line of the rest, above all of what
runs in an interpreter: it must be so particular that nobody else's command line has it, be it as an argument. The
first entry that fits counts. `component` is the kind of component that a person would make of it (SPEC 3.1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

NUMBER = r"(\d+(?:\.\d+)+)"
_PYTHON = r"^(?:\S*python[0-9.]* (?:-[XW] \S+ |-(?![XW] )\S+ )*)?(?:\S*/)?"
"""Before the name of a Python program: run by itself, as a script, or as a module."""


@dataclass(frozen=True)
class Technology:
    """`version` finds it in the command line or the path of the program, in its first group.

    `distribution` is the Python package whose version it has.
    """

    name: str
    component: str
    programs: tuple[str, ...] = ()
    pattern: str = ""
    version: str = ""
    distribution: str = ""

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        return re.compile(self.pattern) if self.pattern else None

    def fits(self, programs: Sequence[str], command_line: str) -> bool:
        if any(program in self.programs for program in programs):
            return True
        return self._pattern is not None and self._pattern.search(command_line) is not None


def _program(name: str, component: str, *programs: str, pattern: str = "", version: str = "") -> Technology:
    """A program of its own; called as its technology unless `programs` says how."""
    return Technology(name, component, programs or (name,), pattern, version)


def _in_java(name: str, component: str, main: str, before_version: str = "") -> Technology:
    """What `java` runs, known by its main class, archive or a property.

    The names of archives and folders have the version, after `before_version` or the technology's name.
    """
    return Technology(
        name, component, pattern=rf"^(?:\S*/)?java .*?(?:{main})", version=(before_version or f"{name}-") + NUMBER
    )


def _in_python(name: str, component: str, distribution: str = "", after: str = "(?: |$)") -> Technology:
    """A command that a Python package brings."""
    return Technology(name, component, pattern=_PYTHON + name + after, distribution=distribution or name)


def _titled(name: str, component: str, pattern: str, version: str = "") -> Technology:
    """What is known by its whole command line alone."""
    return Technology(name, component, pattern=pattern, version=version)


SERVERS: tuple[Technology, ...] = (
    # Databases and search
    _program("postgresql", "database", "postgres", "postmaster"),
    _program("mysql", "database", "mysqld"),
    _program("mariadb", "database", "mariadbd"),
    _program("mongodb", "database", "mongod", "mongos"),
    _program("clickhouse", "database", "clickhouse-server", "clickhouse-serv"),
    _program("influxdb", "database", "influxd", "influxdb3"),
    _program("sqlserver", "database", "sqlservr"),
    _program("cockroachdb", "database", "cockroach"),
    _titled("oracle-database", "database", r"^ora_pmon_\w+$"),
    _titled("couchdb", "database", r"^\S*beam\S* .*-s?name couchdb@"),
    _in_java("cassandra", "database", r"org\.apache\.cassandra\.service\.CassandraDaemon"),
    _in_java("neo4j", "database", r"(?:org|com)\.neo4j\.server\.(?:\w+\.)*\w*EntryPoint", r"neo4j-\w+-"),
    _in_java("elasticsearch", "database", r"org\.elasticsearch\.bootstrap\.Elasticsearch"),
    _in_java("opensearch", "database", r"org\.opensearch\.bootstrap\.OpenSearch"),
    _in_java("solr", "database", r"-Dsolr\.(?:solr\.home|install\.dir)="),
    _program("etcd", "database"),
    # Caches
    _program("redis", "cache", "redis-server", "redis-sentinel"),
    _program("valkey", "cache", "valkey-server", "valkey-sentinel"),
    _program("memcached", "cache"),
    _program("varnish", "cache", "varnishd", "cache-main"),
    # Brokers and coordination
    _in_java("kafka", "broker", r"(?<= )kafka\.Kafka\b", r"kafka_2\.\d+-"),
    _in_java("zookeeper", "broker", r"org\.apache\.zookeeper\.server\.\S*Main"),
    _in_java("activemq", "broker", r"-Dactivemq\.home=|activemq\.jar"),
    _in_java("pulsar", "broker", r"org\.apache\.pulsar\.Pulsar\w+Starter", r"apache-pulsar-"),
    _titled("rabbitmq", "broker", r"^\S*beam\S* .*rabbitmq_server-", rf"rabbitmq_server-{NUMBER}"),
    _program("nats", "broker", "nats-server"),
    _program("mosquitto", "broker"),
    _program("consul", "service"),
    _program("vault", "service"),
    _program("nomad", "service"),
    # Web servers and proxies
    _program("nginx", "web", pattern=r"^nginx: master process"),
    _program("apache-httpd", "web", "apache2", "httpd"),
    _program("lighttpd", "web"),
    _program("caddy", "web"),
    _program("haproxy", "web"),
    _program("traefik", "web"),
    _program("envoy", "web"),
    _program("squid", "web", "squid", "squid3"),
    # Application servers
    _in_java("tomcat", "web", r"org\.apache\.catalina\.startup\.Bootstrap"),
    _in_java("wildfly", "web", r"org\.jboss\.as\.(?:standalone|server|host-controller|process-controller)"),
    _in_java("keycloak", "service", r"-Dkc\.home\.dir="),
    _in_java("jenkins", "service", r"jenkins\.war\b"),
    _in_java("sonarqube", "service", r"org\.sonar\.(?:server|application)\.", r"sonar-application-"),
    _in_java("nexus", "service", r"org\.sonatype\.nexus\."),
    _in_java("logstash", "service", r"org\.logstash\.Logstash"),
    _in_java("jetty", "web", r"jetty\.home=|jetty-home-|org\.eclipse\.jetty\.start", r"jetty-(?:home|distribution)-"),
    _titled("php-fpm", "web", r"^(?:\S*/)?php-fpm[0-9.]*(?::| |$)", r"/php/(\d\.\d)/"),
    _in_python("gunicorn", "web", after=r"(?: |$|: master)"),
    _in_python("uvicorn", "web"),
    _in_python("daphne", "web"),
    _in_python("celery", "batch"),
    _in_python("airflow", "batch", "apache-airflow", after=r" (?:scheduler|webserver|worker|api-server|standalone)"),
    _in_python("salt-minion", "service", "salt"),
    _titled("puma", "web", r"^(?:\S*ruby\S* )?(?:\S*/)?puma[: ]", rf"^puma:? {NUMBER}"),
    # Watching
    _program("prometheus", "service"),
    _program("alertmanager", "service", "alertmanager", "prometheus-alertmanager"),
    _program("node_exporter", "service", "node_exporter", "prometheus-node-exporter"),
    _program("grafana", "web", "grafana", "grafana-server"),
    _program("loki", "service"),
    _program("zabbix-server", "service", "zabbix_server"),
    _program("zabbix-agent", "service", "zabbix_agentd", "zabbix_agent2"),
    _program("telegraf", "service"),
    _program("fluent-bit", "service"),
    # Building and storing
    _program("minio", "storage"),
    _program("samba", "storage", "smbd"),
    _program("vsftpd", "storage"),
    _program("gitlab-runner", "batch"),
    _program("gitea", "web", "gitea", "forgejo"),
    # Containers
    _program("docker", "service", "dockerd"),
    _program("containerd", "service"),
    _program("cri-o", "service", "crio"),
    _program("kubelet", "service"),
    _program("kube-apiserver", "service"),
    _program("k3s", "service", "k3s", "k3s-server", "k3s-agent"),
    # Of the system
    _program("openssh", "service", "sshd", pattern=r"^sshd: /usr/sbin/sshd"),
    _titled("postfix", "service", r"^\S*/postfix/(?:s?bin/)*master(?: |$)"),
    _program("exim", "service", "exim4", "exim"),
    _program("dovecot", "service"),
    _program("bind", "service", "named"),
    _program("unbound", "service"),
    _program("dnsmasq", "service"),
    _program("chrony", "service", "chronyd"),
    _program("ntp", "service", "ntpd"),
    _program("openldap", "service", "slapd"),
    _program("cups", "service", "cupsd"),
)

RUNTIMES: tuple[Technology, ...] = (
    _program("java", "service"),
    _program("node.js", "web", "node", "nodejs"),
    _program("dotnet", "web", version=rf"/dotnet/\S*?/{NUMBER}/"),
    _program("erlang", "service", "beam.smp", "beam", version=rf"/erts-{NUMBER}/"),
    _titled("python", "service", r"^\S*?python[0-9.]*(?: |$)"),
    _titled("ruby", "web", r"^\S*?ruby[0-9.]*(?: |$)"),
    _titled("php", "web", r"^(?:\S*/)?php[0-9.]*(?: |$)"),
    _titled("perl", "service", r"^(?:\S*/)?perl[0-9.]*(?: |$)"),
)
"""What interprets programs: told beside what it runs, since both have an age."""


def recognise(programs: Sequence[str], command_line: str) -> Technology | None:
    """What a process is: the names that its program may have, and its command line."""
    return _first(SERVERS, programs, command_line) or recognise_runtime(programs, command_line)


def recognise_runtime(programs: Sequence[str], command_line: str) -> Technology | None:
    return _first(RUNTIMES, programs, command_line)


def _first(table: Sequence[Technology], programs: Sequence[str], command_line: str) -> Technology | None:
    return next((each for each in table if each.fits(programs, command_line)), None)
