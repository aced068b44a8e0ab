"""Where things may live: no permissions are widened, private checkouts work, short sockets are found."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded.account import Account
from deploy.embedded.binaries import Binaries
from deploy.embedded.clean import clean
from deploy.embedded.errors import PlacementError
from deploy.embedded.placement import MAX_SOCKET_PATH_BYTES, outside_folder, place
from deploy.embedded.state import StateFolder
from deploy.embedded.tests.running import Embedded

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the services as somebody else")


@pytest.fixture
def private(folder: Path) -> Iterator[Embedded]:
    """A state folder below a directory that only its owner may enter, as /root is."""
    closed = folder / "private"
    closed.mkdir(mode=0o700)
    made = Embedded(closed / "state")
    yield made
    made.end()


def modes(path: Path) -> dict[Path, tuple[int, int, int]]:
    """Mode, owner and group of every directory from the root down to `path`."""
    return {
        each: (stat.S_IMODE(each.stat().st_mode), each.stat().st_uid, each.stat().st_gid)
        for each in (path, *path.parents)
    }


def test_a_private_parent_stays_private(private: Embedded) -> None:
    before = modes(private.state.parent)
    done = private.services("true")
    assert done.returncode == 0, done.stderr
    assert modes(private.state.parent) == before


def test_an_existing_state_folder_keeps_its_mode(folder: Path, embedded: Embedded) -> None:
    embedded.state.mkdir(mode=0o700)
    before = modes(embedded.state)
    assert embedded.services("true").returncode == 0
    assert modes(embedded.state) == before


@as_root
def test_what_the_service_user_cannot_reach_is_placed_outside_and_cleaned(private: Embedded) -> None:
    outside = outside_folder(StateFolder(private.state.resolve()))
    done = private.services("true")
    assert str(outside) in done.stderr
    assert stat.S_IMODE(outside.stat().st_mode) == 0o711
    assert outside.stat().st_uid == 0
    assert stat.S_IMODE((outside / "postgres").stat().st_mode) == 0o700
    assert (outside / "postgres").owner() == "nobody"
    assert not (private.state / "postgres").exists()

    clean(private.state, is_confirmed=True)

    assert not outside.exists()
    assert not private.state.exists()


@as_root
def test_unreachable_binaries_are_copied_once(folder: Path) -> None:
    hidden = folder / "hidden"
    hidden.mkdir(mode=0o700)
    installed = Binaries.installed().copy_to(hidden)
    state = StateFolder.create(folder / "state")
    outside = folder / "outside"

    first = place(state, installed, environment={}, outside=outside)
    again = place(state, installed, environment={}, outside=outside)

    assert first.binaries == again.binaries != installed
    assert first.binaries.postgres_bin.is_relative_to(outside)
    assert first.home == state.path
    assert Account.for_service({}).can(str(first.binaries.postgres_bin / "initdb"), "--version")
    assert stat.S_IMODE(hidden.stat().st_mode) == 0o700


@as_root
def test_existing_data_that_became_unreachable_are_not_replaced(folder: Path) -> None:
    parent = folder / "parent"
    parent.mkdir(mode=0o711)
    made = Embedded(parent / "state")
    assert made.services("true").returncode == 0
    parent.chmod(0o700)

    done = made.services("true")

    assert done.returncode == 1
    assert "can no longer reach" in done.stderr
    parent.chmod(0o711)
    made.end()


@as_root
def test_a_folder_outside_that_others_can_change_is_refused(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    state = StateFolder.create(closed / "state")
    outside = folder / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    with pytest.raises(PlacementError, match="only root can change"):
        place(state, Binaries.installed(), environment={}, outside=outside)


@as_root
@pytest.mark.parametrize(("user", "line"), [("nosuchuser", "There is no user"), ("root", "must be an unprivileged")])
def test_a_service_user_that_cannot_be(folder: Path, user: str, line: str) -> None:
    state = StateFolder.create(folder / "state")
    with pytest.raises(PlacementError, match=line):
        place(state, Binaries.installed(), environment={"OPSMAP_SERVICE_USER": user})


@pytest.mark.parametrize("name", ["long-" + "x" * 120, "with a space"])
def test_sockets_move_to_a_short_plain_folder_and_are_removed(folder: Path, name: str) -> None:
    made = Embedded(folder / name / "state")
    done = made.services("sh", "-c", 'echo "$OPSMAP_DATABASE_URL"')
    assert done.returncode == 0, done.stderr
    sockets = Path(done.stdout.strip().partition("?host=")[2])
    assert len(bytes(sockets / ".s.PGSQL.5432")) <= MAX_SOCKET_PATH_BYTES
    assert not sockets.is_relative_to(folder)
    assert not sockets.exists()
    made.end()
