"""Where the services' data, sockets and binaries live, and under which account they run.

An ordinary user has everything inside the state folder. When root starts OpsMap, the services run as an
unprivileged user who must be able to reach their folders. A checkout in a private directory is the normal
case (/root is 0700), and nobody's permissions are widened for our convenience: what that user cannot reach is
placed under /var/lib instead.
"""

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded.account import Account, give, make_private_folder
from deploy.embedded.binaries import Binaries
from deploy.embedded.errors import PlacementError
from deploy.embedded.state import StateFolder

OUTSIDE = Path("/var/lib/opsmap-embedded")
# sun_path holds 108 bytes with its final NUL.
MAX_SOCKET_PATH_BYTES = 107
LONGEST_SOCKET_NAME = ".s.PGSQL.5432.lock"
# A folder name that needs no quoting in a PostgreSQL setting, a URL or a Valkey configuration line.
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+-]+")
SOCKETS_PREFIX = "opsmap-sockets-"
DATA_FOLDERS = ("postgres", "valkey")


@dataclass(frozen=True)
class Placement:
    """The answer for one run. `temporary` folders are removed at its end; `note` is for the person."""

    home: Path
    sockets: Path
    binaries: Binaries
    account: Account | None
    temporary: tuple[Path, ...] = ()
    note: str = ""

    @property
    def postgres(self) -> Path:
        return self.home / "postgres"

    @property
    def valkey(self) -> Path:
        return self.home / "valkey"


def place(
    state: StateFolder, binaries: Binaries, *, environment: Mapping[str, str], outside: Path = OUTSIDE
) -> Placement:
    """Decide for this state folder, and create the folders that are missing."""
    if os.geteuid() != 0:
        return _place_for_user(state, binaries)
    service = Account.for_service(environment)
    if not service.can("/bin/sh", "-c", ":"):
        raise PlacementError(f"Cannot run anything as '{service.name}': is this a container without CAP_SETUID?")
    home, account = _home_for_root(state, service, outside)
    unreachable = [] if home == state.path else ["the state folder"]
    if not _can_execute(account, binaries):
        unreachable.append("the installed PostgreSQL")
        binaries = binaries.copy_to(_make_outside_folder(state, outside))
        if not _can_execute(account, binaries):
            raise PlacementError(f"User '{account.name}' cannot execute {binaries.postgres_bin / 'postgres'}.")
    sockets, temporary = _sockets(state, account)
    note = (
        f"User '{account.name}' cannot reach {' and '.join(unreachable)}: "
        f"in {outside_folder(state, outside)} instead (`make clean` removes it)."
    )
    return Placement(home, sockets, binaries, account, temporary, note if unreachable else "")


def outside_folder(state: StateFolder, outside: Path = OUTSIDE) -> Path:
    """The folder that belongs to this state folder outside of it, whether or not it exists."""
    return outside / hashlib.sha256(os.fsencode(state.path)).hexdigest()[:16]


def _place_for_user(state: StateFolder, binaries: Binaries) -> Placement:
    for name in DATA_FOLDERS:
        folder = state.path / name
        if folder.exists() and folder.stat().st_uid != os.geteuid():
            raise PlacementError(
                f"{folder} belongs to {Account.owner_of(folder).name}: run OpsMap as before, or with another --state."
            )
    if not os.access(state.path, os.W_OK | os.X_OK):
        raise PlacementError(f"You cannot write to {state.path}: choose another folder with --state.")
    sockets, temporary = _sockets(state, None)
    return Placement(state.path, sockets, binaries, None, temporary)


def _home_for_root(state: StateFolder, account: Account, outside: Path) -> tuple[Path, Account]:
    """Existing data decide; else the state folder if the account can enter it; else the folder outside."""
    inside = state.path / "postgres"
    if inside.exists():
        owner = Account.owner_of(inside)
        if owner.uid == 0:
            raise PlacementError(f"{inside} belongs to root, and PostgreSQL refuses to run as root: move it away.")
        if not owner.can_enter(inside):
            raise PlacementError(
                f"User '{owner.name}' can no longer reach {inside}: a parent directory has become private. "
                "Restore its permissions, or remove the data with `python -m deploy.embedded clean`."
            )
        return state.path, owner
    beyond = outside_folder(state, outside) / "postgres"
    if beyond.exists():
        return _make_outside_folder(state, outside), Account.owner_of(beyond)
    if account.can_enter(state.path):
        return state.path, account
    return _make_outside_folder(state, outside), account


def _make_outside_folder(state: StateFolder, outside: Path) -> Path:
    """Make the folder outside: root's, passable but not listable; only the data below are the account's."""
    folder = outside_folder(state, outside)
    if not outside.parent.is_dir():
        raise PlacementError(f"There is no {outside.parent}, where the data of the unprivileged user would live.")
    try:
        for path in (outside, folder):
            _make_roots(path)
    except FileNotFoundError:
        # A `clean` of another state folder has just removed the common parent, which was empty.
        return _make_outside_folder(state, outside)
    return folder


def _make_roots(path: Path) -> None:
    try:
        path.mkdir(mode=0o711)
    except FileExistsError:
        _check_is_roots(path)
    else:
        path.chmod(0o711)  # the umask takes part in the mode of mkdir


def _check_is_roots(path: Path) -> None:
    """Binaries are executed from below this path: it must not be anybody else's to change."""
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
        raise PlacementError(f"{path} must be a directory that only root can change: remove it and try again.")


def _can_execute(account: Account, binaries: Binaries) -> bool:
    return account.can(str(binaries.postgres_bin / "postgres"), "--version") and account.can(
        str(binaries.valkey_server), "--version"
    )


def _sockets(state: StateFolder, account: Account | None) -> tuple[Path, tuple[Path, ...]]:
    """A private folder for the sockets: in the state folder if its path is short enough, else temporary."""
    folder = state.path / "sockets"
    if _is_short_enough(folder) and (account is None or account.can_enter(state.path)):
        make_private_folder(folder, account)
        if account is None or folder.stat().st_uid == account.uid:
            return folder, ()
    for parent in (Path("/tmp"), Path(tempfile.gettempdir())):  # noqa: S108 - mkdtemp below is private
        if not os.access(parent, os.W_OK) or (account is not None and not account.can_enter(parent)):
            continue
        made = Path(tempfile.mkdtemp(prefix=SOCKETS_PREFIX, dir=parent))
        give(made, account)
        if _is_short_enough(made):
            return made, (made,)
        made.rmdir()
    raise PlacementError("There is no folder with a short path for the sockets: /tmp is not usable.")


def _is_short_enough(folder: Path) -> bool:
    name = os.fsencode(folder / LONGEST_SOCKET_NAME)
    return len(name) <= MAX_SOCKET_PATH_BYTES and PLAIN_PATH.fullmatch(str(folder)) is not None
