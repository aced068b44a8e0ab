"""One file for each program, which runs by itself: it unpacks into a folder of its own at the first start (shiv)."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.packaging.layout import FILES
from deploy.packaging.payload import Payload, run


def build_zipapps(payload: Payload, out: Path) -> list[Path]:
    """Raises BuildError."""
    return [_build(payload, program, out) for program in ("opsmap-agent", "opsmap-gateway")]


def _build(payload: Payload, program: str, out: Path) -> Path:
    target = out / f"{program}-{payload.version}-{payload.machine}.pyz"
    module = program.replace("-", "_")
    shiv = [sys.executable, "-m", "shiv.cli", "--site-packages", str(payload.site_packages)]
    first = ["--preamble", str(FILES / "check_python.py")]
    options = ["--compressed", "--reproducible", "--python", "/usr/bin/env python3", *first]
    run([*shiv, *options, "--entry-point", f"{module}.cli:main", "--output-file", str(target)])
    return target
