"""What can be done with an operation that has been asked for, over REST."""

from __future__ import annotations

import uuid
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.operations.access import access_operation
from apps.operations.actions.steering import (
    cancel_operation,
    pause_operation,
    resume_operation,
    retry_steps,
    skip_step,
)
from apps.operations.models import Operation
from apps.operations.payloads import describe_operation
from apps.orgs.authentication import actor_of, person_of

MAX_REASON = 500
MAX_RETRIED_STEPS = 10_000


class ReasonBody(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=MAX_REASON, allow_blank=True, default="")


class RetryBody(serializers.Serializer[Any]):
    """Which of the steps that failed; all of them if none is named."""

    steps = serializers.ListField(child=serializers.UUIDField(), max_length=MAX_RETRIED_STEPS, default=list)


class SkipBody(serializers.Serializer[Any]):
    step = serializers.UUIDField()
    reason = serializers.CharField(max_length=MAX_REASON)


class _SteeringView(APIView):
    """POST; answers with the operation as it stands after it. Needs the permission for what its steps do."""

    def post(self, request: Request, operation_id: uuid.UUID) -> Response:
        operation = access_operation(person_of(request), operation_id, is_steering=True)
        self.steer(request, operation)
        return Response(describe_operation(access_operation(person_of(request), operation_id)))

    def steer(self, request: Request, operation: Operation) -> None:
        raise NotImplementedError


class OperationPauseView(_SteeringView):
    """POST: begin nothing new until it is resumed; what runs ends."""

    def steer(self, request: Request, operation: Operation) -> None:
        pause_operation(operation=operation, actor=actor_of(request), **_fields(ReasonBody, request))


class OperationResumeView(_SteeringView):
    """POST: go on with one that is paused."""

    def steer(self, request: Request, operation: Operation) -> None:
        resume_operation(operation=operation, user=person_of(request), actor=actor_of(request))


class OperationCancelView(_SteeringView):
    """POST: begin nothing new, and end when what runs has ended. One that waits in the queue ends at once."""

    def steer(self, request: Request, operation: Operation) -> None:
        cancel_operation(operation=operation, actor=actor_of(request), **_fields(ReasonBody, request))


class OperationRetryView(_SteeringView):
    """POST: try failed steps again, with what was skipped because of them."""

    def steer(self, request: Request, operation: Operation) -> None:
        step_ids = _fields(RetryBody, request)["steps"]
        retry_steps(operation=operation, user=person_of(request), actor=actor_of(request), step_ids=step_ids)


class OperationSkipView(_SteeringView):
    """POST: go on without a step that failed or has not begun, and say why."""

    def steer(self, request: Request, operation: Operation) -> None:
        fields = _fields(SkipBody, request)
        skip_step(
            operation=operation,
            step_id=fields["step"],
            user=person_of(request),
            actor=actor_of(request),
            reason=fields["reason"],
        )


def _fields(body_class: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
    """Raises ValidationError."""
    body = body_class(data=request.data)
    body.is_valid(raise_exception=True)
    return dict(body.validated_data)
