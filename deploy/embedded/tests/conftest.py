"""State folders for tests."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.embedded.tests.running import Embedded


@contextmanager
def passable_folder() -> Iterator[Path]:
    """A folder of our own that everybody may pass through; pytest's own are private."""
    made = Path(tempfile.mkdtemp(prefix="opsmap-test-", dir="/tmp"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def folder() -> Iterator[Path]:
    with passable_folder() as made:
        yield made


@pytest.fixture
def embedded(folder: Path) -> Iterator[Embedded]:
    """A state folder that does not exist yet."""
    made = Embedded(folder / "state")
    yield made
    made.end()


@pytest.fixture(scope="session")
def _installed() -> Iterator[Embedded]:
    with passable_folder() as parent:
        made = Embedded(parent / "state")
        assert made.services("true").returncode == 0
        yield made
        made.end()


@pytest.fixture
def installed(_installed: Embedded) -> Iterator[Embedded]:
    """A state folder after its first run, shared: initdb takes longer than all the rest."""
    yield _installed
    _installed.end_processes()
