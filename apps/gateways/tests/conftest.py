"""What the tests of delivery begin with: a gateway of Acme that is connected, and one agent behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from apps.gateways.models import Gateway
    from apps.gateways.tests.factories import SimulatedAgent
    from apps.gateways.tests.sockets import LinkPki
    from conftest import Cast


@pytest.fixture(autouse=True)
def quick_acknowledgements(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test that hears none does so because there is none."""
    monkeypatch.setattr("apps.gateways.consumers.ACK_INTERVAL_S", 0.02)


@pytest.fixture
def gateway(cast: Cast) -> Gateway:
    from apps.gateways.tests.factories import make_gateway

    return make_gateway(cast.acme)


@pytest.fixture
def agent(gateway: Gateway) -> SimulatedAgent:
    from apps.gateways.tests.factories import make_agent

    return make_agent(gateway)


@pytest.fixture(scope="session")
def pki_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pki")


@pytest.fixture
def pki(pki_folder: Path, settings: object) -> LinkPki:
    """The PKI that the link uses."""
    from apps.gateways.tests.sockets import LinkPki

    settings.PKI_DIR = pki_folder  # type: ignore[attr-defined]
    return LinkPki.make(pki_folder)


@pytest.fixture
def gateway_pem(cast: Cast, pki: LinkPki) -> str:
    """The certificate of Acme's gateway "gw-1", which is registered."""
    return pki.gateway_pem(cast.acme)
