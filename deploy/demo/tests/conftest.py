"""Folders and stages for the tests; what they put outside their folder goes away with them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo.tests.stage import Stage, discard_outside


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A rendered demonstration of which nothing runs yet; whatever does at the end is ended by the lease."""
    stage = Stage(tmp_path_factory.mktemp("demo"), python=Path(sys.executable))
    try:
        yield stage
    finally:
        stage.close()


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to render in, once for a module."""
    root = tmp_path_factory.mktemp("documents")
    yield root
    discard_outside(root)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder to render in, for one test."""
    yield tmp_path
    discard_outside(tmp_path)
