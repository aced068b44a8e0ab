"""The environment as the settings read it: every fault one clear line, all of them at once, no password in any."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from opsmap.settings.environment import VARIABLES, read_environment, require_environment

PASSWORD = "hunter2-and-more"
A_LIFE = "a time from 10s to 1825d, with the unit s, m, h or d"
COMPLETE = {
    "OPSMAP_DATABASE_URL": f"postgresql://opsmap:{PASSWORD}@db.example:5433/opsmap",
    "OPSMAP_REDIS_URL": "redis://cache.example:6379/0",
    "OPSMAP_SECRET_KEY": "k" * 32,
}


def _faults(**changes: str) -> list[str]:
    return read_environment(COMPLETE | changes)[1]


def test_complete_environment_has_no_fault_and_defaults_for_the_rest() -> None:
    values, faults = read_environment(COMPLETE)

    assert faults == []
    assert values.keys() == {variable.name for variable in VARIABLES}
    assert values["OPSMAP_DEBUG"] is False
    assert values["OPSMAP_ALLOWED_HOSTS"] == ["localhost", "127.0.0.1"]
    assert values["OPSMAP_CSRF_TRUSTED_ORIGINS"] == []
    assert values["OPSMAP_SECURE_COOKIES"] is False
    assert values["OPSMAP_LINK_BIND"] == ("127.0.0.1", 9443)
    assert values["OPSMAP_DB_POOL_SIZE"] == 16
    assert values["OPSMAP_LOG_LEVEL"] == "INFO"
    assert values["OPSMAP_PKI_DIR"] == Path(".opsmap/pki").absolute()


def test_every_variable_is_explained_and_named_once() -> None:
    assert len({variable.name for variable in VARIABLES}) == len(VARIABLES)
    assert [variable.name for variable in VARIABLES if not variable.help.endswith(".")] == []


def test_database_url_becomes_a_django_entry() -> None:
    values, _ = read_environment(COMPLETE)

    assert values["OPSMAP_DATABASE_URL"] == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "opsmap",
        "USER": "opsmap",
        "PASSWORD": PASSWORD,
        "HOST": "db.example",
        "PORT": "5433",
        "OPTIONS": {},
    }


def test_database_url_may_name_a_socket_folder_and_options() -> None:
    url = "postgresql://ops%40map:p%40ss@/opsmap?host=/run/pg&port=5440&sslmode=disable"
    entry = read_environment(COMPLETE | {"OPSMAP_DATABASE_URL": url})[0]["OPSMAP_DATABASE_URL"]

    assert (entry["HOST"], entry["PORT"]) == ("/run/pg", "5440")
    assert (entry["USER"], entry["PASSWORD"]) == ("ops@map", "p@ss")
    assert entry["OPTIONS"] == {"sslmode": "disable"}


def test_lists_are_split_at_commas_and_trimmed() -> None:
    values, _ = read_environment(COMPLETE | {"OPSMAP_ALLOWED_HOSTS": "ops.example.com, 10.0.0.7,,"})
    assert values["OPSMAP_ALLOWED_HOSTS"] == ["ops.example.com", "10.0.0.7"]


@pytest.mark.parametrize(
    ("value", "life"),
    [
        ("60s", timedelta(minutes=1)),
        ("90m", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        ("365d", timedelta(days=365)),
    ],
)
def test_lives_of_certificates_have_a_unit(value: str, life: timedelta) -> None:
    assert read_environment(COMPLETE | {"OPSMAP_CERTIFICATE_LIFE": value})[0]["OPSMAP_CERTIFICATE_LIFE"] == life


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("OPSMAP_DEBUG", "yes", "OPSMAP_DEBUG: expected 0 or 1, found 'yes'"),
        ("OPSMAP_SECURE_COOKIES", "true", "OPSMAP_SECURE_COOKIES: expected 0 or 1, found 'true'"),
        ("OPSMAP_LINK_BIND", "9443", "OPSMAP_LINK_BIND: expected host:port, found '9443'"),
        ("OPSMAP_LINK_BIND", "0.0.0.0:70000", "OPSMAP_LINK_BIND: expected host:port, found '0.0.0.0:70000'"),
        ("OPSMAP_LINK_BIND", "0.0.0.0:²", "OPSMAP_LINK_BIND: expected host:port, found '0.0.0.0:²'"),
        *(
            ("OPSMAP_CERTIFICATE_LIFE", value, f"OPSMAP_CERTIFICATE_LIFE: expected {A_LIFE}, found {value!r}")
            for value in ("9s", "1826d", "365", "d", "1.5h", "-1d", "²d", "99999999999d")
        ),
        ("OPSMAP_DB_POOL_SIZE", "many", "OPSMAP_DB_POOL_SIZE: expected a whole number from 1 on, found 'many'"),
        ("OPSMAP_DB_POOL_SIZE", "0", "OPSMAP_DB_POOL_SIZE: expected a whole number from 1 on, found '0'"),
        ("OPSMAP_DB_POOL_SIZE", "-4", "OPSMAP_DB_POOL_SIZE: expected a whole number from 1 on, found '-4'"),
        (
            "OPSMAP_LOG_LEVEL",
            "loud",
            "OPSMAP_LOG_LEVEL: expected debug, info, warning or error, found 'loud'",
        ),
        ("OPSMAP_SECRET_KEY", "short", "OPSMAP_SECRET_KEY: expected at least 32 characters, found 5"),
    ],
)
def test_wrong_value_is_one_line_with_what_was_expected_and_found(name: str, value: str, line: str) -> None:
    assert _faults(**{name: value}) == [line]


@pytest.mark.parametrize("name", COMPLETE)
@pytest.mark.parametrize("is_empty", [False, True])
def test_missing_required_variable_is_named(name: str, is_empty: bool) -> None:
    given = {key: value for key, value in COMPLETE.items() if key != name} | ({name: ""} if is_empty else {})

    [line] = read_environment(given)[1]

    assert line.startswith(f"{name} is not set. ")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("OPSMAP_DATABASE_URL", f"mysql://root:{PASSWORD}@db/opsmap", "postgresql://"),
        ("OPSMAP_DATABASE_URL", f"postgresql://root:{PASSWORD}@db", "postgresql://"),
        ("OPSMAP_DATABASE_URL", f"postgresql://root:{PASSWORD}@db:port/opsmap", "a port"),
        ("OPSMAP_DATABASE_URL", f"postgresql://root:{PASSWORD}@[::1/opsmap", "a port"),
        ("OPSMAP_DATABASE_URL", f"postgresql://root:{PASSWORD}/opsmap", "a port"),
        ("OPSMAP_DATABASE_URL", f"mysql:///opsmap?user=root&password={PASSWORD}", "postgresql://"),
        ("OPSMAP_REDIS_URL", f"valkey://:{PASSWORD}@cache/0", "redis://"),
        ("OPSMAP_REDIS_URL", f"tcp:///run/cache?password={PASSWORD}", "redis://"),
        ("OPSMAP_REDIS_URL", f"redis://:{PASSWORD}@[cache/0", "a port"),
        ("OPSMAP_REDIS_URL", f"redis://:{PASSWORD}@cache:six/0", "a port"),
        ("OPSMAP_REDIS_URL", PASSWORD, "redis://"),
    ],
)
def test_wrong_url_is_one_line_without_its_password(name: str, value: str, expected: str) -> None:
    [line] = _faults(**{name: value})

    assert line.startswith(f"{name}: expected ")
    assert expected in line
    assert PASSWORD not in line
    assert "\n" not in line


def test_short_secret_key_is_not_shown() -> None:
    [line] = _faults(OPSMAP_SECRET_KEY="s3cret")
    assert "s3cret" not in line


def test_all_faults_come_at_once_in_the_order_of_the_table() -> None:
    _, faults = read_environment({"OPSMAP_DEBUG": "2", "OPSMAP_SECRET_KEY": "x" * 40, "OPSMAP_DB_POOL_SIZE": "no"})

    names = [line.split(":")[0].split(" ")[0] for line in faults]
    assert names == ["OPSMAP_DATABASE_URL", "OPSMAP_REDIS_URL", "OPSMAP_DEBUG", "OPSMAP_DB_POOL_SIZE"]


def test_foreign_variables_are_no_fault() -> None:
    assert _faults(OPSMAP_TEST_BROWSER="1", DATABASE_URL="nonsense") == []


def test_require_environment_returns_the_values() -> None:
    assert require_environment(COMPLETE)["OPSMAP_SECRET_KEY"] == "k" * 32


def test_require_environment_ends_with_one_line_per_fault() -> None:
    with pytest.raises(SystemExit) as ended:
        require_environment({"OPSMAP_DEBUG": "x"})

    title, *lines = str(ended.value.code).splitlines()
    assert title == "OpsMap cannot start:"
    assert len(lines) == 4
    assert all(line.startswith("  OPSMAP_") for line in lines)


def test_a_process_with_faults_prints_them_and_no_traceback() -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPSMAP_")}
    given = kept | COMPLETE | {"OPSMAP_DATABASE_URL": f"mysql://root:{PASSWORD}@db/x", "OPSMAP_DEBUG": "maybe"}

    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "manage.py", "check"], cwd=root, env=given, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 1
    title, *lines = done.stderr.splitlines()
    assert title == "OpsMap cannot start:"
    assert [line.split(":")[0].strip() for line in lines] == ["OPSMAP_DATABASE_URL", "OPSMAP_DEBUG"]
    assert PASSWORD not in done.stdout + done.stderr
