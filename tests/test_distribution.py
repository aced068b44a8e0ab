"""The agent's wheel in an empty environment: it brings what it needs, and nothing of the backend."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel installed."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), "agent"]
    run(build)
    (wheel,) = folder.glob("*.whl")
    run([str(BIN / "uv"), "venv", "--quiet", "--python", sys.executable, str(folder / "empty")])
    run([str(BIN / "uv"), "pip", "install", "--quiet", "--python", str(folder / "empty/bin/python"), str(wheel)])
    return folder / "empty"


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("program", ["opsmap-agent", "opsmap-gateway"])
def test_both_programs_answer_help(environment: Path, program: str) -> None:
    assert "run" in run([str(environment / "bin" / program), "--help"]).stdout


def test_django_is_not_there(environment: Path) -> None:
    importing = [str(environment / "bin/python"), "-c", "import opsmap_agent, opsmap_gateway, django"]
    done = subprocess.run(importing, capture_output=True, text=True, timeout=30, check=False)
    assert "No module named 'django'" in done.stderr
