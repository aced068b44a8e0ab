"""What the tests of delivery begin with: a gateway of Acme that is connected, and one agent behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from apps.gateways.models import Gateway
    from apps.gateways.tests.factories import SimulatedAgent
    from conftest import Cast


@pytest.fixture
def gateway(cast: Cast) -> Gateway:
    from apps.gateways.tests.factories import make_gateway

    return make_gateway(cast.acme)


@pytest.fixture
def agent(gateway: Gateway) -> SimulatedAgent:
    from apps.gateways.tests.factories import make_agent

    return make_agent(gateway)
