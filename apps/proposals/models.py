"""What was found on hosts, as proposals, and what is needed to say who talks to whom."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from apps.gateways.models import Agent
from apps.maps.models import Component
from apps.orgs.models import Organization
from apps.proposals.enums import ProposalKind, ProposalStatus
from opsmap.lib.uuid7 import uuid7


class Look(models.Model):
    """What has been made of an agent's discovery: up to which one, and whether it has to be compared anew."""

    agent = models.OneToOneField(Agent, on_delete=models.CASCADE, primary_key=True, related_name="look")
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    discovery_id = models.CharField(max_length=64, blank=True)
    is_due = models.BooleanField(default=False, help_text="A Map with components on this host has changed.")

    class Meta:
        # The safety net looks for them every few seconds, and there are seldom any.
        indexes = [models.Index(fields=["agent"], condition=Q(is_due=True), name="look_due")]

    def __str__(self) -> str:
        return f"{self.agent_id} up to {self.discovery_id}"


class ChangedMap(models.Model):
    """The hosts on this Map have to be compared anew. No foreign key: a Map that was deleted has changed, too."""

    map_id = models.UUIDField(primary_key=True)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")

    def __str__(self) -> str:
        return str(self.map_id)


class HostAddress(models.Model):
    """An address by which other hosts know an agent's. One that several claim (bridges have it) stands for nobody."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="addresses")
    address = models.CharField(max_length=45)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["agent", "address"], name="host_address_once")]
        indexes = [models.Index(fields=["organization", "address"], name="host_by_address")]

    def __str__(self) -> str:
        return self.address


class Proposal(models.Model):
    """A component that a host has, or a dependency between two of them, that a person may take into a Map.

    `key` is its own on this host and stays the same as long as the thing does. `digest` is of everything a person
    decides by: a dismissed proposal is shown again when it is not `dismissed_as` any more. `component` is the one on a
    Map that it is. A dependency has `client` and `server`, and the agent of its client.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="proposals")
    kind = models.CharField(max_length=10, choices=ProposalKind.choices)
    key = models.CharField(max_length=300)
    status = models.CharField(max_length=7, choices=ProposalStatus.choices, default=ProposalStatus.NEW)
    name = models.CharField(max_length=250, help_text="Of a component the name it would have, of a dependency both.")
    type = models.CharField(max_length=60, blank=True)
    technology = models.CharField(max_length=120, blank=True)
    version = models.CharField(max_length=80, blank=True)
    ports = models.JSONField(default=list)
    spec = models.JSONField(default=dict, help_text="Of a component, as its document would say it, less dependencies.")
    is_strong = models.BooleanField(default=False, help_text="Of a dependency.")
    is_lasting = models.BooleanField(default=False, help_text="The host tells of it also when it does not run.")
    is_gone = models.BooleanField(default=False, help_text="The host does not have it any more; a Map has.")
    client = models.ForeignKey("self", on_delete=models.CASCADE, null=True, related_name="calls_out")
    server = models.ForeignKey("self", on_delete=models.CASCADE, null=True, related_name="calls_in")
    component = models.ForeignKey(Component, on_delete=models.SET_NULL, null=True, related_name="proposals")
    # A plain copy: after the component is gone from its Map, what it had been is of no interest.
    mapped_version = models.CharField(max_length=80, blank=True, help_text="The version that the Map says.")
    digest = models.CharField(max_length=64, blank=True)
    dismissed_as = models.CharField(max_length=64, blank=True)
    is_dismissed = models.BooleanField(default=False)
    found_at = models.DateTimeField(default=timezone.now)
    changed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["agent", "key"], name="proposal_once")]
        indexes = [
            # The inbox: what is open, newest first.
            models.Index(
                fields=["organization", "-id"],
                condition=Q(is_dismissed=False) & ~Q(status=ProposalStatus.KNOWN),
                name="proposal_inbox",
            ),
            models.Index(fields=["organization", "status", "-id"], name="proposal_by_status"),
        ]

    def __str__(self) -> str:
        return f"{self.status} {self.kind} {self.name}"


class Call(models.Model):
    """A found component talks to an address and port; an empty address is its own host."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="calls")
    client = models.ForeignKey(Proposal, on_delete=models.CASCADE, related_name="calls")
    address = models.CharField(max_length=45, blank=True)
    port = models.PositiveIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["client", "address", "port"], name="call_once")]
        indexes = [models.Index(fields=["organization", "address"], name="call_by_address")]

    def __str__(self) -> str:
        return f"{self.client_id} to {self.address or 'its own host'}:{self.port}"
