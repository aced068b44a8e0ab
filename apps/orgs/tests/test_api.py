"""Signing in over REST: the session, its CSRF protection, and how errors read."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from apps.audit.models import AuditEvent
from conftest import PASSWORD, Cast

URL = "/api/v1/auth/session"


def _post(client: Client, body: Any, **headers: str) -> Any:
    return client.post(URL, body, content_type="application/json", headers=headers)


def _credentials(email: str = "viewer@acme.example", password: str = PASSWORD) -> dict[str, str]:
    return {"email": email, "password": password}


@pytest.mark.django_db
def test_nobody_gets_401(client: Client) -> None:
    answer = client.get(URL)

    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["WWW-Authenticate"]


def test_session_tells_who_and_where(cast: Cast, client: Client) -> None:
    client.force_login(cast.operator)

    assert client.get(URL).json() == {
        "user": {"id": str(cast.operator.pk), "email": "operator@acme.example", "name": "Oscar"},
        "organizations": [{"id": str(cast.acme.pk), "name": "Acme", "slug": "acme", "role": "admin"}],
    }


def test_sign_in_opens_a_session_and_is_recorded(cast: Cast, client: Client) -> None:
    answer = _post(client, _credentials())

    assert answer.status_code == 200
    assert answer.json()["user"]["email"] == "viewer@acme.example"
    assert client.get(URL).json() == answer.json()
    cookie = client.cookies["sessionid"]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
    assert AuditEvent.objects.get(action="user.signed_in").actor["id"] == str(cast.viewer.pk)


def test_case_of_the_email_does_not_matter(cast: Cast, client: Client) -> None:
    assert _post(client, _credentials("Viewer@ACME.example")).status_code == 200


@pytest.mark.parametrize(
    "wrong", [{"password": "wrong"}, {"email": "nobody@acme.example"}, {"password": f" {PASSWORD}"}]
)
def test_wrong_credentials_get_401_and_the_same_words(cast: Cast, client: Client, wrong: dict[str, str]) -> None:
    answer = _post(client, _credentials() | wrong)

    assert answer.status_code == 401
    assert answer.json()["code"] == "sign_in_failed"
    assert answer.json()["detail"] == "Email or password is wrong."
    assert client.get(URL).status_code == 401
    event = AuditEvent.objects.get(action="user.sign_in_refused")
    assert event.details["email"] == (_credentials() | wrong)["email"]


def test_inactive_person_gets_401(cast: Cast, client: Client) -> None:
    cast.viewer.is_active = False
    cast.viewer.save()
    assert _post(client, _credentials()).json()["code"] == "sign_in_failed"


def test_session_of_a_person_made_inactive_ends_at_once(cast: Cast, client: Client) -> None:
    client.force_login(cast.viewer)
    cast.viewer.is_active = False
    cast.viewer.save()
    assert client.get(URL).status_code == 401


def test_session_ends_when_the_password_changes(cast: Cast, client: Client) -> None:
    _post(client, _credentials())
    cast.viewer.set_password(PASSWORD + "!")
    cast.viewer.save()
    assert client.get(URL).status_code == 401


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ({"password": PASSWORD}, "email"),
        ({"email": "viewer@acme.example"}, "password"),
        ({"email": "viewer", "password": PASSWORD}, "email"),
        ({"email": "vie\0wer@acme.example", "password": PASSWORD}, "email"),
        ({"email": "viewer@acme.example", "password": "x" * 513}, "password"),
    ],
)
def test_incomplete_body_names_the_field(db: None, client: Client, body: dict[str, str], key: str) -> None:
    answer = _post(client, body)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert list(answer.json()["errors"]) == [key]
    assert not AuditEvent.objects.exists()


def test_form_of_another_site_cannot_sign_in(cast: Cast, client: Client) -> None:
    """A cross-site form cannot send JSON, and nothing else is read: nobody can be signed in to a foreign account."""
    for content_type in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"):
        answer = client.post(URL, '{"email": "viewer@acme.example"}', content_type=content_type)
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_sign_out_ends_the_session(cast: Cast, client: Client) -> None:
    client.force_login(cast.viewer)

    assert client.delete(URL).status_code == 204
    assert client.get(URL).status_code == 401


@pytest.fixture
def browser(cast: Cast) -> Client:
    """Signed in, with CSRF checked as in production."""
    browser = Client(enforce_csrf_checks=True)
    browser.get("/sign-in/")
    browser.force_login(cast.owner)
    return browser


WRITES = [
    ("post", URL),
    ("delete", URL),
    ("post", "/api/v1/auth/tokens"),
    ("delete", "/api/v1/auth/tokens/01a1fc23-b714-7fb2-aaf3-34941bd6c8d9"),
    ("post", "/api/v1/maps"),
    ("post", "/api/v1/maps/validate"),
    ("put", "/api/v1/maps/01a1fc23-b714-7fb2-aaf3-34941bd6c8d9/documents"),
    ("delete", "/api/v1/maps/01a1fc23-b714-7fb2-aaf3-34941bd6c8d9"),
    ("post", "/api/v1/maps/01a1fc23-b714-7fb2-aaf3-34941bd6c8d9/operations"),
    ("post", "/api/v1/operations/01a1fc23-b714-7fb2-aaf3-34941bd6c8d9/cancel"),
]


@pytest.mark.parametrize(("method", "url"), WRITES)
def test_write_with_a_session_needs_the_csrf_token(browser: Client, method: str, url: str) -> None:
    refused = getattr(browser, method)(url, {}, content_type="application/json")

    assert refused.status_code == 403
    assert "CSRF" in refused.json()["detail"]
    token = browser.cookies["csrftoken"].value
    passed = getattr(browser, method)(url, {}, content_type="application/json", headers={"X-CSRFToken": token})
    assert passed.status_code != 403


def test_csrf_token_of_another_session_is_refused(browser: Client) -> None:
    refused = _post(browser, _credentials(), **{"X-CSRFToken": "a" * 32})
    assert refused.status_code == 403


def test_reading_with_a_session_needs_no_csrf_token(browser: Client) -> None:
    assert browser.get(URL).status_code == 200
