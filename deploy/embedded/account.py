"""The unprivileged account PostgreSQL and Valkey run under when OpsMap is started by root.

PostgreSQL refuses to run as root, and neither service needs it. An ordinary user runs them as himself.
"""

import os
import pwd
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded.errors import PlacementError

DEFAULT_USER = "nobody"


@dataclass(frozen=True)
class Account:
    """Who a child process becomes before it executes; supplementary groups are dropped."""

    name: str
    uid: int
    gid: int

    @classmethod
    def for_service(cls, environment: Mapping[str, str]) -> "Account":
        """The account OPSMAP_SERVICE_USER names, or `nobody`."""
        name = environment.get("OPSMAP_SERVICE_USER") or DEFAULT_USER
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise PlacementError(
                f"There is no user '{name}' to run PostgreSQL as: set OPSMAP_SERVICE_USER to one."
            ) from None
        if entry.pw_uid == 0:
            raise PlacementError("OPSMAP_SERVICE_USER must be an unprivileged user: PostgreSQL refuses to run as root.")
        return cls(name, entry.pw_uid, entry.pw_gid)

    @classmethod
    def owner_of(cls, path: Path) -> "Account":
        """Whoever owns existing data goes on running it, also after OPSMAP_SERVICE_USER has changed."""
        status = path.stat()
        try:
            name = pwd.getpwuid(status.st_uid).pw_name
        except KeyError:
            name = f"uid {status.st_uid}"
        return cls(name, status.st_uid, status.st_gid)

    def can(self, *argv: str) -> bool:
        """Whether a small command succeeds under this account: the only test that knows every access rule."""
        try:
            done = subprocess.run(
                argv,
                user=self.uid,
                group=self.gid,
                extra_groups=[],
                cwd="/",
                env={"PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        except PermissionError:
            return False
        return done.returncode == 0

    def can_enter(self, folder: Path) -> bool:
        return self.can("/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder))


def make_private_folder(path: Path, account: Account | None) -> None:
    """Create `path` (its parent exists) as 0700, owned by the account; one that exists is left as it is."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    give(path, account)


def give(path: Path, account: Account | None) -> None:
    """Hand a folder we have just made to the account.

    Through a descriptor that refuses symbolic links, so that root never changes what somebody put in its
    place.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o700)
        if account is not None:
            os.fchown(descriptor, account.uid, account.gid)
    finally:
        os.close(descriptor)
