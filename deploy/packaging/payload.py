"""The agent with everything it imports, for every Python it runs on: one folder, the same in each kind of package.

Nearly all of it is the same for every Python: pure code, or binaries of the stable ABI. The rest has the Python's
version in its file name, so that what belongs to several lies side by side and each takes its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
REQUIREMENTS = REPOSITORY / "requirements" / "agent.txt"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = {"x86_64": "x86_64-manylinux_2_28", "aarch64": "aarch64-manylinux_2_28"}
_TIMEOUT_S = 300


class BuildError(Exception):
    """A step did not work; the message holds what it said."""


@dataclass(frozen=True, slots=True)
class Payload:
    site_packages: Path
    version: str
    machine: str
    """As in `uname -m`."""


def make_payload(work: Path, machine: str) -> Payload:
    """Collect everything in `work`. Only wheels, each as its hash in requirements/agent.txt says.

    Raises:
        BuildError: a wheel cannot be had or built.
    """
    target = work / "site-packages"
    target.mkdir()
    for python in PYTHONS:
        _install_requirements(work / python, python, PLATFORMS[machine])
        shutil.copytree(work / python, target, dirs_exist_ok=True)
        shutil.rmtree(work / python)
    wheel = _build_wheel(work)
    run([_uv(), "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", str(target), str(wheel)])
    _remove_what_only_installers_need(target)
    return Payload(target, wheel.name.split("-")[1], machine)


def run(command: list[str], *, cwd: Path = REPOSITORY) -> str:
    """What a command prints. Raises BuildError."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise BuildError(f"{command[0]} ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _install_requirements(target: Path, python: str, platform: str) -> None:
    options = ["--python-version", python, "--python-platform", platform, "--only-binary", ":all:", "--no-compile"]
    source = ["--require-hashes", "--requirements", str(REQUIREMENTS)]
    run([_uv(), "pip", "install", "--quiet", *options, *source, "--target", str(target)])


def _build_wheel(work: Path) -> Path:
    # What an earlier build has left there would go into the wheel, modules that are gone since too.
    shutil.rmtree(REPOSITORY / "agent" / "build", ignore_errors=True)
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(work), "agent"])
    (wheel,) = work.glob("*.whl")
    return wheel


def _remove_what_only_installers_need(target: Path) -> None:
    shutil.rmtree(target / "bin", ignore_errors=True)
    for lock in target.glob(".lock"):
        lock.unlink()


def _uv() -> str:
    return str(Path(sys.executable).parent / "uv")
