"""Signing in and tokens over REST."""

from __future__ import annotations

import uuid

from django.contrib.auth import authenticate, login, logout
from rest_framework import serializers, status
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.audit.actor import Actor
from apps.orgs.access import access_token
from apps.orgs.actions import issue_token, record_sign_in, revoke_token
from apps.orgs.authentication import actor_of, person_of
from apps.orgs.exceptions import SignInError
from apps.orgs.models import User
from apps.orgs.selectors import describe_session, describe_token


class CredentialsBody(serializers.Serializer[None]):
    email = serializers.EmailField(max_length=254)
    password = serializers.CharField(max_length=512, trim_whitespace=False)


class TokenBody(serializers.Serializer[None]):
    name = serializers.CharField(max_length=80)
    email = serializers.EmailField(max_length=254, required=False)
    password = serializers.CharField(max_length=512, trim_whitespace=False, required=False)


def _sign_in(request: Request, email: str, password: str) -> User:
    """The person with these credentials; recorded either way."""
    ip = str(request.META.get("REMOTE_ADDR") or "")
    user = authenticate(request._request, username=email, password=password)
    if not isinstance(user, User):
        record_sign_in(email=email, user=None, actor=Actor("anonymous", "", ip=ip))
        raise SignInError
    record_sign_in(email=email, user=user, actor=Actor.person(user, ip=ip))
    return user


class SessionView(APIView):
    """GET who is signed in · POST sign in · DELETE sign out."""

    permission_classes = [AllowAny]

    def get(self, request: Request) -> Response:
        if not request.user.is_authenticated:
            self.permission_denied(request)
        return Response(describe_session(request.user))

    def post(self, request: Request) -> Response:
        body = CredentialsBody(data=request.data)
        body.is_valid(raise_exception=True)
        user = _sign_in(request, **body.validated_data)
        login(request._request, user)
        return Response(describe_session(user))

    def delete(self, request: Request) -> Response:
        logout(request._request)
        return Response(status=status.HTTP_204_NO_CONTENT)


class TokensView(APIView):
    """GET my tokens · POST a new one, as the signed-in person or with email and password in the body."""

    permission_classes = [AllowAny]

    def get(self, request: Request) -> Response:
        if not request.user.is_authenticated:
            self.permission_denied(request)
        tokens = request.user.api_tokens.filter(revoked_at=None).order_by("-created_at")
        return Response({"results": [describe_token(token) for token in tokens]})

    def post(self, request: Request) -> Response:
        body = TokenBody(data=request.data)
        body.is_valid(raise_exception=True)
        fields = body.validated_data
        if {"email", "password"} <= fields.keys():
            user = _sign_in(request, fields["email"], fields["password"])
            actor = Actor.person(user, ip=str(request.META.get("REMOTE_ADDR") or ""))
        elif request.user.is_authenticated:
            user, actor = request.user, actor_of(request)
        else:
            self.permission_denied(request)
        token, text = issue_token(user=user, name=fields["name"], actor=actor)
        return Response({**describe_token(token), "token": text}, status=status.HTTP_201_CREATED)


class TokenView(APIView):
    """DELETE revokes one of my tokens."""

    def delete(self, request: Request, token_id: uuid.UUID) -> Response:
        revoke_token(token=access_token(person_of(request), token_id), actor=actor_of(request))
        return Response(status=status.HTTP_204_NO_CONTENT)
