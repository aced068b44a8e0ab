"""Operations and their steps, who holds which component, and what was seen of components."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from apps.gateways.models import Command
from apps.maps.enums import ComponentState
from apps.maps.models import Component, Map
from apps.maps.planning.plans import Scope
from apps.operations.enums import Cause, FailurePolicy, OperationKind, OperationState, StepState
from apps.orgs.models import Organization
from opsmap.lib.uuid7 import uuid7

SCOPE_CHOICES = [(scope.value, scope.value) for scope in Scope]


class Operation(models.Model):
    """What a person asked for. Ends by itself when no step is waiting or running.

    A queued one has no steps yet: its plan is made when its turn comes, from `chosen` and `scope`.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    map = models.ForeignKey(Map, on_delete=models.CASCADE, related_name="operations")
    kind = models.CharField(max_length=10, choices=OperationKind.choices)
    target = models.CharField(max_length=300, help_text="What it is about, in words.")
    reason = models.CharField(max_length=500, blank=True)
    state = models.CharField(max_length=11, choices=OperationState.choices, default=OperationState.RUNNING)
    detail = models.CharField(max_length=1000, blank=True, help_text="Why it ended as it did, where steps do not say.")
    chosen = models.JSONField(default=list, help_text="Ids of components as asked for; empty is the whole Map.")
    scope = models.CharField(max_length=20, choices=SCOPE_CHOICES, blank=True)
    failure_policy = models.CharField(
        max_length=9, choices=FailurePolicy.choices, default=FailurePolicy.CONTINUE, help_text="After a failed step."
    )
    max_parallel = models.PositiveIntegerField(null=True, help_text="How many steps may run at once; null: no limit.")
    # The Map's version at that moment, which only grows: clocks of servers differ.
    queue_number = models.PositiveBigIntegerField(
        null=True, help_text="Its turn among those that wait; only while it waits."
    )
    is_cancel_requested = models.BooleanField(default=False)
    is_rolling_back = models.BooleanField(default=False, help_text="What succeeded is being undone, or has been.")
    paused_at = models.DateTimeField(null=True, help_text="Since when nothing new begins.")
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True)
    # Who let it go on last, by resuming, retrying or skipping: what begins from then on begins in their name.
    steered_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)
    # The Map's version at the last change of this operation, for the browsers' feed.
    version = models.PositiveBigIntegerField(default=0)

    class Meta:
        indexes = [
            models.Index(fields=["map", "version"], name="operation_changes"),
            # Each end of an operation asks its Map for who waits; nearly always nobody does.
            models.Index(
                fields=["map", "queue_number"],
                condition=models.Q(state=OperationState.QUEUED),
                name="operation_queue",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.target}"


class Step(models.Model):
    """One action on one component. `waiting_for` counts the steps before it that are neither done nor passed over."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    operation = models.ForeignKey(Operation, on_delete=models.CASCADE, related_name="steps")
    component = models.ForeignKey(Component, on_delete=models.SET_NULL, null=True, related_name="steps")
    component_name = models.CharField(max_length=120)
    action = models.CharField(max_length=10, choices=OperationKind.choices)
    position = models.PositiveIntegerField()
    state = models.CharField(max_length=10, choices=StepState.choices, default=StepState.WAITING)
    waiting_for = models.PositiveIntegerField(default=0)
    is_rollback = models.BooleanField(default=False, help_text="It undoes a step of this operation.")
    attempt = models.PositiveIntegerField(default=1, help_text="Grows with each time it is tried again.")
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
    """`step` may begin only when `before` has succeeded, or a person said to go on without it."""

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


class QueuedClaim(models.Model):
    """A queued operation waits for this component; what was asked for later and needs it too waits behind."""

    operation = models.ForeignKey(Operation, on_delete=models.CASCADE, related_name="claims")
    component = models.ForeignKey(Component, on_delete=models.CASCADE, related_name="claims")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["operation", "component"], name="claim_once")]

    def __str__(self) -> str:
        return f"{self.operation_id} waits for {self.component_id}"


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


class ActionDuration(models.Model):
    """How long one action on one component took, as far as predictions need it (`planning.prediction`).

    Made of succeeded steps, in the transaction that settles them; `manage.py rebuild_durations` makes all of it anew.
    """

    component = models.ForeignKey(Component, on_delete=models.CASCADE, related_name="durations")
    action = models.CharField(max_length=10, choices=OperationKind.choices)
    runs = models.JSONField(help_text="The last runs, oldest first: [duration in ms, error of the prediction or null].")
    p50_ms = models.PositiveBigIntegerField()
    p90_ms = models.PositiveBigIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["component", "action"], name="action_duration_unique")]

    def __str__(self) -> str:
        return f"{self.action} of {self.component_id}: {self.p50_ms} ms"


class Maintenance(models.Model):
    """Somebody works on this component: what its checks say is stored and shown, and alerts nobody."""

    component = models.OneToOneField(Component, primary_key=True, on_delete=models.CASCADE, related_name="maintenance")
    reason = models.CharField(max_length=500)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    since = models.DateTimeField(auto_now_add=True)
    until = models.DateTimeField(null=True, help_text="When it ends by itself.")

    class Meta:
        indexes = [models.Index(fields=["until"], name="maintenance_ends")]

    def __str__(self) -> str:
        return f"maintenance of {self.component_id}"
