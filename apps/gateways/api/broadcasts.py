"""One command for many agents."""

from __future__ import annotations

import uuid

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.gateways.access import access_broadcast, access_fleet
from apps.gateways.actions.broadcasts import cancel_broadcast, check_is_repeated, start_broadcast
from apps.gateways.actions.requests import personal_key
from apps.gateways.api.bodies import BroadcastBody, PageQuery, read_body, read_idempotency_key, read_query
from apps.gateways.api.commands import describe_page
from apps.gateways.api.organizations import organization_of
from apps.gateways.api.waiting import WaitingView
from apps.gateways.models import Broadcast
from apps.gateways.selectors import (
    describe_broadcast,
    get_repeated_broadcast,
    list_open_commands,
)
from apps.orgs.authentication import actor_of, person_of


class BroadcastsView(WaitingView):
    """POST one command to all agents that a filter means.

    Answers 202 at once, or with `?wait=5` when all its commands have ended (200). `Idempotency-Key` makes a repeated
    request harmless. Agents that are away have commands too, which wait for them a minute; `offline` says how many.
    """

    def post(self, request: Request) -> Response:
        body = read_body(BroadcastBody, request)
        person, actor, key = person_of(request), actor_of(request), read_idempotency_key(request)
        organization_id = organization_of(person, body.validated_data.get("organizationId"))
        wanted, wish = body.as_filter(), body.as_wish()
        broadcast = get_repeated_broadcast(organization_id, personal_key(actor, key))
        if broadcast is None:
            broadcast = start_broadcast(
                organization_id=organization_id,
                agents=access_fleet(person, organization_id, wanted),
                wanted=wanted,
                actor=actor,
                idempotency_key=key,
                **wish,
            )
        else:
            check_is_repeated(broadcast, wanted=wanted, spec=wish["spec"], execution=wish["execution"])
        if "wait" in request.query_params:
            self.answer_if_asked(list_open_commands(broadcast.pk), lambda: _answer(broadcast))
        return _answer(broadcast)


def _answer(broadcast: Broadcast) -> Response:
    shown = describe_broadcast(broadcast)
    return Response(shown, status=status.HTTP_200_OK if shown["isOver"] else status.HTTP_202_ACCEPTED)


class BroadcastView(WaitingView):
    """GET how a broadcast stands, with a page of its commands: `?state=&before=&limit=`, and `?wait=5` for its end."""

    def get(self, request: Request, broadcast_id: uuid.UUID) -> Response:
        person = person_of(request)
        broadcast = access_broadcast(person, broadcast_id)
        query = read_query(PageQuery, request)
        wanted, limit = query.as_history(broadcast_id=broadcast.pk), query.validated_data["limit"]

        def answer() -> Response:
            return Response({**describe_broadcast(broadcast), **describe_page(person, wanted, limit)})

        if "wait" in request.query_params:
            self.answer_if_asked(list_open_commands(broadcast.pk), answer)
        return answer()


class BroadcastCancelView(APIView):
    """POST asks for the end of all commands of a broadcast."""

    def post(self, request: Request, broadcast_id: uuid.UUID) -> Response:
        broadcast = access_broadcast(person_of(request), broadcast_id, perm="agent:execute")
        cancel_broadcast(broadcast=broadcast, actor=actor_of(request))
        return Response(describe_broadcast(broadcast), status=status.HTTP_202_ACCEPTED)
