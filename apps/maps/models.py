"""Maps and what is on them."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from apps.maps.enums import ComponentState, DependencyKind, DesiredState
from apps.orgs.models import Organization, Workspace
from opsmap.lib.uuid7 import uuid7


class Map(models.Model):
    """An application as its operators see it.

    `version` grows by one with each committed change of anything shown on the Map, `structure_version` is the version
    of the last change of its components or dependencies: a browser that holds an older structure loads everything anew.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="maps")
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="maps")
    name = models.CharField(max_length=120)
    slug = models.SlugField(max_length=80)
    description = models.TextField(blank=True)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="owned_maps")
    requires_reason = models.BooleanField(default=False, help_text="Operations are refused unless they say why.")
    git_repo_url = models.CharField(max_length=500, blank=True)
    git_branch = models.CharField(max_length=120, default="main")
    state = models.CharField(max_length=12, choices=ComponentState.choices, default=ComponentState.UNKNOWN)
    version = models.PositiveBigIntegerField(default=1)
    structure_version = models.PositiveBigIntegerField(default=1)
    documents = models.JSONField(default=list, help_text="The documents as loaded: [{path, content}].")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["workspace", "slug"], name="map_slug_unique")]

    def __str__(self) -> str:
        return self.name


class ComponentGroup(models.Model):
    """Components that belong together on the page, such as "databases"."""

    map = models.ForeignKey(Map, on_delete=models.CASCADE, related_name="groups")
    name = models.CharField(max_length=80)
    title = models.CharField(max_length=120, blank=True)
    position = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["map", "name"], name="group_name_unique")]

    def __str__(self) -> str:
        return self.title or self.name


class Component(models.Model):
    """One part of an application on one host.

    `spec` is the document's `spec` as validated. `version` is the Map's version at this row's last visible change.
    `epoch` counts the commands ever sent about it, so that a late start cannot follow a newer stop.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    map = models.ForeignKey(Map, on_delete=models.CASCADE, related_name="components")
    group = models.ForeignKey(ComponentGroup, on_delete=models.SET_NULL, null=True, related_name="components")
    name = models.CharField(max_length=120)
    type = models.CharField(max_length=60)
    host = models.CharField(max_length=253, blank=True)
    labels = models.JSONField(default=dict)
    technology = models.JSONField(null=True)
    spec = models.JSONField(default=dict)
    state = models.CharField(max_length=12, choices=ComponentState.choices, default=ComponentState.UNKNOWN)
    state_since = models.DateTimeField(default=timezone.now)
    state_reason = models.CharField(max_length=500, blank=True)
    desired = models.CharField(max_length=4, choices=DesiredState.choices, default=DesiredState.UNSPECIFIED, blank=True)
    version = models.PositiveBigIntegerField(default=1)
    epoch = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["map", "name"], name="component_name_unique")]
        indexes = [
            # The browser's feed asks a Map for what is newer than a version, many times a second.
            models.Index(fields=["map", "version"], name="component_changes"),
            # An agent that comes or goes asks for what is on its host.
            models.Index(fields=["organization", "host"], name="component_by_host"),
            # What is wrong on a Map is asked each time somebody looks at an impact, and of 50,000 few are.
            models.Index(
                fields=["map"],
                condition=models.Q(state__in=[ComponentState.FAILED, ComponentState.DEGRADED]),
                name="component_in_trouble",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Dependency(models.Model):
    """`component` needs `needs`."""

    map = models.ForeignKey(Map, on_delete=models.CASCADE, related_name="dependencies")
    component = models.ForeignKey(Component, on_delete=models.CASCADE, related_name="needs_links")
    needs = models.ForeignKey(Component, on_delete=models.CASCADE, related_name="needed_by_links")
    kind = models.CharField(max_length=6, choices=DependencyKind.choices, default=DependencyKind.STRONG)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["component", "needs"], name="dependency_once")]

    def __str__(self) -> str:
        return f"{self.component_id} needs {self.needs_id}"
