"""How a request of the API says who it comes from: a session cookie or a bearer token."""

from __future__ import annotations

from django.http import HttpRequest
from rest_framework import authentication, exceptions
from rest_framework.request import Request

from apps.audit.actor import Actor
from apps.orgs.actions import token_digest
from apps.orgs.models import User
from apps.orgs.selectors import get_token_user


class SessionAuthentication(authentication.SessionAuthentication):
    """Django's session with its CSRF check; answers 401 instead of 403 when nobody is signed in."""

    def authenticate_header(self, request: Request) -> str:
        return "Session"


class BearerTokenAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer opm_…`. A wrong token is refused, never ignored."""

    def authenticate(self, request: Request) -> tuple[User, str] | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        user = get_token_user(token_digest(token.strip()))
        if user is None:
            raise exceptions.AuthenticationFailed("The token is unknown, expired or revoked.")
        return user, "token"

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def person_of(request: HttpRequest | Request) -> User:
    """The signed-in person. For views that let nobody else in."""
    assert isinstance(request.user, User)
    return request.user


def actor_of(request: Request) -> Actor:
    """The author of what a request asks, with the address it came from."""
    return Actor.person(person_of(request), ip=str(request.META.get("REMOTE_ADDR") or ""))
