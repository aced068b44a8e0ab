"""Maps as they live, and operations, over REST."""

from __future__ import annotations

import uuid
from typing import Any

from django.http import HttpResponse
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.audit.actor import Actor
from apps.gateways.actions.requests import queue_command
from apps.gateways.api.waiting import WaitingView
from apps.gateways.enums import CommandState
from apps.gateways.exceptions import AgentUnavailableError
from apps.gateways.models import Command
from apps.gateways.selectors import get_command, get_latest_job
from apps.maps import api as maps_api
from apps.maps.access import access_component, access_map
from apps.maps.actions import delete_map
from apps.maps.models import Component
from apps.maps.planning.plans import Scope
from apps.operations.access import access_operation
from apps.operations.actions.operations import start_operation
from apps.operations.bodies import SelectionBody
from apps.operations.enums import FailurePolicy, IfHeld, OperationKind, OperationState
from apps.operations.exceptions import LogUnavailableError, NoLogError
from apps.operations.impact import describe_impact
from apps.operations.models import Operation
from apps.operations.payloads import (
    describe_component_fully,
    describe_map,
    describe_maps,
    describe_operation,
    describe_operations,
    describe_plan,
    draw_plan,
    tell_plan,
)
from apps.operations.plans import CheckedPlan, make_plan
from apps.operations.selectors import list_maps, with_steps
from apps.orgs.authentication import actor_of, person_of

DEFAULT_LOG_BYTES = 16 * 1024
MAX_LOG_BYTES = 256 * 1024
LOG_TIMEOUT_S = 5.0
MAX_PARALLEL = 10_000
MAX_IMPACT_COMPONENTS = 100
"""In an address, which has a length."""


class OperationBody(SelectionBody):
    kind = serializers.ChoiceField(choices=OperationKind.choices)
    scope = serializers.ChoiceField(choices=[scope.value for scope in Scope], required=False, allow_null=True)
    dryRun = serializers.BooleanField(default=False)  # noqa: N815 - the name in the API
    format = serializers.ChoiceField(choices=["json", "text", "mermaid"], default="json", help_text="Of a dry run.")
    reason = serializers.CharField(max_length=500, allow_blank=True, default="")
    failurePolicy = serializers.ChoiceField(  # noqa: N815
        choices=FailurePolicy.choices, default=FailurePolicy.CONTINUE, help_text="What becomes of the rest."
    )
    maxParallel = serializers.IntegerField(  # noqa: N815
        min_value=1, max_value=MAX_PARALLEL, default=None, allow_null=True, help_text="How many steps may run at once."
    )
    ifHeld = serializers.ChoiceField(choices=IfHeld.choices, default=IfHeld.REFUSE)  # noqa: N815

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs = super().validate(attrs)
        if attrs["kind"] == OperationKind.REPAIR and (attrs["components"] or "group" in attrs or "labels" in attrs):
            raise serializers.ValidationError("A repair is of what has failed: nothing is chosen for it.")
        return attrs


class MapsView(maps_api.MapsView):
    """GET the Maps I may see, with their state · POST a new one (apps.maps)."""

    def get(self, request: Request) -> Response:
        return Response({"results": describe_maps(list_maps(person_of(request)))})


class MapView(APIView):
    """GET a whole Map (304 by ETag if nothing changed) · DELETE it."""

    def get(self, request: Request, map_id: uuid.UUID) -> Response:
        map = access_map(person_of(request), map_id)
        # The version says what the Map shows; the person, because the answer tells what they may do.
        etag = f'"{map.pk.hex}-{map.version}-{person_of(request).pk.hex}"'
        headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
        if request.headers.get("If-None-Match") == etag:
            return Response(status=status.HTTP_304_NOT_MODIFIED, headers=headers)
        return Response(describe_map(map, person_of(request)), headers=headers)

    def delete(self, request: Request, map_id: uuid.UUID) -> Response:
        delete_map(map=access_map(person_of(request), map_id, perm="map:delete"), actor=actor_of(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class ComponentView(APIView):
    """GET everything about one component."""

    def get(self, request: Request, component_id: uuid.UUID) -> Response:
        return Response(describe_component_fully(access_component(person_of(request), component_id)))


class ComponentLogView(WaitingView):
    """GET the end of the log of a component's newest job, fetched from its host now."""

    def get(self, request: Request, component_id: uuid.UUID) -> Response:
        component = access_component(person_of(request), component_id, perm="component:logs")
        asked = request.query_params.get("bytes", "")
        max_bytes = min(_whole_number(asked), MAX_LOG_BYTES) or DEFAULT_LOG_BYTES
        job = _job_with_log(component)
        asking = _ask_for_log(job, max_bytes, actor_of(request))
        self.answer_later([asking.pk], lambda: Response(_log_of(job, asking.pk)), timeout_s=LOG_TIMEOUT_S)
        return Response(status=status.HTTP_202_ACCEPTED)


def _whole_number(text: str) -> int:
    """The number, or 0 for anything else. Python refuses to read numbers of thousands of digits."""
    return int(text) if text.isdecimal() and len(text) <= 12 else 0


def _job_with_log(component: Component) -> Command:
    """The newest job of a component. Raises NoLogError or AgentUnavailableError if its log cannot be fetched."""
    job = get_latest_job(component.pk)
    if job is None:
        raise NoLogError(f"OpsMap has not run anything for {component.name} yet.")
    if not job.agent.is_online:
        raise AgentUnavailableError(f"The log is on {job.agent.hostname}, whose agent is not connected.")
    return job


def _ask_for_log(job: Command, max_bytes: int, actor: Actor) -> Command:
    return queue_command(
        agent=job.agent,
        name="job_log",
        spec={
            "type": "native",
            "name": "job_log",
            "params": {"request_id": str(job.pk), "max_bytes": max_bytes},
        },
        execution={"type": "sync", "timeout_ms": 5000},
        timeout_ms=5000,
        actor=actor,
    )


def _log_of(job: Command, asking_id: uuid.UUID) -> dict[str, Any]:
    """Raises LogUnavailableError."""
    asking = get_command(asking_id)
    if asking.state != CommandState.SUCCEEDED:
        raise LogUnavailableError(asking.detail or f"{job.agent.hostname} did not answer in time.")
    result: dict[str, Any] = asking.result or {}
    return {
        "text": result["text"],
        "size": result["size"],
        "offset": result["offset"],
        "isTruncated": result["is_truncated"],
        "commandId": str(job.pk),
    }


class MapOperationsView(APIView):
    """GET the last operations of a Map · POST a new one (202 if it waits in the queue), or its dry run."""

    def get(self, request: Request, map_id: uuid.UUID) -> Response:
        operations = with_steps(Operation.objects.filter(map=access_map(person_of(request), map_id)))
        return Response({"results": describe_operations(operations.order_by("-id")[:50])})

    def post(self, request: Request, map_id: uuid.UUID) -> Response | HttpResponse:
        map = access_map(person_of(request), map_id)
        body = OperationBody(data=request.data)
        body.is_valid(raise_exception=True)
        fields = body.validated_data
        wish: dict[str, Any] = {
            "map": map,
            "user": person_of(request),
            "kind": OperationKind(fields["kind"]),
            "chosen": body.chosen(map),
            "scope": Scope(fields["scope"]) if fields.get("scope") else None,
            "failure_policy": FailurePolicy(fields["failurePolicy"]),
        }
        if fields["dryRun"]:
            return _shown_plan(make_plan(**wish), fields["format"])
        operation = start_operation(
            **wish,
            actor=actor_of(request),
            reason=fields["reason"],
            max_parallel=fields["maxParallel"],
            if_held=IfHeld(fields["ifHeld"]),
        )
        is_queued = operation.state == OperationState.QUEUED
        code = status.HTTP_202_ACCEPTED if is_queued else status.HTTP_201_CREATED
        return Response(_described(request, operation.pk), status=code)


def _shown_plan(plan: CheckedPlan, format: str) -> Response | HttpResponse:
    if format == "json":
        return Response(describe_plan(plan))
    text = tell_plan(plan) if format == "text" else draw_plan(plan)
    return HttpResponse(text, content_type="text/plain; charset=utf-8")


class MapImpactView(APIView):
    """GET what would fail with `?components=` (ids, with commas between); without, the causes of what is wrong now."""

    def get(self, request: Request, map_id: uuid.UUID) -> Response:
        map = access_map(person_of(request), map_id)
        chosen = _ids_of(request.query_params.get("components", ""))
        return Response(describe_impact(map, person_of(request), chosen))


class ComponentImpactView(APIView):
    """GET what would fail with this component, and what it needs."""

    def get(self, request: Request, component_id: uuid.UUID) -> Response:
        component = access_component(person_of(request), component_id)
        return Response(describe_impact(component.map, person_of(request), [component.pk]))


def _ids_of(text: str) -> list[uuid.UUID]:
    """Raises ValidationError."""
    parts = text.split(",") if text else []
    if len(parts) > MAX_IMPACT_COMPONENTS:
        raise serializers.ValidationError({"components": [f"At most {MAX_IMPACT_COMPONENTS}."]})
    field = serializers.UUIDField()
    return [field.run_validation(part.strip()) for part in parts]


class OperationView(APIView):
    """GET how an operation stands."""

    def get(self, request: Request, operation_id: uuid.UUID) -> Response:
        return Response(_described(request, operation_id))


def _described(request: Request, operation_id: uuid.UUID) -> dict[str, Any]:
    return describe_operation(access_operation(person_of(request), operation_id))
