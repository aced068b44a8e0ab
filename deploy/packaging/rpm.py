"""The RPM package, with rpmbuild."""

from __future__ import annotations

from pathlib import Path

from deploy.packaging.layout import FILES, make_root
from deploy.packaging.payload import Payload, run


def build_rpm(payload: Payload, work: Path, out: Path) -> Path:
    """Raises BuildError."""
    root = work / "rpm"
    make_root(payload, root)
    defines = {
        "opsmap_version": payload.version,
        "opsmap_root": root,
        "opsmap_scripts": FILES / "deb",
        "_topdir": work / "rpmbuild",
        "_rpmdir": work / "rpms",
        "_dbpath": work / "rpmdb",
    }
    options = [part for name, value in defines.items() for part in ("--define", f"{name} {value}")]
    run(["rpmbuild", "-bb", "--target", payload.machine, *options, str(FILES / "rpm" / "opsmap-agent.spec")])
    (built,) = (work / "rpms").rglob("*.rpm")
    return built.rename(out / built.name)
