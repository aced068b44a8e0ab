"""Tables to Maps: columns in any order, rows that add to each other, and every fault with its line."""

from __future__ import annotations

import time
from typing import Any

import pytest

from apps.maps.documents.loading import ParsedComponent, load_map
from apps.maps.importing.csv_table import COLUMNS, CsvOptions, import_csv
from apps.maps.importing.drafts import ImportResult
from apps.maps.tests.factories import DOCUMENTS

TABLE = """\
Name;Type;Host;Technology;Version;Needs;Service;Health;Labels;Owner
postgresql;;srv-data-01;postgresql;17;;postgresql;;tier=data|team=dba;dba
"Trading API";service;srv-app-01;openjdk;21;postgresql, kafka:weak;trading-api;http://localhost:8080/health;;trading
kafka;broker;srv-data-02;;;;;9092;;
"""


def _import(text: str, **options: Any) -> ImportResult:
    return import_csv(text, CsvOptions(**options))


def _components(text: str, **options: Any) -> dict[str, ParsedComponent]:
    result = _import(text, **options)
    assert [fault.message for fault in result.faults] == []
    parsed, faults = load_map(result.sources)
    assert [fault.message for fault in faults] == []
    assert parsed is not None
    return {item.name: item for item in parsed.components}


def _needs(text: str) -> dict[str, dict[str, str]]:
    return {name: {link.needs: link.kind for link in item.dependencies} for name, item in _components(text).items()}


def _remarks(result: ImportResult) -> list[str]:
    items = result.report.as_json()["items"]
    return [f"{item['line']} {item['outcome']} {item['item']} {item['key']}: {item['text']}" for item in items]


def test_table_of_components() -> None:
    components = _components(TABLE, name="Trading", host="srv-x")
    control = {"service": {"name": "trading-api"}}
    assert components["trading-api"].spec == {
        "type": "service",
        "host": "srv-app-01",
        "group": "services",
        "technology": {"name": "openjdk", "version": "21"},
        "dependsOn": ["postgresql", {"component": "kafka", "kind": "weak"}],
        "commands": {"start": control, "stop": control, "restart": control, "status": control},
        "healthcheck": {"type": "http", "url": "http://localhost:8080/health"},
    }
    assert components["postgresql"].spec["type"] == "database"
    assert components["postgresql"].labels == {"tier": "data", "team": "dba"}
    assert components["postgresql"].spec["healthcheck"] == {"type": "service", "service_name": "postgresql"}
    assert components["kafka"].spec["healthcheck"] == {"type": "tcp", "port": 9092}
    assert _remarks(_import(TABLE)) == [
        "1 left_out  Owner: the column is not known",
        "2 guessed postgresql type: database: the table says none",
        "3 guessed Trading API name: components are named otherwise: trading-api",
        "4 left_out kafka commands: the table says none: it cannot be started",
    ]


def test_table_of_dependencies_alone() -> None:
    text = "component,depends_on,kind\napi,db,\napi,cache,weak\nweb,api,strong\n"
    assert _needs(text) == {"api": {"db": "strong", "cache": "weak"}, "db": {}, "cache": {}, "web": {"api": "strong"}}
    remarks = _remarks(_import(text))
    assert "2 guessed db name: no row describes it: it is only needed" in remarks
    assert not [line for line in remarks if "api name" in line]


def test_rows_of_one_name_add_to_each_other() -> None:
    text = "name,type,host,needs\napi,service,,db\nAPI,,srv-1,\ndb,database,,\n"
    components = _components(text)
    assert sorted(components) == ["api", "db"]
    assert (components["api"].spec["type"], components["api"].spec["host"]) == ("service", "srv-1")


@pytest.mark.parametrize(
    "text",
    [
        "name,type\ndb,database\n",
        "\ufeffname,type\r\ndb,database\r\n",
        "sep=;\nname;type\ndb;database\n",
        "name\ttype\ndb\tdatabase",
        "name|type\ndb|database\n",
        '"name","type"\n"db","database"\n',
        "\n\nname,type\n\ndb,database\n,\n",
        " Name , TYPE \n db , database \n",
        "type,name\ndatabase,db\n",
    ],
)
def test_every_dialect_is_read(text: str) -> None:
    assert _components(text)["db"].spec["type"] == "database"


def test_cells_in_quotes_may_hold_anything() -> None:
    text = 'name,description,needs\napi,"Says ""hello"", in\ntwo lines","db\ncache"\ndb,,\ncache,,\n'
    api = _components(text)["api"]
    assert api.spec["description"] == 'Says "hello", in\ntwo lines'
    assert [link.needs for link in api.dependencies] == ["db", "cache"]
    [fault] = _import(text + "x,y,z,too many\n").faults
    assert fault.line == 7


def test_commands_are_lines_and_shell_signs_are_told_of() -> None:
    text = "name,start,stop\napi,/opt/api/run --fast,pkill api && sleep 1\n"
    assert _components(text)["api"].spec["commands"] == {
        "start": {"command": "/opt/api/run --fast"},
        "stop": {"command": "pkill api && sleep 1"},
    }
    assert "2 guessed api stop: there is no shell: |, &, ;, <, >, $ are plain text" in _remarks(_import(text))


@pytest.mark.parametrize(
    ("health", "check"),
    [
        ("8080", {"type": "tcp", "port": 8080}),
        ("db.example:5432", {"type": "tcp", "port": 5432, "host": "db.example"}),
        ("[::1]:5432", {"type": "tcp", "port": 5432, "host": "::1"}),
        ("service:nginx", {"type": "service", "service_name": "nginx"}),
        ("https://x/y?z", {"type": "http", "url": "https://x/y?z"}),
    ],
)
def test_every_form_of_health(health: str, check: dict[str, Any]) -> None:
    assert _components(f"name\thealth\na\t{health}\n")["a"].spec["healthcheck"] == check


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1: found no component, expected at least one row with a name"),
        ("name,type\n", "1:1: found no component, expected at least one row with a name"),
        ("names,type\na,b\n", "1:1: found the columns names, type, expected a column name"),
        ("name\na\0\n", "2:1: found a NUL character, expected text in UTF-8"),
        ('name\n"a\n', "2:1: found unexpected end of data, expected cells in quotes that are closed"),
        ('name\n"a"b\n', "2:1: found ',' expected after '\"', expected cells in quotes that are closed"),
        ("name,host\n,x\n", "2:1: name: found nothing, expected the name of a component"),
        ("name,needs\na,a\n", "2:1: needs: found 'a' itself, expected another component"),
        ("name,needs,kind\na,b,soft\n", "2:1: kind: found 'soft', expected strong or weak"),
        ("name,host\na,x\na,y\n", "3:1: host: found 'y', expected 'x', as an earlier row of a says"),
        (f"name,host\na,{'x' * 254}\n", "2:1: host: found 254 characters, expected at most 253"),
        ("name,start\na,run 'x\n", '2:1: start: found "run \'x" (no closing quotation), expected a program'),
        ("name,health\na,99999\n", "2:1: health: found '99999', expected http://"),
        ("name,health\na,ftp://x\n", "2:1: health: found 'ftp://x', expected http://"),
        ("name,health\na,http://[x\n", "2:1: health: found 'http://[x', expected http://"),
        (f"name\n{'x' * 10_001}\n", "2:1: found a longer cell, expected at most 10000 characters"),
        (f"name\n{'x' * 200_000}\n", "2:1: found field larger than field limit (131072), expected cells"),
    ],
)
def test_fault_names_its_line_and_column(text: str, message: str) -> None:
    result = _import(text)
    assert result.sources == []
    [fault] = result.faults
    assert fault.message.removeprefix("table.csv:").startswith(message)


def test_all_faults_come_at_once() -> None:
    text = "name,health,kind\na,x,\n,80,\nb,,soft\n"
    assert [(fault.line, fault.key) for fault in _import(text).faults] == [(2, "health"), (3, "name"), (4, "kind")]


def test_cycle_is_named_with_its_line() -> None:
    [fault] = _import("name,needs\na,b\nb,c\nc,a\n").faults
    assert "a cycle: " in fault.found
    assert fault.line in {2, 3, 4}


def test_cycle_of_thousands_is_named_in_short() -> None:
    rows = "".join(f"c{n},c{(n + 1) % 5_000}\n" for n in range(5_000))
    [fault] = _import("name,needs\n" + rows).faults
    assert "more …" in fault.found
    assert len(fault.found) < 500


def test_unknown_column_is_told_with_the_one_that_was_meant() -> None:
    remarks = _remarks(_import("name,technolgy,name\na,b,c\n"))
    assert remarks[:2] == [
        "1 left_out  technolgy: the column is not known; perhaps technology",
        "1 left_out  name: the column appears twice",
    ]


def test_fifty_thousand_rows() -> None:
    rows = "".join(f"c{n},service,srv-{n % 500},c{n // 3 if n else ''}\n" for n in range(1, 50_000))
    began = time.process_time()
    result = _import("name,type,host,needs\nc0,database,srv-0,\n" + rows)
    assert result.faults == []
    assert time.process_time() - began < 20
    assert sum(source.content.count("kind: Component\n") for source in result.sources) == 50_000
    assert len(result.sources) == 101
    [fault] = _import("name\n" + "".join(f"c{n}\n" for n in range(50_001))).faults
    assert fault.expected == "at most 50000"
    # Each file is one that the loader takes.
    assert max(len(source.content) for source in result.sources) < 1024 * 1024


def test_every_column_is_documented() -> None:
    page = (DOCUMENTS.parents[3] / "docs" / "documents.md").read_text()
    assert [name for name, help_text in COLUMNS.items() if f"| `{name}` | {help_text} |" not in page] == []
