"""`manage.py bootstrap`: from nothing to a demonstration, and again without harm."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from apps.gateways.models import Gateway
from apps.gateways.tests.factories import SimulatedAgent
from apps.maps.models import Component, Map
from apps.operations.tests.factories import document
from apps.orgs.models import Organization, User, Workspace

pytestmark = pytest.mark.django_db


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    documents = tmp_path / "documents" / "trading-platform"
    documents.mkdir(parents=True)
    head = {"apiVersion": "opsmap.io/v1", "kind": "Map", "metadata": {"name": "Trading Platform"}, "spec": {}}
    for index, item in enumerate([head, document("db"), document("web", ["db"])]):
        (documents / f"{index}.yaml").write_text(json.dumps(item))
    return {"pki": tmp_path / "pki", "credentials": tmp_path / "credentials.json", "documents": documents}


def bootstrap(places: dict[str, Path]) -> dict[str, Any]:
    call_command("bootstrap", **places)
    credentials: dict[str, Any] = json.loads(places["credentials"].read_text())
    return credentials


def test_bootstrap_makes_everything_that_a_demonstration_needs(places: dict[str, Path], client: Any) -> None:
    credentials = bootstrap(places)
    assert stat.S_IMODE(places["credentials"].stat().st_mode) == 0o600
    assert client.login(username=credentials["email"], password=credentials["password"])
    assert Organization.objects.get().slug == "acme"
    assert Workspace.objects.get().slug == "production"
    assert Gateway.objects.get().gateway_id == "gateway-local"
    assert set(Component.objects.values_list("name", flat=True)) == {"db", "web"}
    leaves = {path.name for path in (places["pki"] / "leaf").glob("*.crt")}
    assert leaves == {"backend.crt", "signer.crt", "gateway-local.crt", "agent-srv-data-01.crt", "agent-srv-app-01.crt"}


def test_bootstrap_again_changes_nothing_but_forgets_the_states(places: dict[str, Path]) -> None:
    credentials = bootstrap(places)
    gateway = Gateway.objects.get()
    ids = set(Component.objects.values_list("pk", flat=True))
    Component.objects.update(state="running", desired="up")
    certificates = {path: path.read_bytes() for path in places["pki"].rglob("*.crt")}
    assert bootstrap(places) == credentials
    assert User.objects.count() == Organization.objects.count() == Map.objects.count() == 1
    assert Gateway.objects.get().certificate_sha256 == gateway.certificate_sha256
    assert {path: path.read_bytes() for path in places["pki"].rglob("*.crt")} == certificates
    assert set(Component.objects.values_list("pk", flat=True)) == ids
    assert set(Component.objects.values_list("state", flat=True)) == {"unknown"}, (
        "their processes ended with the former run"
    )


def test_bootstrap_gives_a_new_password_when_the_file_is_gone(places: dict[str, Path], client: Any) -> None:
    before = bootstrap(places)
    places["credentials"].unlink()
    after = bootstrap(places)
    assert after["email"] == before["email"]
    assert not client.login(username=before["email"], password=before["password"])
    assert client.login(username=after["email"], password=after["password"])


def test_bootstrap_takes_over_changed_documents(places: dict[str, Path]) -> None:
    bootstrap(places)
    (places["documents"] / "9.yaml").write_text(json.dumps(document("mail")))
    bootstrap(places)
    assert set(Component.objects.values_list("name", flat=True)) == {"db", "web", "mail"}


def test_bootstrap_tells_of_faulty_documents_in_words(places: dict[str, Path]) -> None:
    (places["documents"] / "9.yaml").write_text(json.dumps(document("mail", ["nobody"])))
    with pytest.raises(CommandError, match="nobody"):
        bootstrap(places)
    assert not Map.objects.exists()


def test_bootstrap_refuses_half_a_pki(places: dict[str, Path]) -> None:
    bootstrap(places)
    (places["pki"] / "ca" / "gateway.key").unlink()
    with pytest.raises(CommandError, match="lacks: gateway"):
        bootstrap(places)


def test_bootstrap_while_agents_are_connected_gives_them_their_checks(
    places: dict[str, Path], django_capture_on_commit_callbacks: Any
) -> None:
    bootstrap(places)
    agent = SimulatedAgent(Gateway.objects.get(), "srv-1")
    agent.connect()
    (places["documents"] / "9.yaml").write_text(json.dumps(document("mail")))
    with django_capture_on_commit_callbacks(execute=True):
        bootstrap(places)
    assert len(agent.row.health_checks) == 3
