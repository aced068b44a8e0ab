"""The discovery inbox over REST."""

from __future__ import annotations

import uuid
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.gateways.api.organizations import organization_of
from apps.maps.access import access_map
from apps.orgs.authentication import actor_of, person_of
from apps.proposals.access import check_may_answer
from apps.proposals.actions.answers import MAX_AT_ONCE, accept_proposals, dismiss_proposals
from apps.proposals.enums import ProposalKind, ProposalStatus
from apps.proposals.selectors import ProposalFilter, count_open, describe_proposal, list_proposals

MAX_PAGE = 500


class ProposalsQuery(serializers.Serializer[Any]):
    organizationId = serializers.UUIDField(required=False)  # noqa: N815 - the name in the API
    status = serializers.MultipleChoiceField(choices=ProposalStatus.choices, required=False)
    kind = serializers.ChoiceField(choices=ProposalKind.choices, default="")
    agent = serializers.CharField(max_length=127, default="", help_text="An agent id.")
    technology = serializers.CharField(max_length=120, default="")
    type = serializers.CharField(max_length=60, default="")
    text = serializers.CharField(max_length=100, default="", help_text="Part of the name.")
    dismissed = serializers.BooleanField(default=False)
    limit = serializers.IntegerField(min_value=1, max_value=MAX_PAGE, default=100)
    before = serializers.UUIDField(default=None)

    def as_filter(self, organization_id: uuid.UUID) -> ProposalFilter:
        fields = self.validated_data
        return ProposalFilter(
            organization_id,
            statuses=tuple(sorted(fields.get("status", ()))),
            kind=fields["kind"],
            agent=fields["agent"],
            technology=fields["technology"],
            type=fields["type"],
            text=fields["text"],
            is_dismissed=fields["dismissed"],
        )


class IdsBody(serializers.Serializer[Any]):
    organizationId = serializers.UUIDField(required=False)  # noqa: N815
    ids = serializers.ListField(child=serializers.UUIDField(), allow_empty=False, max_length=MAX_AT_ONCE)


class AcceptBody(serializers.Serializer[Any]):
    mapId = serializers.UUIDField()  # noqa: N815
    ids = serializers.ListField(child=serializers.UUIDField(), allow_empty=False, max_length=MAX_AT_ONCE)


class ProposalsView(APIView):
    """GET what hosts have and Maps do not, newest first, page by page."""

    def get(self, request: Request) -> Response:
        query = ProposalsQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        fields = query.validated_data
        organization_id = organization_of(person_of(request), fields.get("organizationId"))
        check_may_answer(person_of(request), organization_id)
        page, following = list_proposals(
            query.as_filter(organization_id), limit=fields["limit"], before=fields["before"]
        )
        return Response(
            {
                "results": [describe_proposal(proposal) for proposal in page],
                "next": str(following) if following else None,
                "counts": count_open(organization_id),
            }
        )


class AcceptView(APIView):
    """POST {ids, mapId}: take them into a Map, all or nothing. Answers what its components are called."""

    def post(self, request: Request) -> Response:
        body = AcceptBody(data=request.data)
        body.is_valid(raise_exception=True)
        map = access_map(person_of(request), body.validated_data["mapId"], perm="map:edit")
        names = accept_proposals(
            organization_id=map.organization_id,
            ids=set(body.validated_data["ids"]),
            map=map,
            actor=actor_of(request),
        )
        return Response({"mapId": str(map.pk), "components": names})


class DismissView(APIView):
    """POST {ids}: do not ask again until they change."""

    def post(self, request: Request) -> Response:
        body = IdsBody(data=request.data)
        body.is_valid(raise_exception=True)
        organization_id = organization_of(person_of(request), body.validated_data.get("organizationId"))
        check_may_answer(person_of(request), organization_id)
        count = dismiss_proposals(
            organization_id=organization_id, ids=set(body.validated_data["ids"]), actor=actor_of(request)
        )
        return Response({"dismissed": count})
