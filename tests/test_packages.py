"""What hosts install: built here, installed into a throw-away root, run there, and removed again without a trace."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.packaging.__main__ import build
from deploy.packaging.layout import FILES

pytestmark = pytest.mark.processes

INSTALL = {"deb": "dpkg --install {}", "rpm": "rpm --install --nodeps {}"}
REMOVE = {"deb": "dpkg --purge opsmap-agent", "rpm": "rpm --erase opsmap-agent"}
VERIFY = {"deb": "dpkg --verify opsmap-agent", "rpm": "rpm --verify --nodeps opsmap-agent"}
TOOLS = {"deb": "dpkg-deb", "rpm": "rpmbuild"}


def run(command: list[str], *, code: int = 0, **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By what they are: agent, gateway (zipapps), deb, rpm."""
    out = tmp_path_factory.mktemp("packages")
    kinds = ["zipapp", *(kind for kind, tool in TOOLS.items() if shutil.which(tool))]
    built = build(kinds, platform.machine(), out)
    names = {"opsmap-agent-": "agent", "opsmap-gateway-": "gateway"}
    return {
        path.suffix[1:]
        if path.suffix != ".pyz"
        else next(name for start, name in names.items() if path.name.startswith(start)): path
        for path in built
    }


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """This machine's own root with a layer above it that takes every change, and is thrown away."""
    folder = tmp_path_factory.mktemp("root")
    for name in ("upper", "work", "merged"):
        (folder / name).mkdir()
    merged = folder / "merged"
    options = f"lowerdir=/,upperdir={folder / 'upper'},workdir={folder / 'work'}"
    mounting = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode != 0:
        pytest.skip("a throw-away root needs root and overlayfs")
    try:
        yield merged
    finally:
        run(["umount", str(merged)])


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_package_installs_runs_and_leaves_nothing(packages: dict[str, Path], root: Path, kind: str) -> None:
    if kind not in packages:
        pytest.skip(f"{TOOLS[kind]} is not installed")
    shutil.copy(packages[kind], root / "opt")
    in_root = ["chroot", str(root), "sh", "-c"]
    run([*in_root, INSTALL[kind].format(f"/opt/{packages[kind].name}")])
    assert "opsmap-agent" in run([*in_root, "opsmap-agent --version"])
    assert "opsmap-gateway" in run([*in_root, "opsmap-gateway --version"])
    assert run([*in_root, VERIFY[kind]]).strip() in {"", _rpm_on_debian(kind)}
    assert _mode(root / "etc/opsmap/certs") == 0o700
    assert _mode(root / "etc/sudoers.d/opsmap-agent") == 0o440
    others = r"find /usr/lib/opsmap-agent ! -type l \( -perm -g+w -o -perm -o+w -o ! -user root \)"
    writable = run([*in_root, others])
    assert writable == "", "code of the agent that somebody else than root may change"
    run([*in_root, REMOVE[kind]])
    assert not (root / "usr/lib/opsmap-agent").exists()


def test_installed_agent_does_not_take_code_from_elsewhere(
    packages: dict[str, Path], root: Path, tmp_path: Path
) -> None:
    if "deb" not in packages:
        pytest.skip("dpkg-deb is not installed")
    shutil.copy(packages["deb"], root / "opt")
    run(["chroot", str(root), "sh", "-c", INSTALL["deb"].format(f"/opt/{packages['deb'].name}")])
    (root / "opt/evil").mkdir()
    (root / "opt/evil/opsmap_agent.py").write_text("raise SystemExit('evil')", encoding="ascii")
    command = ["chroot", str(root), "sh", "-c", "cd /opt/evil && opsmap-agent --version"]
    assert "evil" not in run(command, PYTHONPATH="/opt/evil", PYTHONHOME="")


@pytest.mark.parametrize("program", ["agent", "gateway"])
def test_zipapp_runs_by_itself(packages: dict[str, Path], tmp_path: Path, program: str) -> None:
    assert f"opsmap-{program}" in run([str(packages[program]), "--version"], SHIV_ROOT=str(tmp_path))


def test_zipapp_finds_its_code_in_its_children_too(packages: dict[str, Path], tmp_path: Path) -> None:
    """A child of the agent reads the configuration when it starts."""
    (tmp_path / "agent.yaml").write_text("gateway: {urll: wss://gateway}\n", encoding="ascii")
    starting = [str(packages["agent"]), "run", "--config", str(tmp_path / "agent.yaml")]
    told = run(starting, code=78, SHIV_ROOT=str(tmp_path / "code"))
    assert "agent.yaml:1: gateway.urll: unknown key (did you mean 'url'?)" in told


def test_zipapp_says_which_python_it_needs(tmp_path: Path) -> None:
    """The lines that run first, told that this Python is an older one."""
    text = (FILES / "check_python.py").read_text(encoding="ascii")
    assert "from __future__" not in text, "an older Python must be able to read it"
    told = run(["python3", "-c", f"import sys; sys.version_info = (3, 9, 1)\n{text}"], code=1)
    assert "this needs Python 3.11 to 3.14" in told


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_units_are_sound_and_closed(tmp_path: Path) -> None:
    for unit in ("opsmap-agent.service", "opsmap-gateway.service"):
        text = (FILES / "systemd" / unit).read_text(encoding="ascii")
        (tmp_path / unit).write_text(text.replace("/usr/bin/opsmap-", "/usr/bin/env opsmap-"), encoding="ascii")
    run(["systemd-analyze", "verify", *map(str, tmp_path.glob("*.service"))])
    drop_in = tmp_path / "opsmap-agent.service.d"
    drop_in.mkdir()
    shutil.copy(FILES / "systemd/opsmap-agent-hardened.conf", drop_in)
    for unit in ("opsmap-agent.service", "opsmap-gateway.service"):
        # Of 100, where 0 is closed. With the drop-in, as the agent without it must leave sudo what it needs.
        analyze = ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit]
        run(analyze, SYSTEMD_UNIT_PATH=f"{tmp_path}:")


def test_the_agents_unit_leaves_its_children_alone() -> None:
    lines = (FILES / "systemd/opsmap-agent.service").read_text(encoding="ascii").splitlines()
    assert {"KillMode=process", "OOMPolicy=continue", "TasksMax=infinity"} <= set(lines)
    assert not [line for line in lines if line.startswith(("NoNewPrivileges", "SystemCallFilter", "MemoryMax"))]


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def _rpm_on_debian(kind: str) -> str:
    """What Debian's rpm says before it works."""
    words = "RPM should not be used directly install RPM packages, use Alien instead!"
    return f"rpm: {words}\nrpm: However assuming you know what you are doing..." if kind == "rpm" else ""
