"""The sign-in page: who gets in, what the rest are told, and where it leads."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from apps.audit.actor import Actor
from apps.audit.models import AuditEvent
from apps.orgs.actions import issue_token
from conftest import PASSWORD, Cast

WRONG = "Email or password is wrong."


def _sign_in(client: Client, email: str = "viewer@acme.example", password: str = PASSWORD, **fields: str) -> Any:
    return client.post("/sign-in/", {"username": email, "password": password, **fields})


def _signed_in_as(client: Client) -> str | None:
    return client.session.get("_auth_user_id")


@pytest.mark.django_db
def test_page_shows_a_form_that_posts_to_itself(client: Client) -> None:
    page = client.get("/sign-in/")

    assert page.status_code == 200
    text = page.content.decode()
    assert 'action="/sign-in/"' in text
    assert 'name="csrfmiddlewaretoken"' in text
    assert 'name="next"' not in text
    assert "no-store" in page.headers["Cache-Control"]


def test_right_password_leads_to_the_maps(cast: Cast, client: Client) -> None:
    answer = _sign_in(client)

    assert (answer.status_code, answer.url) == (302, "/")
    assert _signed_in_as(client) == str(cast.viewer.pk)
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("email", ["VIEWER@ACME.EXAMPLE", "Viewer@Acme.example", " viewer@acme.example "])
def test_case_of_the_email_does_not_matter(cast: Cast, client: Client, email: str) -> None:
    _sign_in(client, email)
    assert _signed_in_as(client) == str(cast.viewer.pk)


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("viewer@acme.example", "not-the-password"),
        ("viewer@acme.example", PASSWORD.upper()),
        ("nobody@acme.example", PASSWORD),
    ],
)
def test_wrong_credentials_never_say_which_was_wrong(cast: Cast, client: Client, email: str, password: str) -> None:
    page = _sign_in(client, email, password)

    assert page.status_code == 200
    assert WRONG in page.content.decode()
    assert password not in page.content.decode()
    assert _signed_in_as(client) is None
    event = AuditEvent.objects.get(action="user.sign_in_refused")
    assert (event.details["email"], event.actor["type"]) == (email, "anonymous")
    assert event.actor["ip"] == "127.0.0.1"


def test_inactive_person_is_told_the_same(cast: Cast, client: Client) -> None:
    cast.viewer.is_active = False
    cast.viewer.save()

    assert WRONG in _sign_in(client).content.decode()
    assert _signed_in_as(client) is None


def test_sign_in_is_recorded(cast: Cast, client: Client) -> None:
    _sign_in(client)

    event = AuditEvent.objects.get(action="user.signed_in")
    assert event.actor["id"] == event.target["userId"] == str(cast.viewer.pk)
    assert event.details == {"email": "viewer@acme.example"}


def test_name_that_is_no_email_is_refused_and_recorded(cast: Cast, client: Client) -> None:
    for name in ("viewer", "", "vie\0wer@acme.example"):
        page = _sign_in(client, name)
        assert page.status_code == 200
    emails = AuditEvent.objects.filter(action="user.sign_in_refused").values_list("details__email", flat=True)
    assert sorted(emails) == ["", "viewer", "viewer@acme.example"]
    assert _signed_in_as(client) is None


def test_session_id_changes_at_sign_in(cast: Cast, client: Client) -> None:
    client.session["seen"] = True
    client.session.save()
    before = client.session.session_key

    _sign_in(client)

    assert before is not None
    assert client.session.session_key != before


@pytest.mark.parametrize("target", ["/maps/acme/production/trading-platform/", "/?q=1"])
def test_next_leads_to_a_page_of_ours(cast: Cast, client: Client, target: str) -> None:
    assert f'name="next" value="{target}"' in client.get("/sign-in/", {"next": target}).content.decode()
    assert _sign_in(client, next=target).url == target


ELSEWHERE = [
    "https://evil.example/",
    "//evil.example/",
    "///evil.example/",
    "\\\\evil.example",
    "/\\evil.example",
    "http:evil.example",
    "http:///evil.example",
    "https://testserver@evil.example/",
    "https://testserver.evil.example/",
    "javascript:alert(1)",
    "data:text/html,x",
    " //evil.example",
    "\t//evil.example",
    "/\t/evil.example",
]


@pytest.mark.parametrize("target", ELSEWHERE)
def test_next_never_leads_elsewhere(cast: Cast, client: Client, target: str) -> None:
    assert b"evil.example" not in client.get("/sign-in/", {"next": target}).content
    assert _sign_in(client, next=target).url == "/"


@pytest.mark.parametrize("target", ELSEWHERE[:3])
def test_signed_in_person_is_not_sent_elsewhere_either(cast: Cast, client: Client, target: str) -> None:
    client.force_login(cast.viewer)
    assert client.get("/sign-in/", {"next": target}).url == "/"


def test_pages_send_nobody_to_sign_in_and_back(cast: Cast, client: Client) -> None:
    page = client.get("/maps/acme/production/x/")
    assert (page.status_code, page.url) == (302, "/sign-in/?next=/maps/acme/production/x/")


def test_sign_in_without_csrf_token_is_refused(cast: Cast) -> None:
    client = Client(enforce_csrf_checks=True)

    assert _sign_in(client).status_code == 403
    assert _signed_in_as(client) is None

    client.get("/sign-in/")
    answer = _sign_in(client, csrfmiddlewaretoken=client.cookies["csrftoken"].value)
    assert answer.status_code == 302


def test_sign_out_is_a_post_and_ends_the_session(cast: Cast, client: Client) -> None:
    client.force_login(cast.viewer)

    assert client.get("/sign-out/").status_code == 405
    assert _signed_in_as(client) is not None
    answer = client.post("/sign-out/", {"next": "https://evil.example/"})

    assert (answer.status_code, answer.url) == (302, "/sign-in/")
    assert _signed_in_as(client) is None
    assert client.get("/").status_code == 302


def test_sign_out_without_csrf_token_is_refused(cast: Cast) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(cast.viewer)

    assert client.post("/sign-out/").status_code == 403
    assert _signed_in_as(client) is not None


def test_token_opens_no_page(cast: Cast, client: Client) -> None:
    """Tokens are for the API; a page needs a session."""
    _, text = issue_token(user=cast.viewer, name="ci", actor=Actor.person(cast.viewer))
    assert client.get("/", headers={"Authorization": f"Bearer {text}"}).status_code == 302
