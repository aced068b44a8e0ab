"""`make check`: every static check, all of them whatever fails, changing nothing; one summary line each."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent
# mypy's plugin imports the settings, which need these; it connects to nothing.
PLACEHOLDERS = {
    "OPSMAP_DATABASE_URL": "postgresql://nobody@/none",
    "OPSMAP_REDIS_URL": "redis://127.0.0.1:1/0",
    "OPSMAP_SECRET_KEY": "only-for-static-checks-" + "-" * 32,
}
# Django's checks read settings and the migration history, so they get services of their own.
WITH_SERVICES = (sys.executable, "-m", "deploy.embedded", "services", "--state", ".opsmap/check", "--")
MANAGE = (*WITH_SERVICES, sys.executable, "manage.py")


@dataclass(frozen=True)
class Check:
    """A tool and how it is called; it passes if it exits with 0."""

    title: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


CHECKS = (
    Check("ruff format", (str(BIN / "ruff"), "format", "--check", ".")),
    Check("ruff check", (str(BIN / "ruff"), "check", ".")),
    Check("mypy", (str(BIN / "mypy"),), PLACEHOLDERS),
    Check("lint-imports", (str(BIN / "lint-imports"),)),
    Check("manage.py check", (*MANAGE, "check")),
    Check("migrations", (*MANAGE, "makemigrations", "--check", "--dry-run")),
    Check("generated docs", (sys.executable, "-m", "opsmap.generated_docs", "--check"), PLACEHOLDERS),
)


def main() -> int:
    results = [(check.title, *_run(check)) for check in CHECKS]
    print("\nmake check:")
    for title, code, seconds in results:
        print(f"  {'ok    ' if code == 0 else 'FAILED'}  {title:<16} {seconds:5.1f} s")
    return 1 if any(code for _, code, _ in results) else 0


def _run(check: Check) -> tuple[int, float]:
    print(f"== {check.title}", flush=True)
    began = time.monotonic()
    environment = {**check.environment, **os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    done = subprocess.run(check.argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False)
    return done.returncode, time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
