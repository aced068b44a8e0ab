"""The cast's organizations with a PKI, ready for gateways and hosts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from apps.gateways.tests.sockets import LinkPki
    from conftest import Cast
    from tests.adversary.hostile import Place


@pytest.fixture(scope="session")
def pki_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pki")


@pytest.fixture
def pki(pki_folder: Path, settings: object) -> LinkPki:
    from apps.gateways.tests.sockets import LinkPki

    settings.PKI_DIR = pki_folder  # type: ignore[attr-defined]
    return LinkPki.make(pki_folder)


@pytest.fixture
def gateway_pem(cast: Cast, pki: LinkPki) -> str:
    """The certificate of Acme's gateway "gw-1", which is registered."""
    return pki.gateway_pem(cast.acme)


@pytest.fixture
def acme(cast: Cast, pki: LinkPki, tmp_path: Path) -> Place:
    from tests.adversary.hostile import Place

    (tmp_path / "acme").mkdir()
    return Place(pki, cast.acme, tmp_path / "acme")


@pytest.fixture
def umbrella(cast: Cast, pki: LinkPki, tmp_path: Path) -> Place:
    """Another organization of the same backend."""
    from tests.adversary.hostile import Place

    (tmp_path / "umbrella").mkdir()
    return Place(pki, cast.umbrella, tmp_path / "umbrella")
