"""The past of components, and their maintenance, over REST."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.maps.access import access_component, access_map
from apps.operations.actions.maintenance import begin_maintenance, end_maintenance
from apps.operations.bodies import SelectionBody
from apps.operations.history import MAX_PAGE, describe_history
from apps.orgs.authentication import actor_of, person_of


class HistoryQuery(serializers.Serializer[Any]):
    limit = serializers.IntegerField(min_value=1, max_value=MAX_PAGE, default=100)
    before = serializers.IntegerField(min_value=1, max_value=2**63 - 1, default=None)


class MaintenanceBody(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=500)
    until = serializers.DateTimeField(default=None)

    def validate_until(self, value: datetime | None) -> datetime | None:
        if value is not None and value <= timezone.now():
            raise serializers.ValidationError("It lies in the past.")
        return value


class MapMaintenanceBody(MaintenanceBody, SelectionBody):
    """Of `components`, of a `group` or `labels`, or of the whole Map."""


class ComponentHistoryView(APIView):
    """GET the states a component was in, newest first, with causes and durations. `?limit=&before=`."""

    def get(self, request: Request, component_id: uuid.UUID) -> Response:
        component = access_component(person_of(request), component_id)
        query = HistoryQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        return Response(describe_history(component, **query.validated_data))


class ComponentMaintenanceView(APIView):
    """POST {reason, until}: work on this component begins · DELETE: it is done. Answers how many are concerned."""

    def post(self, request: Request, component_id: uuid.UUID) -> Response:
        component = access_component(person_of(request), component_id, perm="component:edit")
        body = MaintenanceBody(data=request.data)
        body.is_valid(raise_exception=True)
        count = begin_maintenance(
            map=component.map,
            chosen=[component.pk],
            user=person_of(request),
            actor=actor_of(request),
            **body.validated_data,
        )
        return Response({"components": count})

    def delete(self, request: Request, component_id: uuid.UUID) -> Response:
        component = access_component(person_of(request), component_id, perm="component:edit")
        count = end_maintenance(map=component.map, chosen=[component.pk], actor=actor_of(request))
        return Response({"components": count})


class MapMaintenanceView(APIView):
    """The same for chosen components of a Map: POST {reason, until, components | group, labels} · DELETE {…}."""

    def post(self, request: Request, map_id: uuid.UUID) -> Response:
        map = access_map(person_of(request), map_id, perm="component:edit")
        body = MapMaintenanceBody(data=request.data)
        body.is_valid(raise_exception=True)
        count = begin_maintenance(
            map=map,
            chosen=body.chosen(map),
            reason=body.validated_data["reason"],
            until=body.validated_data["until"],
            user=person_of(request),
            actor=actor_of(request),
        )
        return Response({"components": count})

    def delete(self, request: Request, map_id: uuid.UUID) -> Response:
        map = access_map(person_of(request), map_id, perm="component:edit")
        body = SelectionBody(data=request.data)
        body.is_valid(raise_exception=True)
        count = end_maintenance(map=map, chosen=body.chosen(map), actor=actor_of(request))
        return Response({"components": count})
