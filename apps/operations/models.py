"""Operations and their steps, who holds which component, and what was seen of components."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from apps.gateways.models import Command
from apps.maps.enums import ComponentState
from apps.maps.models import Component, Map
from apps.operations.enums import Cause, OperationKind, OperationState, StepState
from apps.orgs.models import Organization
from opsmap.lib.uuid7 import uuid7


class Operation(models.Model):
    """What a person asked for. Ends by itself when no step is waiting or running."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    map = models.ForeignKey(Map, on_delete=models.CASCADE, related_name="operations")
    kind = models.CharField(max_length=10, choices=OperationKind.choices)
    target = models.CharField(max_length=300, help_text="What it is about, in words.")
    reason = models.CharField(max_length=500, blank=True)
    state = models.CharField(max_length=10, choices=OperationState.choices, default=OperationState.RUNNING)
    is_cancel_requested = models.BooleanField(default=False)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)
    # The Map's version at the last change of this operation, for the browsers' feed.
    version = models.PositiveBigIntegerField(default=0)

    class Meta:
        indexes = [models.Index(fields=["map", "version"], name="operation_changes")]

    def __str__(self) -> str:
        return f"{self.kind} {self.target}"


class Step(models.Model):
    """One action on one component. `waiting_for` counts the steps before it that have not succeeded yet."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    operation = models.ForeignKey(Operation, on_delete=models.CASCADE, related_name="steps")
    component = models.ForeignKey(Component, on_delete=models.SET_NULL, null=True, related_name="steps")
    component_name = models.CharField(max_length=120)
    action = models.CharField(max_length=10, choices=OperationKind.choices)
    position = models.PositiveIntegerField()
    state = models.CharField(max_length=10, choices=StepState.choices, default=StepState.WAITING)
    waiting_for = models.PositiveIntegerField(default=0)
    command = models.OneToOneField(Command, on_delete=models.SET_NULL, null=True, related_name="step")
    detail = models.TextField(blank=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["position"]
        indexes = [models.Index(fields=["component", "action", "-id"], name="step_durations")]

    def __str__(self) -> str:
        return f"{self.action} {self.component_name}"


class StepOrder(models.Model):
    """`step` may begin only when `before` has succeeded."""

    step = models.ForeignKey(Step, on_delete=models.CASCADE, related_name="orders_before")
    before = models.ForeignKey(Step, on_delete=models.CASCADE, related_name="orders_after")

    def __str__(self) -> str:
        return f"{self.before_id} before {self.step_id}"


class ComponentHold(models.Model):
    """An operation has this component to itself. The primary key makes a second hold impossible."""

    # PROTECT: a component in the hands of an operation cannot vanish under it.
    component = models.OneToOneField(Component, primary_key=True, on_delete=models.PROTECT, related_name="hold")
    operation = models.ForeignKey(Operation, on_delete=models.CASCADE, related_name="holds")

    def __str__(self) -> str:
        return f"{self.operation_id} holds {self.component_id}"


class ComponentHealth(models.Model):
    """What the health check of a component said last."""

    component = models.OneToOneField(Component, primary_key=True, on_delete=models.CASCADE, related_name="health")
    status = models.CharField(max_length=10)
    details = models.JSONField(default=dict)
    checked_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.component_id} {self.status}"


class StateChange(models.Model):
    """One transition of one component, with its cause."""

    component = models.ForeignKey(Component, on_delete=models.CASCADE, related_name="state_changes")
    previous = models.CharField(max_length=12, choices=ComponentState.choices)
    state = models.CharField(max_length=12, choices=ComponentState.choices)
    cause = models.CharField(max_length=8, choices=Cause.choices)
    reason = models.CharField(max_length=500, blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["component", "-id"], name="state_history")]

    def __str__(self) -> str:
        return f"{self.previous} → {self.state}"
