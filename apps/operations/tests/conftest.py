"""What the tests of operations begin with: a Map on a connected host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from apps.operations.tests.factories import Stage
    from conftest import Cast


@pytest.fixture
def stage(cast: Cast) -> Stage:
    from apps.operations.tests.factories import make_stage

    return make_stage(cast)
