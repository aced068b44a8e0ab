"""Letting gateways and agents in: tokens that people make and paste on the new host."""

from __future__ import annotations

import uuid
from typing import Any

from django.utils import timezone
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.gateways.access import access_enrolment_token, access_gateway, check_may_enrol
from apps.gateways.actions.enrolment_tokens import create_enrolment_token, revoke_enrolment_token
from apps.gateways.api.bodies import read_body, read_query
from apps.gateways.api.fleet_bodies import EnrolmentTokenBody, TokensQuery
from apps.gateways.api.organizations import organization_of
from apps.gateways.models import Gateway
from apps.gateways.payloads import describe_enrolment_token, enrolment_commands
from apps.gateways.registry import list_enrolment_tokens
from apps.orgs.authentication import actor_of, person_of
from apps.orgs.models import User
from opsmap_protocol.enums import PeerRole


class EnrolmentTokensView(APIView):
    """GET the tokens of my organizations, newest first (`?before=&limit=`) · POST a new one.

    The answer to POST alone has the token's text, and the command to paste on the new host.
    """

    def get(self, request: Request) -> Response:
        fields = read_query(TokensQuery, request).validated_data
        tokens, following = list_enrolment_tokens(
            person_of(request), before=fields.get("before"), limit=fields["limit"]
        )
        shown = [describe_enrolment_token(token) for token in tokens]
        return Response({"results": shown, "next": str(following) if following else None})

    def post(self, request: Request) -> Response:
        fields = read_body(EnrolmentTokenBody, request).validated_data
        person = person_of(request)
        organization_id = organization_of(person, fields.get("organizationId"))
        check_may_enrol(person, organization_id)
        token, text = create_enrolment_token(
            organization_id=organization_id,
            role=PeerRole(fields["role"]),
            actor=actor_of(request),
            description=fields["description"],
            name_pattern=fields["namePattern"],
            gateway=_gateway_of(person, organization_id, fields),
            zone=fields["zone"],
            may_replace=fields["mayReplace"],
            max_uses=fields["maxUses"],
            **({"life": fields["expiresAt"] - timezone.now()} if "expiresAt" in fields else {}),
        )
        web_url = request.build_absolute_uri("/").rstrip("/")
        return Response(
            {**describe_enrolment_token(token), "token": text, "commands": enrolment_commands(text, token, web_url)},
            status=status.HTTP_201_CREATED,
            headers={"Cache-Control": "no-store"},
        )


def _gateway_of(person: User, organization_id: uuid.UUID, fields: dict[str, Any]) -> Gateway | None:
    if not fields.get("gateway"):
        return None
    gateway = access_gateway(person, fields["gateway"])
    if gateway.organization_id != organization_id:
        raise serializers.ValidationError({"gateway": ["It is of another organization."]})
    return gateway


class EnrolmentTokenView(APIView):
    """GET one token · DELETE: it serves no more. Whoever came by it stays."""

    def get(self, request: Request, enrolment_token_id: uuid.UUID) -> Response:
        return Response(describe_enrolment_token(access_enrolment_token(person_of(request), enrolment_token_id)))

    def delete(self, request: Request, enrolment_token_id: uuid.UUID) -> Response:
        token = access_enrolment_token(person_of(request), enrolment_token_id, perm="enrolment:admin")
        revoke_enrolment_token(token=token, actor=actor_of(request))
        return Response(status=status.HTTP_204_NO_CONTENT)
