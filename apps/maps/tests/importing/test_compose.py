"""Compose files to Maps: five of the shape of well-known projects, and every form that a field may have."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from apps.maps.documents.loading import ParsedComponent, ParsedMap, load_map
from apps.maps.importing.compose.importer import ComposeOptions, import_compose
from apps.maps.importing.drafts import ImportResult

FIXTURES = Path(__file__).parent / "compose"
NEEDS = dict[str, dict[str, str]]


def _import(content: str, **options: Any) -> ImportResult:
    return import_compose(content, ComposeOptions(**{"host": "srv-1", "folder": "/srv/app", **options}))


def _fixture(name: str, **options: Any) -> tuple[ParsedMap, ImportResult]:
    return _loaded(_import((FIXTURES / f"{name}.yml").read_text(), **options))


def _loaded(result: ImportResult) -> tuple[ParsedMap, ImportResult]:
    assert [fault.message for fault in result.faults] == []
    parsed, faults = load_map(result.sources)
    assert [fault.message for fault in faults] == []
    assert parsed is not None
    return parsed, result


def _services(text: str, **options: Any) -> tuple[dict[str, ParsedComponent], list[str]]:
    """Components of `services:` and the report, for tests of one field."""
    parsed, result = _loaded(_import("name: app\nservices:\n" + text, **options))
    return {item.name: item for item in parsed.components}, _remarks(result)


def _remarks(result: ImportResult, *outcomes: str) -> list[str]:
    return [
        f"{item['line']} {item['outcome']} {item['item']} {item['key']}: {item['text']}"
        for item in result.report.as_json()["items"]
        if not outcomes or item["outcome"] in outcomes
    ]


def _needs(parsed: ParsedMap) -> NEEDS:
    return {item.name: {link.needs: link.kind for link in item.dependencies} for item in parsed.components}


def _what(parsed: ParsedMap) -> dict[str, tuple[str, dict[str, str] | None]]:
    return {item.name: (item.spec["type"], item.spec.get("technology")) for item in parsed.components}


def _compose(folder: str, *words: str) -> list[str]:
    return ["compose", "--file", f"{folder}/docker-compose.yml", *words]


def test_photo_library() -> None:
    parsed, result = _fixture("photos", folder="/srv/photos", environment={"PHOTOS_VERSION": "v2.1.0"})

    assert (parsed.name, [group.name for group in parsed.groups]) == ("photos", ["services", "caches", "databases"])
    assert _needs(parsed) == {
        "photo-server": {"redis": "strong", "database": "strong"},
        "photo-machine-learning": {},
        "redis": {},
        "database": {},
    }
    assert _what(parsed) == {
        "photo-server": ("service", None),
        "photo-machine-learning": ("service", None),
        "redis": ("cache", {"name": "valkey", "version": "8"}),
        "database": ("database", {"name": "postgresql", "version": "14"}),
    }
    server, _, redis, database = (item.spec for item in parsed.components)
    assert server["description"] == "Container of ghcr.io/immich-app/immich-server:v2.1.0."
    assert server["commands"] == {
        "start": {"command": "docker compose up --detach --no-deps photo-server", "workingDir": "/srv/photos"},
        "stop": {"command": "docker compose stop photo-server", "workingDir": "/srv/photos"},
        "restart": {"command": "docker compose restart --no-deps photo-server", "workingDir": "/srv/photos"},
        "status": {"command": "docker container top photo_server"},
    }
    assert server["healthcheck"] == {"type": "tcp", "port": 2283}
    in_redis = _compose("/srv/photos", "exec", "-T", "redis", "redis-cli", "ping")
    assert redis["healthcheck"] == {"type": "command", "command": "docker", "args": in_redis}
    assert database["healthcheck"]["args"] == ["container", "top", "photo_postgres"]
    remarks = _remarks(result)
    assert "9 left_out photo-server volumes: storage stays with Docker" in remarks
    assert "16 taken photo-server depends_on: redis must be running" in remarks
    assert "20 left_out photo-server healthcheck: it has no test" in remarks
    assert not [line for line in remarks if "PHOTOS_VERSION" in line]


def test_chat_server() -> None:
    parsed, result = _fixture("chat", project="chat", folder="/srv/docker", environment={"APP_PORT": "80"})

    assert _needs(parsed) == {"postgres": {}, "chat": {"postgres": "strong"}}
    assert _what(parsed) == {
        "postgres": ("database", {"name": "postgresql", "version": "14"}),
        "chat": ("service", {"name": "mattermost", "version": "10.5"}),
    }
    postgres, chat = (item.spec for item in parsed.components)
    start = "docker compose --project-name chat up --detach --no-deps chat"
    assert chat["commands"]["start"] == {"command": start, "workingDir": "/srv/docker"}
    assert chat["commands"]["status"] == {"command": "docker container top chat-chat-1"}
    assert chat["healthcheck"] == {
        "type": "http",
        "url": "http://localhost:80/api/v4/system/ping",
        "interval_ms": 15_000,
        "failure_threshold": 4,
    }
    # Variables of the container's own shell are left to it.
    ready = "pg_isready -U ${POSTGRES_USER} -d ${POSTGRES_DB}"
    assert postgres["healthcheck"]["args"][-3:] == ["sh", "-c", ready]
    assert postgres["healthcheck"]["args"][3:5] == ["--project-name", "chat"]
    assert postgres["healthcheck"]["interval_ms"] == 10_000
    remarks = _remarks(result)
    assert "51 left_out nginx profiles: only started with the profile proxy, which is not in use" in remarks
    assert (
        "25 left_out chat depends_on.restart: is not restarted with postgres unless an operation is asked to" in remarks
    )
    assert "4 guessed postgres image: $POSTGRES_IMAGE_TAG is not set here: its default '14-alpine' is taken" in remarks
    assert "31 taken chat stop_grace_period: Docker waits so long" in remarks


def test_chat_server_with_its_proxy() -> None:
    parsed, result = _fixture("chat", profiles=("proxy",))
    assert _needs(parsed)["nginx"] == {"chat": "strong"}
    assert _what(parsed)["nginx"] == ("web", {"name": "nginx", "version": "1.27"})
    assert "54 guessed nginx network_mode: chat must run first, as network_mode says" in _remarks(result)


def test_code_forge() -> None:
    parsed, result = _fixture("forge", folder="/srv/forge", file="forge.yml")

    assert _needs(parsed) == {
        "server": {"db": "strong", "migrate": "weak"},
        "migrate": {"db": "strong"},
        "db": {},
        "runner": {"server": "weak"},
    }
    assert _what(parsed) == {
        "server": ("service", {"name": "gitea", "version": "1.24.2"}),
        "migrate": ("batch", {"name": "gitea", "version": "1.24.2"}),
        "db": ("database", {"name": "mysql", "version": "8"}),
        "runner": ("service", {"name": "gitea-runner", "version": "0.2"}),
    }
    server, migrate, db, _ = (item.spec for item in parsed.components)
    assert server["healthcheck"]["url"] == "http://localhost:3000/api/healthz"
    assert server["commands"]["status"] == {"command": "docker container top gitea"}
    # A job ends: it runs in the foreground and is neither watched nor restarted.
    run = "docker compose --file forge.yml run --rm --no-deps -T migrate"
    assert migrate["commands"]["start"] == {"command": run, "workingDir": "/srv/forge"}
    assert set(migrate["commands"]) == {"start", "stop"}
    assert "healthcheck" not in migrate
    ping = ["compose", "--file", "/srv/forge/forge.yml", "exec", "-T", "db", "mysqladmin", "ping", "-h", "localhost"]
    assert db["healthcheck"]["args"] == ping
    remarks = _remarks(result)
    assert "2 left_out  version: has no meaning any more" in remarks
    assert "32 guessed server depends_on: weak: migrate must have ended well, it does not stay running" in remarks
    assert "54 guessed runner replicas: one component for its 3 containers; its status is that of the first" in remarks
    assert "59 guessed runner depends_on: weak: it does without server, too" in remarks
    assert "56 left_out runner deploy.resources: stays with Docker" in remarks


def test_monitoring_stack() -> None:
    parsed, result = _fixture("monitoring")

    assert _needs(parsed) == {
        "prometheus": {"cadvisor": "strong", "node-exporter": "strong", "alertmanager": "strong"},
        "alertmanager": {},
        "node-exporter": {},
        "cadvisor": {},
        "loki": {},
        # A link says that it must be there, whatever depends_on says besides.
        "grafana": {"prometheus": "strong", "loki": "strong"},
    }
    assert {kind for kind, _ in _what(parsed).values()} == {"monitoring"}
    assert _what(parsed)["prometheus"][1] == {"name": "prometheus", "version": "3.5.0"}
    health = {item.name: item.spec["healthcheck"] for item in parsed.components}
    assert health["prometheus"] == {"type": "http", "url": "http://localhost:9090/-/healthy", "interval_ms": 10_000}
    assert health["alertmanager"] == {"type": "tcp", "port": 9093}
    assert health["node-exporter"] == {"type": "http", "url": "http://localhost:9100/metrics"}
    assert health["cadvisor"]["args"] == ["container", "top", "monitoring-cadvisor-1"]
    remarks = _remarks(result)
    assert "42 left_out loki ports: 3100: Docker chooses the host's port anew each time" in remarks
    assert "43 left_out loki healthcheck: it is switched off" in remarks
    assert "38 left_out cadvisor expose: only published ports can be seen from the host" in remarks
    assert not [line for line in remarks if "ADMIN_PASSWORD" in line], "what only Docker needs is no matter of ours"


def test_shop() -> None:
    common = "services:\n  go-service:\n    image: golang:1.24\n    restart: unless-stopped\n"
    seen = (
        "services:\n  collector:\n    image: otel/opentelemetry-collector-contrib:0.128.0\n    ports: ['4317:4317']\n"
    )
    files = {"common/services.yml": common, "observability/compose.yml": seen}
    parsed, result = _fixture("shop", files=files, folder="/srv/webshop")

    assert _needs(parsed) == {
        "collector": {},
        "frontend": {"catalogue": "strong", "cart": "strong", "checkout": "strong"},
        "catalogue": {"catalogue-db": "strong"},
        "catalogue-db": {},
        "cart": {"valkey-cart": "strong"},
        "valkey-cart": {},
        "checkout": {
            "cart": "strong",
            "kafka": "strong",
            "payment": "strong",
            "shipping_api": "strong",
        },
        "payment": {"kafka": "strong"},
        "shipping_api": {},
        "kafka": {},
    }
    spec = {item.name: item.spec for item in parsed.components}
    assert spec["collector"]["technology"] == {"name": "opentelemetry-collector", "version": "0.128.0"}
    assert spec["frontend"]["type"] == "web"
    assert spec["frontend"]["healthcheck"] == {"type": "tcp", "port": 80}
    assert spec["shipping_api"]["commands"]["stop"]["command"] == "docker compose stop Shipping_API"
    assert spec["kafka"]["healthcheck"] == {
        "type": "tcp",
        "port": 9092,
        "interval_ms": 5_000,
        "timeout_ms": 10_000,
        "failure_threshold": 10,
    }
    # Ten minutes of start period are more than a start may take otherwise.
    assert spec["catalogue-db"]["commands"]["start"]["execution"] == {"mode": "async", "max_wait_ms": 675_000}
    assert spec["catalogue-db"]["healthcheck"]["args"][-3:] == [
        "sh",
        "-c",
        "mongosh --quiet --eval 'db.runCommand(\"ping\").ok' | grep 1",
    ]
    remarks = _remarks(result)
    assert "4 taken observability/compose.yml include: its services are part of the Map" in remarks
    assert "18 left_out catalogue build: it is built by hand or by CI, not by OpsMap" in remarks
    assert "30 taken cart extends: with the keys of go-service of common/services.yml" in remarks
    assert [line for line in remarks if "load-generator profiles" in line]


def test_shop_without_the_other_files_says_which_are_missing() -> None:
    parsed, result = _fixture("shop")
    assert "collector" not in _needs(parsed)
    missing = [line for line in _remarks(result, "left_out") if "send it in options.files" in line]
    assert [line.split(": ")[0] for line in missing] == [
        "4 left_out observability/compose.yml include",
        "30 left_out cart extends",
        "30 left_out cart extends",
    ]


@pytest.mark.parametrize("name", [path.stem for path in sorted(FIXTURES.glob("*.yml"))])
def test_import_is_always_the_same(name: str) -> None:
    assert _fixture(name)[1].sources == _fixture(name)[1].sources


@pytest.mark.parametrize(
    ("ports", "check"),
    [
        ('["8080:80"]', {"type": "tcp", "port": 8080}),
        ('["127.0.0.1:8001:80"]', {"type": "tcp", "port": 8001}),
        ('["10.0.0.5:8001:80"]', {"type": "tcp", "port": 8001, "host": "10.0.0.5"}),
        ('["[::1]:8001:80"]', {"type": "tcp", "port": 8001}),
        ('["3000-3002:80-82"]', {"type": "tcp", "port": 3000}),
        ('["6060:6060/udp", "81:80/tcp"]', {"type": "tcp", "port": 81}),
        ("[{target: 80, published: 8443, host_ip: 127.0.0.1}]", {"type": "tcp", "port": 8443}),
        ('["9000-9005:80"]', None),
        ('["80"]', None),
        ("[80]", None),
        ("[{target: 80}]", None),
        ('["x:y"]', None),
        ('["99999:80"]', None),
        ("web", None),
    ],
)
def test_every_form_of_a_port(ports: str, check: dict[str, Any] | None) -> None:
    components, _ = _services(f"  web:\n    image: x\n    ports: {ports}\n")
    found = components["web"].spec["healthcheck"]
    assert found == (check or {"type": "command", "command": "docker", "args": ["container", "top", "app-web-1"]})


@pytest.mark.parametrize(
    ("test", "check"),
    [
        ('["CMD", "curl", "-f", "http://localhost/up"]', {"type": "http", "url": "http://localhost:8080/up"}),
        ("curl --fail http://localhost:80 || exit 1", {"type": "http", "url": "http://localhost:8080/"}),
        (
            "wget -qO- 'http://127.0.0.1/up?a=1&b=2' || exit 1",
            {"type": "http", "url": "http://localhost:8080/up?a=1&b=2"},
        ),
        ('["CMD-SHELL", "wget --spider -q web/up"]', {"type": "http", "url": "http://localhost:8080/up"}),
        ("nc -z 127.0.0.1 80", {"type": "tcp", "port": 8080}),
        ('["CMD", "sh", "-c", "nc -z localhost 80"]', {"type": "tcp", "port": 8080}),
        # Another port, host, method or scheme is not the same question.
        ("curl http://localhost:81", ["curl", "http://localhost:81"]),
        ("curl http://other/", ["curl", "http://other/"]),
        ("curl -k https://localhost/", ["curl", "-k", "https://localhost/"]),
        ("curl -X POST http://localhost/", ["curl", "-X", "POST", "http://localhost/"]),
        ('curl -H "a:b" http://localhost/', ["curl", "-H", "a:b", "http://localhost/"]),
        ("pg_isready -q", ["pg_isready", "-q"]),
        ("test -f /tmp/up && cat /tmp/up", ["sh", "-c", "test -f /tmp/up && cat /tmp/up"]),
        ("echo $$HOME", ["sh", "-c", "echo $HOME"]),
        ("it's", ["sh", "-c", "it's"]),
    ],
)
def test_every_form_of_a_health_check(test: str, check: dict[str, Any] | list[str]) -> None:
    text = f"  web:\n    image: x\n    ports: ['8080:80']\n    healthcheck:\n      test: {test}\n"
    components, _ = _services(text)
    found = components["web"].spec["healthcheck"]
    if isinstance(check, list):
        assert found["args"] == _compose("/srv/app", "exec", "-T", "web", *check)
    else:
        assert found == check


@pytest.mark.parametrize(
    ("depends", "needs"),
    [
        ("[db]", {"db": "strong"}),
        ("{db: {}}", {"db": "strong"}),
        ("{db: {condition: service_started}}", {"db": "strong"}),
        ("{db: {condition: service_healthy, required: true}}", {"db": "strong"}),
        ("{db: {condition: service_healthy, required: false}}", {"db": "weak"}),
        ("{db: {condition: service_completed_successfully}}", {"db": "weak"}),
        ("{db: {condition: service_asleep}}", {"db": "strong"}),
        ("[nobody]", {}),
        ("[web]", {}),
        ("db", {}),
    ],
)
def test_every_form_of_depends_on(depends: str, needs: dict[str, str]) -> None:
    components, remarks = _services(f"  web:\n    image: x\n    depends_on: {depends}\n  db:\n    image: y\n")
    assert {link.needs: link.kind for link in components["web"].dependencies} == needs
    if depends == "[nobody]":
        assert "5 left_out web depends_on: nobody is no service of this project" in remarks


@pytest.mark.parametrize(
    ("image", "technology", "kind"),
    [
        ("postgres", {"name": "postgresql"}, "database"),
        ("postgres:17.2-alpine3.21", {"name": "postgresql", "version": "17.2"}, "database"),
        ("registry.example:5000/team/redis:7@sha256:ab", {"name": "redis", "version": "7"}, "cache"),
        ("bitnami/kafka:latest", {"name": "kafka"}, "broker"),
        (
            "prometheuscommunity/postgres-exporter:v0.17.1",
            {"name": "prometheus-exporter", "version": "0.17.1"},
            "monitoring",
        ),
        ("mcr.microsoft.com/mssql/server:2022-latest", {"name": "sqlserver", "version": "2022"}, "database"),
        ("example/server:1.0", None, "service"),
        ("Postgres:17", {"name": "postgresql", "version": "17"}, "database"),
    ],
)
def test_image_says_the_technology(image: str, technology: dict[str, str] | None, kind: str) -> None:
    components, _ = _services(f"  it:\n    image: {image}\n")
    assert (components["it"].spec.get("technology"), components["it"].spec["type"]) == (technology, kind)


@pytest.mark.parametrize(
    ("text", "environment", "image"),
    [
        ("$TAG", {"TAG": "17"}, "postgres:17"),
        ("${TAG}", {"TAG": "17"}, "postgres:17"),
        ("${TAG:-16}", {"TAG": ""}, "postgres:16"),
        ("${TAG-16}", {"TAG": ""}, "postgres:"),
        ("${TAG:-${OTHER:-15}}", {}, "postgres:15"),
        ("${TAG:+14}", {"TAG": "x"}, "postgres:14"),
        ("${TAG:?say which}", {}, "postgres:"),
        ("$$TAG", {}, "postgres:$TAG"),
        ("${TAG", {"TAG": "17"}, "postgres:${TAG"),
        ("${}", {}, "postgres:"),
        ("100%$", {}, "postgres:100%$"),
    ],
)
def test_variables_are_as_docker_compose_has_them(text: str, environment: dict[str, str], image: str) -> None:
    components, _ = _services(f"  db:\n    image: 'postgres:{text}'\n", environment=environment)
    assert components["db"].spec["description"] == f"Container of {image}."


def test_missing_variable_is_told_with_its_line() -> None:
    _, remarks = _services("  db:\n    image: 'postgres:${TAG:?say which}'\n")
    assert "4 left_out db image: $TAG is not set here and has no default: send it in options.environment" in remarks


def test_anchors_aliases_and_merge_keys_are_expanded() -> None:
    text = "  a: &base\n    image: redis:7\n    ports: ['1:1']\n"
    text += "  b:\n    <<: *base\n    ports: ['2:2']\n  c:\n    <<: [*base]\n"
    components, _ = _services(text)
    assert [item.spec["healthcheck"]["port"] for item in components.values()] == [1, 2, 1]


def test_host_and_folder_that_are_not_said_are_told_of() -> None:
    parsed, result = _loaded(import_compose("services: {db: {image: redis}}\n", ComposeOptions()))
    assert "host" not in parsed.components[0].spec
    assert _remarks(result)[:3] == [
        "0 guessed  name: the project's name is not said: compose-project",
        "0 guessed  workingDir: the project's folder on its host is not said: /opt/compose-project",
        "0 left_out  host: the host is not said: nothing can be run until components have one",
    ]


def test_names_that_docker_would_not_have_become_no_arguments() -> None:
    text = "name: '-p Evil Name'\nservices: {db: {image: redis, container_name: '--rm'}}\n"
    parsed, _ = _loaded(_import(text, folder="/srv/My App.v2"))
    commands = parsed.components[0].spec["commands"]
    assert commands["status"] == {"command": "docker container top myappv2-db-1"}
    assert commands["start"]["command"] == "docker compose --project-name myappv2 up --detach --no-deps db"


def test_variables_of_docker_compose_itself_are_heeded() -> None:
    text = "services: {db: {image: redis, profiles: [a]}, web: {image: nginx, profiles: [b]}}\n"
    parsed, _ = _loaded(_import(text, environment={"COMPOSE_PROJECT_NAME": "shop", "COMPOSE_PROFILES": "a,c"}))
    [db] = parsed.components
    # It finds the name in the same `.env` by itself.
    assert db.spec["commands"]["stop"]["command"] == "docker compose stop db"
    assert db.spec["commands"]["status"]["command"] == "docker container top shop-db-1"


def test_replicas_of_none_and_names_that_clash() -> None:
    text = "  Web:\n    image: x\n  web:\n    image: y\n  off:\n    image: z\n    deploy: {replicas: 0}\n"
    components, remarks = _services(text)
    assert sorted(components) == ["web", "web-2"]
    assert "9 left_out off replicas: none of it is to run" in remarks


CYCLE = "services:\n  a:\n    image: x\n    depends_on: [b]\n  b:\n    image: y\n    depends_on: [{}]\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "1:1: found no mapping, expected a Compose file with the key services"),
        ("- a\n", "1:1: found no mapping, expected a Compose file with the key services"),
        ("name: x\n", "1:1: services: found no service, expected at least one service"),
        ("services: [a]\n", '1:1: services: found ["a"], expected a mapping of services'),
        ("services:\n  a: image\n", '2:3: services.a: found "image", expected a mapping'),
        ("services:\n  a: {image: x}\n  a: {}\n", "3:3: found the key 'a' twice, expected each key once"),
        (
            "services:\n  --help: {image: x}\n",
            '2:3: services.--help: found "--help", expected a name that Docker Compose takes',
        ),
        ("a: 1\n---\nb: 2\n", "3:1: found a second document, expected one document"),
        ("services: {a: *b}\n", "1:15: found the alias *b, expected an anchor that ends before it"),
        ("services: &s {a: *s}\n", "1:18: found the alias *s, expected an anchor that ends before it"),
        ("services: {a: !secret x}\n", "1:15: found the tag !secret, expected a value without a tag"),
        ("services:\n\ta: x\n", "2:1: found a tab, expected spaces where lines are indented"),
        (
            "services:\n  a: {extends: b}\n  b: {extends: a, image: x}\n",
            "2:7: services.a.extends: found a cycle: b → a → b, expected a service that does not extend it",
        ),
        (
            "services:\n  web: {image: x}\n  b: {extends: {service: wep}}\n",
            "3:7: services.b.extends: found \"wep\", expected a service of docker-compose.yml (perhaps 'web')",
        ),
        (CYCLE.replace("{}", "a"), "4:1: a: found a cycle: a → b → a, expected dependencies without a cycle"),
    ],
)
def test_what_is_no_project_is_refused_with_its_place(content: str, message: str) -> None:
    result = _import(content)
    assert result.sources == []
    messages = [fault.message.removeprefix("docker-compose.yml:") for fault in result.faults]
    assert messages[-1:] == [message]


def test_weak_dependency_gives_way_to_a_cycle() -> None:
    text = CYCLE.replace("[{}]", "{a: {condition: service_started, required: false}}")
    parsed, result = _loaded(_import(text))
    assert _needs(parsed) == {"a": {"b": "strong"}, "b": {}}
    assert [line for line in _remarks(result, "left_out") if "a, which only orders: it closes a cycle, " in line]


def test_bomb_of_aliases_is_refused_before_it_costs() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    began = time.process_time()
    [fault] = _import("\n".join(lines)).faults
    assert (fault.found, fault.expected) == ("aliases that stand for more", "at most 100000 values")
    assert time.process_time() - began < 3


@pytest.mark.parametrize("text", ["${" * 9_000, "$" * 19_000, "${A:-" * 3_000 + "}" * 3_000, "$A" * 9_000])
def test_bomb_of_variables_costs_nothing(text: str) -> None:
    began = time.process_time()
    _import(f"services: {{db: {{image: '{text}'}}}}\n")
    assert time.process_time() - began < 3


def test_large_project_and_one_that_is_too_large() -> None:
    def project(count: int) -> str:
        return "services:\n" + "".join(f"  s{n}: {{image: redis, depends_on: [s{n + 1}]}}\n" for n in range(count))

    parsed, _ = _loaded(_import(project(100) + "  s100: {image: redis}\n"))
    assert len(parsed.components) == 101
    [fault] = _import(project(2_001)).faults
    assert fault.message.endswith("services: found 2001 services, expected at most 2000 services")
