"""The Debian package, with Debian's own tool."""

from __future__ import annotations

import shutil
from pathlib import Path

from deploy.packaging.layout import FILES, make_root
from deploy.packaging.payload import Payload, run

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def build_deb(payload: Payload, work: Path, out: Path) -> Path:
    """Raises BuildError."""
    root = work / "deb"
    make_root(payload, root)
    architecture = _ARCHITECTURES[payload.machine]
    control = root / "DEBIAN"
    control.mkdir(mode=0o755)
    text = (FILES / "deb" / "control").read_text(encoding="utf-8")
    filled = text.replace("@VERSION@", payload.version).replace("@ARCHITECTURE@", architecture)
    (control / "control").write_text(filled, encoding="utf-8")
    for name in ("postinst", "prerm", "postrm"):
        shutil.copyfile(FILES / "deb" / name, control / name)
        (control / name).chmod(0o755)
    shutil.copyfile(FILES / "deb" / "conffiles", control / "conffiles")
    package = out / f"opsmap-agent_{payload.version}_{architecture}.deb"
    run(["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(package)])
    return package
