"""Making the environment: which interpreter, what of the caller's settings counts, when nothing is to be done."""

import os
import subprocess
from pathlib import Path

import pytest

from deploy.embedded import environment

SCRIPT = environment.ROOT / "deploy" / "embedded" / "environment.sh"


def run_script(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *arguments], env=os.environ | variables, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("python", ["/nonexistent/python", "/bin/true", "/bin/false"])
def test_an_interpreter_that_is_none_is_one_line(python: str) -> None:
    done = run_script("base", PYTHON=python)
    assert done.returncode == 1
    assert done.stderr == f"opsmap: PYTHON={python} is not Python 3.11 or later.\n"


def test_it_says_how_it_is_used() -> None:
    done = run_script("everything")
    assert done.returncode == 2
    assert done.stderr == "usage: environment.sh base|dev\n"


def test_only_how_to_reach_an_index_is_taken_from_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"PIP_INDEX_URL": "https://mirror.example/simple", "PIP_CERT": "/ca.pem", "UV_CACHE_DIR": "/cache"}
    dropped = {"PIP_USER": "1", "PIP_TARGET": "/elsewhere", "UV_SYSTEM_PYTHON": "1", "VIRTUAL_ENV": "/other"}
    for name, value in (kept | dropped).items():
        monkeypatch.setenv(name, value)
    made = environment._environment()
    assert kept.items() <= made.items()
    assert not dropped.keys() & made.keys()
    assert environment._with_index(made, ("false",))["UV_DEFAULT_INDEX"] == kept["PIP_INDEX_URL"]


def test_a_development_environment_serves_running_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "VENV", tmp_path)
    assert not environment._is_current("base")
    (tmp_path / ".opsmap-dev").write_text(environment._digest("dev"), encoding="ascii")
    assert environment._is_current("dev")
    assert environment._is_current("base")
    (tmp_path / ".opsmap-dev").write_text("of other requirements", encoding="ascii")
    assert not environment._is_current("base")


@pytest.mark.parametrize(
    "said",
    [
        "error: Failed to fetch: `https://index.example/simple/django/`",
        "Temporary failure in name resolution",
        "Could not connect to server",
    ],
)
def test_a_missing_network_is_told_as_such(said: str) -> None:
    assert environment.NETWORK_FAULT.search(said)
