"""Build packages: `make packages`, or `python -m deploy.packaging --out dist deb rpm zipapp`."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from pathlib import Path

from deploy.packaging.deb import build_deb
from deploy.packaging.payload import PLATFORMS, BuildError, make_payload
from deploy.packaging.rpm import build_rpm
from deploy.packaging.zipapps import build_zipapps

KINDS = ("zipapp", "deb", "rpm")


def main() -> int:
    options = _parser().parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        for path in build(options.kinds or KINDS, options.machine, options.out.resolve()):
            print(path)
    except (BuildError, FileNotFoundError) as error:
        print(f"cannot build: {error}", file=sys.stderr)
        return 1
    return 0


def build(kinds: tuple[str, ...] | list[str], machine: str, out: Path) -> list[Path]:
    """The packages of these kinds, in `out`. Raises BuildError."""
    with tempfile.TemporaryDirectory(prefix="opsmap-packaging-") as name:
        work = Path(name)
        payload = make_payload(work, machine)
        built: list[Path] = []
        if "zipapp" in kinds:
            built += build_zipapps(payload, out)
        if "deb" in kinds:
            built.append(build_deb(payload, work, out))
        if "rpm" in kinds:
            built.append(build_rpm(payload, work, out))
        return built


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.packaging", description="Build what hosts install.")
    parser.add_argument(
        "kinds", nargs="*", metavar="KIND", choices=[*KINDS, []], help="zipapp, deb, rpm (default: all)"
    )
    parser.add_argument("--out", type=Path, default=Path("dist"), help="where to (default: %(default)s)")
    parser.add_argument(
        "--machine",
        choices=sorted(PLATFORMS),
        default=platform.machine(),
        help="for which hosts (default: like this one)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
