"""Where the files of a deb or rpm go: a root folder as the host will see it.

The package brings no Python; it uses the host's. `lib/opsmap-agent` is a virtual environment made by hand, so that
every file of it belongs to the package: nothing is put together on the host but the link to its interpreter.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from deploy.packaging.payload import PYTHONS, REPOSITORY, Payload

FILES = REPOSITORY / "agent" / "packaging"
HOME = Path("usr/lib/opsmap-agent")
_PROGRAM = """\
#!/{home}/bin/python3 -I
import sys

from {module}.cli import main

sys.exit(main())
"""


def make_root(payload: Payload, root: Path) -> None:
    """Fill `root`. Permissions are as they shall be on the host; owners are the package's to say."""
    home = root / HOME
    shutil.copytree(payload.site_packages, home / "lib" / "site-packages")
    for python in PYTHONS:
        folder = home / "lib" / f"python{python}"
        folder.mkdir()
        (folder / "site-packages").symlink_to("../site-packages")
    (home / "bin").mkdir()
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n", encoding="ascii")
    (root / "usr/bin").mkdir(parents=True)
    for program in ("opsmap-agent", "opsmap-gateway"):
        text = _PROGRAM.format(home=HOME, module=program.replace("-", "_"))
        _write(home / "bin" / program, text, mode=0o755)
        (root / "usr/bin" / program).symlink_to(f"/{HOME}/bin/{program}")
    _copy(FILES / "run_as.py", home / "run-as", mode=0o755)
    _copy(FILES / "find-python", home / "find-python", mode=0o755)
    _copy(FILES / "sudoers.d" / "opsmap-agent", root / "etc/sudoers.d/opsmap-agent", mode=0o440)
    _copy(FILES / "sysusers.d" / "opsmap.conf", root / "usr/lib/sysusers.d/opsmap.conf")
    for unit in ("opsmap-agent.service", "opsmap-gateway.service"):
        _copy(FILES / "systemd" / unit, root / "usr/lib/systemd/system" / unit)
    _copy(FILES / "systemd" / "opsmap-agent-hardened.conf", root / "usr/share/opsmap-agent/opsmap-agent-hardened.conf")
    for example in sorted((FILES / "examples").iterdir()):
        _copy(example, root / "usr/share/doc/opsmap-agent/examples" / example.name)
    _copy(REPOSITORY / "docs" / "agent-security.md", root / "usr/share/doc/opsmap-agent/agent-security.md")
    _copy(REPOSITORY / "LICENSE", root / "usr/share/doc/opsmap-agent/copyright")
    _settle_permissions(root)


def _copy(source: Path, target: Path, *, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _write(target: Path, text: str, *, mode: int) -> None:
    target.write_text(text, encoding="ascii")
    target.chmod(mode)


def _settle_permissions(root: Path) -> None:
    """Whatever the umask of whoever builds: readable by all, writable by root alone."""
    for path in root.rglob("*"):
        if path.is_symlink():
            continue
        is_executable = path.is_dir() or path.stat().st_mode & 0o100
        if path.parent.name != "sudoers.d":
            path.chmod(0o755 if is_executable else 0o644)
