"""Gateways and agents."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join

from apps.gateways.actions.discoveries import request_discoveries
from apps.gateways.actions.quarantine import quarantine_agent, release_agent
from apps.gateways.actions.revocation import revoke_agent, revoke_gateway
from apps.gateways.admin.bases import (
    EndsSoonFilter,
    ReportedAdmin,
    TabularInline,
    actor_in_admin,
    by_organization,
    show_labels,
)
from apps.gateways.enums import Standing
from apps.gateways.filters import certificate_end, of_standing
from apps.gateways.models import Agent, AgentSession, Gateway
from apps.gateways.registry import list_certificates
from opsmap_protocol.enums import PeerRole


class StandingFilter(admin.SimpleListFilter):
    """Removed ones are shown only if somebody asks for them, as over REST."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        is_agent = model_admin.model is Agent
        return [choice for choice in Standing.choices if is_agent or choice[0] != Standing.QUARANTINED]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value not in Standing.values:
            return queryset.filter(removed_at=None)
        return queryset.filter(of_standing(Standing(value), is_agent=queryset.model is Agent))


class PeerAdmin(ReportedAdmin):
    """What gateways and agents show alike."""

    role: PeerRole

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        peer = "agent" if self.role is PeerRole.AGENT else "gateway"
        sessions = AgentSession.objects.filter(**{peer: OuterRef("pk")}).order_by().values(peer)
        counted = Subquery(sessions.annotate(count=Count("pk")).values("count"), output_field=IntegerField())
        peers: QuerySet[Any] = (
            super()
            .get_queryset(request)
            .annotate(certificate_ends_at=certificate_end(self.role), session_count=Coalesce(counted, Value(0)))
        )
        return peers

    @admin.display(description="state")
    def state(self, peer: Agent | Gateway) -> str:
        return peer.standing.label

    @admin.display(description="labels")
    def shown_labels(self, peer: Agent | Gateway) -> str:
        return show_labels(peer.labels)

    @admin.display(description="certificate ends", ordering="certificate_ends_at")
    def certificate_end(self, peer: Any) -> Any:
        return peer.certificate_ends_at

    @admin.display(description="sessions", ordering="session_count")
    def sessions_here(self, peer: Any) -> int:
        count: int = peer.session_count
        return count

    @admin.display(description="certificates")
    def certificates(self, peer: Agent | Gateway) -> str:
        return format_html_join(
            "",
            "<p>{} until {:%Y-%m-%d %H:%M} UTC{}</p>",
            (
                (each.fingerprint[:16], each.not_after, f", revoked: {each.revocation_reason}" * bool(each.revoked_at))
                for each in list_certificates(peer)
            ),
        )


@admin.register(Gateway)
class GatewayAdmin(PeerAdmin):
    role = PeerRole.GATEWAY
    list_display = (
        "gateway_id",
        "organization",
        "state",
        "zone",
        "version",
        "shown_load",
        "shown_labels",
        "sessions_here",
        "certificate_end",
        "last_seen_at",
    )
    list_filter = (StandingFilter, "organization", "zone", EndsSoonFilter, "version")
    list_select_related = ("organization",)
    search_fields = ("gateway_id", "zone")
    ordering = ("gateway_id", "pk")
    actions = ("revoke",)
    fields = (
        ("gateway_id", "organization"),
        ("state", "zone", "version"),
        "shown_labels",
        "shown_load",
        ("connected_at", "last_seen_at"),
        ("revoked_at", "removed_at"),
        "certificates",
    )

    @admin.display(description="load")
    def shown_load(self, gateway: Gateway) -> str:
        losses = gateway.load.get("losses") or {}
        lost = f", not passed on: {sum(losses.values())}" if losses else ""
        return f"agents: {gateway.load.get('agents', 0)}{lost}"

    @admin.action(description="Revoke…", permissions=["decide"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[Gateway]) -> HttpResponse | None:
        actor = actor_in_admin(request)
        return self.decide_with_reason(
            request,
            queryset,
            lambda gateway, reason: revoke_gateway(gateway=gateway, actor=actor, reason=reason),
            title="Revoke gateways: their links are cut, until they are enrolled anew",
            done="Gateways revoked",
        )


class SessionInline(TabularInline):
    """The gateways by which an agent is here."""

    model = AgentSession
    fields = ("gateway", "opened_at", "is_preferred", "is_draining", "credits")
    readonly_fields = fields
    can_delete = False
    extra = 0

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("gateway")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("gateways.view_agent")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Agent)
class AgentAdmin(PeerAdmin):
    role = PeerRole.AGENT
    list_display = (
        "agent_id",
        "hostname",
        "organization",
        "state",
        "gateway",
        "zone",
        "version",
        "shown_load",
        "shown_labels",
        "sessions_here",
        "certificate_end",
        "last_seen_at",
    )
    list_filter = (StandingFilter, "organization", "gateway__zone", EndsSoonFilter, "version")
    list_select_related = ("organization", "gateway")
    search_fields = ("agent_id", "hostname")
    ordering = ("hostname", "pk")
    actions = ("quarantine", "release", "discover", "revoke")
    inlines = (SessionInline,)
    fields = (
        ("agent_id", "hostname", "organization"),
        ("state", "quarantined_at", "quarantine_reason"),
        ("gateway", "zone", "version"),
        "shown_labels",
        ("shown_load", "connected_at", "last_seen_at"),
        ("os", "capabilities"),
        "shown_settings",
        ("lost_events", "lost_events_at"),
        ("revoked_at", "removed_at"),
        "certificates",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("health_checks", "certificate")

    @admin.display(description="zone", ordering="gateway__zone")
    def zone(self, agent: Agent) -> str:
        return agent.gateway.zone if agent.gateway else ""

    @admin.display(description="load")
    def shown_load(self, agent: Agent) -> str:
        if not agent.load:
            return ""
        load = " ".join(f"{value:.2f}" for value in agent.load.get("load", []))
        return (
            f"{load}, memory {agent.load.get('memoryPercent', 0):.0f} %, {agent.load.get('activeCommands', 0)} commands"
        )

    @admin.display(description="settings")
    def shown_settings(self, agent: Agent) -> str:
        return format_html("<code>{}</code>", json.dumps(agent.settings, ensure_ascii=False, sort_keys=True))

    @admin.action(description="Put in quarantine…", permissions=["decide"])
    def quarantine(self, request: HttpRequest, queryset: QuerySet[Agent]) -> HttpResponse | None:
        actor = actor_in_admin(request)
        return self.decide_with_reason(
            request,
            queryset,
            lambda agent, reason: quarantine_agent(agent=agent, actor=actor, reason=reason),
            title="Quarantine: these agents are watched, but get no commands",
            done="Agents in quarantine",
        )

    @admin.action(description="Release from quarantine", permissions=["decide"])
    def release(self, request: HttpRequest, queryset: QuerySet[Agent]) -> None:
        actor = actor_in_admin(request)
        self.decide(request, queryset, lambda agent: release_agent(agent=agent, actor=actor), "Agents released")

    @admin.action(description="Discover now", permissions=["decide"])
    def discover(self, request: HttpRequest, queryset: QuerySet[Agent]) -> None:
        if self.are_few(request, queryset):
            for agents in by_organization(queryset):
                request_discoveries(agents=agents, actor=actor_in_admin(request))
            self.message_user(request, "They look around as soon as they hear of it.")

    @admin.action(description="Revoke…", permissions=["decide"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[Agent]) -> HttpResponse | None:
        actor = actor_in_admin(request)
        return self.decide_with_reason(
            request,
            queryset,
            lambda agent, reason: revoke_agent(agent=agent, actor=actor, reason=reason),
            title="Revoke agents: their connections are cut, until they are enrolled anew",
            done="Agents revoked",
        )
