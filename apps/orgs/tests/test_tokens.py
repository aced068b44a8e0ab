"""API tokens over REST: shown once, good for their owner alone, and refused the moment they are not valid."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from apps.audit.actor import Actor
from apps.audit.models import AuditEvent
from apps.orgs.actions import issue_token, revoke_token
from apps.orgs.models import ApiToken, User
from conftest import PASSWORD, Cast

URL = "/api/v1/auth/tokens"
SESSION = "/api/v1/auth/session"


def _issue(user: User, **fields: Any) -> tuple[ApiToken, str]:
    return issue_token(user=user, name="ci", actor=Actor.person(user), **fields)


def _bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def _post(client: Client, body: dict[str, str], headers: dict[str, str] | None = None) -> Any:
    return client.post(URL, body, content_type="application/json", headers=headers)


def test_token_acts_as_its_owner(cast: Cast, client: Client) -> None:
    _, text = _issue(cast.viewer)
    assert client.get(SESSION, headers=_bearer(text)).json()["user"]["email"] == "viewer@acme.example"


def test_name_of_the_scheme_may_have_any_case(cast: Cast, client: Client) -> None:
    _, text = _issue(cast.viewer)
    assert client.get(SESSION, headers={"Authorization": f"bearer  {text} "}).status_code == 200


def test_token_needs_no_csrf_token(cast: Cast) -> None:
    client = Client(enforce_csrf_checks=True)
    _, text = _issue(cast.viewer)
    assert _post(client, {"name": "second"}, _bearer(text)).status_code == 201


def test_token_is_refused_even_beside_a_valid_session(cast: Cast, client: Client) -> None:
    client.force_login(cast.viewer)
    assert client.get(SESSION, headers=_bearer("opm_wrong")).status_code == 401


def _revoked(cast: Cast) -> str:
    token, text = _issue(cast.viewer)
    revoke_token(token=token, actor=Actor.person(cast.viewer))
    return text


def _of_an_inactive_person(cast: Cast) -> str:
    _, text = _issue(cast.viewer)
    User.objects.filter(pk=cast.viewer.pk).update(is_active=False)
    return text


INVALID = {
    "wrong": lambda cast: "opm_" + "x" * 43,
    "empty": lambda cast: "",
    "longer": lambda cast: _issue(cast.viewer)[1] + "x",
    "cut": lambda cast: _issue(cast.viewer)[1][:-1],
    "digest": lambda cast: _issue(cast.viewer)[0].digest,
    "prefix": lambda cast: _issue(cast.viewer)[0].prefix,
    "revoked": _revoked,
    "expired": lambda cast: _issue(cast.viewer, expires_at=timezone.now() - timedelta(microseconds=1))[1],
    "of an inactive person": _of_an_inactive_person,
}


@pytest.mark.parametrize("kind", INVALID)
def test_invalid_token_gets_401(cast: Cast, client: Client, kind: str) -> None:
    answer = client.get(SESSION, headers=_bearer(INVALID[kind](cast)))

    assert (answer.status_code, answer.json()["code"]) == (401, "authentication_failed")
    assert answer.json()["detail"] == "The token is unknown, expired or revoked."
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_token_is_valid_until_it_expires(cast: Cast, client: Client) -> None:
    _, text = _issue(cast.viewer, expires_at=timezone.now() + timedelta(minutes=1))
    assert client.get(SESSION, headers=_bearer(text)).status_code == 200


@pytest.mark.parametrize("url", [URL, "/api/v1/maps", "/api/v1/agents", "/api/v1/gateways"])
def test_nobody_reads_nothing(db: None, client: Client, url: str) -> None:
    assert client.get(url).status_code == 401


def test_signed_in_person_makes_a_token_that_is_shown_once(cast: Cast, client: Client) -> None:
    client.force_login(cast.viewer)

    answer = _post(client, {"name": "laptop"})

    made = answer.json()
    assert answer.status_code == 201
    assert made["name"] == "laptop"
    assert made["token"].startswith(made["prefix"])
    assert client.get(SESSION, headers=_bearer(made["token"])).status_code == 200
    listed = client.get(URL)
    assert [item["id"] for item in listed.json()["results"]] == [made["id"]]
    assert made["token"] not in listed.content.decode()
    assert ApiToken.objects.get(pk=made["id"]).digest not in listed.content.decode()
    event = AuditEvent.objects.get(action="token.issued")
    assert (event.actor["email"], event.actor["ip"]) == ("viewer@acme.example", "127.0.0.1")


def test_script_without_cookies_makes_a_token_with_a_password(cast: Cast, client: Client) -> None:
    answer = _post(client, {"name": "ci", "email": "Viewer@acme.example", "password": PASSWORD})

    assert answer.status_code == 201
    assert client.get(SESSION, headers=_bearer(answer.json()["token"])).status_code == 200
    assert "sessionid" not in client.cookies
    assert AuditEvent.objects.filter(action="user.signed_in").count() == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"email": "viewer@acme.example", "password": "wrong"}, "sign_in_failed"),
        ({"email": "viewer@acme.example"}, "not_authenticated"),
        ({"password": PASSWORD}, "not_authenticated"),
        ({}, "not_authenticated"),
    ],
)
def test_nobody_makes_no_token(cast: Cast, client: Client, body: dict[str, str], code: str) -> None:
    answer = _post(client, {"name": "ci", **body})

    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert not ApiToken.objects.exists()


def test_token_needs_a_name(cast: Cast, client: Client) -> None:
    client.force_login(cast.viewer)
    assert list(_post(client, {"name": ""}).json()["errors"]) == ["name"]


def test_list_has_only_my_own_that_are_not_revoked(cast: Cast, client: Client) -> None:
    _issue(cast.owner)
    _revoked(cast)
    mine, _ = _issue(cast.viewer)
    client.force_login(cast.viewer)

    assert [item["id"] for item in client.get(URL).json()["results"]] == [str(mine.pk)]


def test_delete_revokes_a_token_of_mine_for_good(cast: Cast, client: Client) -> None:
    token, text = _issue(cast.viewer)

    assert client.delete(f"{URL}/{token.pk}", headers=_bearer(text)).status_code == 204

    assert client.get(SESSION, headers=_bearer(text)).status_code == 401
    assert AuditEvent.objects.get(action="token.revoked").target["tokenId"] == str(token.pk)


def test_delete_of_a_foreign_or_missing_token_gets_404(cast: Cast, client: Client) -> None:
    foreign, text = _issue(cast.owner)
    client.force_login(cast.operator)

    for token_id in (foreign.pk, cast.acme.pk):
        assert client.delete(f"{URL}/{token_id}").json()["code"] == "not_found"
    assert client.get(SESSION, headers=_bearer(text)).status_code == 200
