"""The table of technologies: each entry has an example that it recognises, and no other entry does."""

from __future__ import annotations

import random
import string
import time

import pytest

from opsmap_agent.discovery.catalogue import RUNTIMES, SERVERS, recognise, recognise_runtime

EXAMPLES = {
    "postgresql": "/usr/lib/postgresql/16/bin/postgres -D /var/lib/postgresql/16/main",
    "mysql": "/usr/sbin/mysqld",
    "mariadb": "/usr/sbin/mariadbd",
    "mongodb": "/usr/bin/mongod --config /etc/mongod.conf",
    "clickhouse": "/usr/bin/clickhouse-server -C /etc/clickhouse-server/config.xml",
    "influxdb": "/usr/bin/influxd",
    "oracle-database": "ora_pmon_ORCL",
    "sqlserver": "/opt/mssql/bin/sqlservr",
    "cockroachdb": "/usr/local/bin/cockroach start --join=n1",
    "couchdb": "/opt/couchdb/bin/../erts-13.2/bin/beam.smp -- -name couchdb@127.0.0.1",
    "cassandra": "java -cp /usr/share/apache-cassandra-4.1.3.jar org.apache.cassandra.service.CassandraDaemon",
    "neo4j": "/usr/bin/java -cp /usr/share/neo4j/lib/* org.neo4j.server.CommunityEntryPoint",
    "elasticsearch": "/usr/share/es/jdk/bin/java -m org.elasticsearch.server/org.elasticsearch.bootstrap.Elasticsearch",
    "opensearch": "/usr/share/opensearch/jdk/bin/java -cp lib/* org.opensearch.bootstrap.OpenSearch",
    "solr": "java -Dsolr.solr.home=/var/solr/data -jar start.jar --module=http",
    "redis": "/usr/bin/redis-server 127.0.0.1:6379",
    "valkey": "/usr/bin/valkey-server *:6379",
    "memcached": "/usr/bin/memcached -m 64 -p 11211",
    "varnish": "/usr/sbin/varnishd -a :6081",
    "squid": "/usr/sbin/squid -sYC",
    "kafka": "java -cp /opt/kafka/libs/kafka_2.13-3.7.0.jar kafka.Kafka /opt/kafka/config/server.properties",
    "zookeeper": "java -cp /opt/zk/lib/zookeeper-3.8.4.jar org.apache.zookeeper.server.quorum.QuorumPeerMain",
    "activemq": "java -Dactivemq.home=/opt/activemq -jar /opt/activemq/bin/activemq.jar start",
    "pulsar": "java -cp /pulsar/lib/* org.apache.pulsar.PulsarBrokerStarter",
    "rabbitmq": "/usr/lib/erlang/erts-13.1.5/bin/beam.smp -W w -- -pa /usr/lib/rabbitmq/rabbitmq_server-3.12.1/ebin",
    "nats": "/usr/bin/nats-server -c /etc/nats-server.conf",
    "mosquitto": "/usr/sbin/mosquitto -c /etc/mosquitto/mosquitto.conf",
    "etcd": "/usr/bin/etcd --data-dir=/var/lib/etcd",
    "consul": "/usr/bin/consul agent -config-dir=/etc/consul.d/",
    "vault": "/usr/bin/vault server -config=/etc/vault.d/vault.hcl",
    "nomad": "/usr/bin/nomad agent -config /etc/nomad.d",
    "nginx": "nginx: master process /usr/sbin/nginx -g daemon on;",
    "apache-httpd": "/usr/sbin/apache2 -k start",
    "lighttpd": "/usr/sbin/lighttpd -D -f /etc/lighttpd/lighttpd.conf",
    "caddy": "/usr/bin/caddy run --config /etc/caddy/Caddyfile",
    "haproxy": "/usr/sbin/haproxy -Ws -f /etc/haproxy/haproxy.cfg",
    "traefik": "/usr/local/bin/traefik --configFile=/etc/traefik.yml",
    "envoy": "/usr/local/bin/envoy -c /etc/envoy/envoy.yaml",
    "tomcat": "/usr/bin/java -Dcatalina.home=/opt/tomcat -cp bootstrap.jar org.apache.catalina.startup.Bootstrap start",
    "wildfly": "java -jar /opt/wildfly/jboss-modules.jar -mp modules org.jboss.as.standalone",
    "keycloak": "java -Dkc.home.dir=/opt/keycloak -cp quarkus.jar io.quarkus.bootstrap.runner.QuarkusEntryPoint",
    "jenkins": "/usr/bin/java -Djava.awt.headless=true -jar /usr/share/java/jenkins.war --httpPort=8080",
    "sonarqube": "java -cp ./lib/sonar-application-10.4.jar org.sonar.server.app.WebServer",
    "nexus": "java -Dkaraf.home=. org.sonatype.nexus.karaf.NexusMain",
    "logstash": "java -cp /usr/share/logstash/vendor/jruby.jar org.logstash.Logstash",
    "jetty": "java -jar /opt/jetty-home-12.0.5/start.jar --module=http jetty.home=/opt/jetty-home-12.0.5",
    "php-fpm": "php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)",
    "gunicorn": "/srv/app/venv/bin/python3 /srv/app/venv/bin/gunicorn app:app -b :8000",
    "uvicorn": "python3 -m uvicorn main:app --port 8000",
    "daphne": "/srv/venv/bin/python /srv/venv/bin/daphne -p 8000 app.asgi:application",
    "celery": "/srv/venv/bin/python -m celery -A app worker",
    "airflow": "/opt/venv/bin/python /opt/venv/bin/airflow scheduler",
    "puma": "puma 6.4.2 (tcp://0.0.0.0:3000) [app]",
    "prometheus": "/usr/bin/prometheus --config.file=/etc/prometheus/prometheus.yml",
    "alertmanager": "/usr/bin/alertmanager --config.file=/etc/alertmanager.yml",
    "node_exporter": "/usr/local/bin/node_exporter",
    "grafana": "/usr/share/grafana/bin/grafana server --config=/etc/grafana/grafana.ini",
    "loki": "/usr/bin/loki -config.file=/etc/loki/config.yml",
    "zabbix-server": "/usr/sbin/zabbix_server -c /etc/zabbix/zabbix_server.conf",
    "zabbix-agent": "/usr/sbin/zabbix_agentd -c /etc/zabbix/zabbix_agentd.conf",
    "telegraf": "/usr/bin/telegraf -config /etc/telegraf/telegraf.conf",
    "fluent-bit": "/opt/fluent-bit/bin/fluent-bit -c /etc/fluent-bit/fluent-bit.conf",
    "minio": "/usr/local/bin/minio server /data",
    "gitlab-runner": "/usr/bin/gitlab-runner run --config /etc/gitlab-runner/config.toml",
    "gitea": "/usr/local/bin/gitea web --config /etc/gitea/app.ini",
    "docker": "/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock",
    "containerd": "/usr/bin/containerd",
    "cri-o": "/usr/bin/crio",
    "kubelet": "/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml",
    "kube-apiserver": "kube-apiserver --advertise-address=10.0.0.1",
    "k3s": "/usr/local/bin/k3s server",
    "openssh": "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups",
    "postfix": "/usr/lib/postfix/sbin/master -w",
    "exim": "/usr/sbin/exim4 -bd -q30m",
    "dovecot": "/usr/sbin/dovecot -F",
    "bind": "/usr/sbin/named -u bind",
    "unbound": "/usr/sbin/unbound -d -p",
    "dnsmasq": "/usr/sbin/dnsmasq -x /run/dnsmasq.pid",
    "chrony": "/usr/sbin/chronyd -F 1",
    "ntp": "/usr/sbin/ntpd -p /var/run/ntpd.pid",
    "samba": "/usr/sbin/smbd --foreground --no-process-group",
    "vsftpd": "/usr/sbin/vsftpd /etc/vsftpd.conf",
    "openldap": "/usr/sbin/slapd -h ldap:///",
    "cups": "/usr/sbin/cupsd -l",
    "salt-minion": "/usr/bin/python3 /usr/bin/salt-minion",
    "java": "/usr/lib/jvm/java-17-openjdk-amd64/bin/java -jar /opt/trading-api.jar",
    "node.js": "/usr/bin/node /srv/app/server.js",
    "python": "/usr/bin/python3.11 /srv/app/server.py",
    "ruby": "/usr/bin/ruby3.1 /srv/app/server.rb",
    "php": "/usr/bin/php8.2 -S 0.0.0.0:8000",
    "perl": "/usr/bin/perl /srv/app/server.pl",
    "dotnet": "/usr/bin/dotnet /srv/app/App.dll",
    "erlang": "/usr/lib/erlang/erts-13.1.5/bin/beam.smp -- -root /usr/lib/erlang",
}  # fmt: skip
ALSO = {
    "postgresql": ["postgres", "/usr/bin/postmaster -D /data"],
    "nginx": ["/usr/sbin/nginx -g daemon off;"],
    "php-fpm": ["/usr/sbin/php-fpm8.2 --nodaemonize"],
    "gunicorn": ["gunicorn: master [app]", "python -m gunicorn app:app", "gunicorn app:app"],
    "uvicorn": ["/venv/bin/uvicorn main:app", "/usr/bin/python3.12 -X dev -m uvicorn main:app"],
    "puma": ["/usr/bin/ruby3.1 /usr/bin/puma -C config/puma.rb"],
    "python": ["python", "/usr/bin/python3 -u app.py"],
    "node.js": ["node server.js"],
    "openssh": ["/usr/sbin/sshd -D"],
}
NONE_OF_THEM = [
    "tail -f /var/log/nginx/access.log",
    "vim /etc/postgresql/16/main/postgresql.conf",
    "grep -r redis-server /etc",
    "less uvicorn",
    "cat /opt/kafka/libs/kafka_2.13-3.7.0.jar kafka.Kafka",
    "ssh host java org.apache.catalina.startup.Bootstrap",
    "/usr/libexec/postfixed/master",
    "/usr/bin/containerd-shim-runc-v2 -namespace moby",
    "bash -c puma",
    "sleep 60",
    "",
]


def names_of(line: str) -> tuple[str, ...]:
    return (line.partition(" ")[0].rpartition("/")[2],)


def recognised(line: str) -> str | None:
    found = recognise(names_of(line), line)
    return found.name if found else None


def test_every_entry_has_an_example_and_there_are_enough() -> None:
    names = [each.name for each in (*SERVERS, *RUNTIMES)]
    assert sorted(names) == sorted(EXAMPLES)
    assert len(names) >= 40


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_recognised_by_its_own_entry_alone(name: str) -> None:
    line = EXAMPLES[name]
    assert recognised(line) == name
    # Of servers exactly one: an order that matters among them would be a trap for whoever adds the next.
    assert [each.name for each in SERVERS if each.fits(names_of(line), line) and each.name != name] == []


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, lines in ALSO.items() for line in lines])
def test_other_ways_to_start_it_are_recognised(name: str, line: str) -> None:
    assert recognised(line) == name


@pytest.mark.parametrize("line", NONE_OF_THEM)
def test_who_only_mentions_it_is_not_taken_for_it(line: str) -> None:
    assert recognised(line) is None


def test_the_interpreter_of_a_server_is_known_too() -> None:
    line = EXAMPLES["kafka"]
    runtime = recognise_runtime(names_of(line), line)
    assert runtime is not None
    assert runtime.name == "java"


@pytest.mark.parametrize(
    "text",
    [
        "java " + "a" * 32_000,
        "java" + " -cp" * 8_000,
        "python " + "-m " * 10_000,
        "python " + "-X " * 10_000,
        "/" * 32_000,
        "beam " * 6_000,
    ],
)
def test_a_long_command_line_costs_little(text: str) -> None:
    begun = time.process_time()
    recognise(names_of(text), text)
    assert time.process_time() - begun < 0.5


def test_noise_is_nothing() -> None:
    letters = random.Random(4)  # noqa: S311
    for _ in range(200):
        text = "".join(letters.choices(string.printable, k=200))
        found = recognised(text)
        assert found is None or found in EXAMPLES
