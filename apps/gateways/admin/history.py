"""What was run, and what hosts told of themselves."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from apps.gateways.admin.bases import CappedPaginator, ReportedAdmin
from apps.gateways.models import AgentDiscovery, Command

_MAX_SHOWN_CHARACTERS = 100_000


def _as_text(value: Any) -> str:
    """JSON that hosts sent, as text and nothing else."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    cut = "\n…" if len(text) > _MAX_SHOWN_CHARACTERS else ""
    return format_html("<pre>{}</pre>", text[:_MAX_SHOWN_CHARACTERS] + cut)


@admin.register(Command)
class CommandAdmin(ReportedAdmin):
    paginator = CappedPaginator
    list_display = ("name", "agent", "organization", "state", "detail", "exit_code", "created_at", "duration_ms")
    list_filter = ("state", "organization")
    list_select_related = ("agent", "organization")
    # Whole names only: the table is as long as the history.
    search_fields = ("agent__agent_id__exact", "agent__hostname__exact")
    search_help_text = "An agent id or a hostname, whole."
    ordering = ("-pk",)
    fields = (
        ("name", "state", "detail"),
        ("agent", "organization", "broadcast_id"),
        ("shown_spec", "shown_execution"),
        ("timeout_ms", "not_after", "is_cancel_requested"),
        ("created_at", "sent_at", "received_at", "started_at", "finished_at"),
        ("exit_code", "pid", "job_id", "duration_ms"),
        ("shown_result", "shown_check"),
        "log_tail",
        "requested_by",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # Of the agent no more than its name: the rest is long, and a list shows fifty.
        long = ("agent__health_checks", "agent__certificate", "agent__os", "agent__load", "agent__labels")
        found = super().get_queryset(request).defer(*long)
        is_list = (
            request.resolver_match is not None and request.resolver_match.url_name == "gateways_command_changelist"
        )
        return found.defer("spec", "execution", "result", "check_result", "log_tail", "output") if is_list else found

    @admin.display(description="command")
    def shown_spec(self, command: Command) -> str:
        return _as_text(command.spec)

    @admin.display(description="execution")
    def shown_execution(self, command: Command) -> str:
        return _as_text(command.execution)

    @admin.display(description="result")
    def shown_result(self, command: Command) -> str:
        return _as_text(command.result)

    @admin.display(description="check")
    def shown_check(self, command: Command) -> str:
        return _as_text(command.check_result)


@admin.register(AgentDiscovery)
class AgentDiscoveryAdmin(ReportedAdmin):
    list_display = ("agent", "organization", "discovered_at", "shown_faults")
    list_filter = ("organization",)
    list_select_related = ("agent", "organization")
    search_fields = ("agent__agent_id", "agent__hostname")
    ordering = ("-discovered_at",)
    fields = (("agent", "organization"), ("discovery_id", "discovered_at"), "shown_faults", "shown_findings")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # Read when one of them is looked at.
        return super().get_queryset(request).defer("findings", "agent__health_checks", "agent__certificate")

    @admin.display(description="not looked at")
    def shown_faults(self, discovery: AgentDiscovery) -> str:
        return "; ".join(f"{kind}: {fault}" for kind, fault in sorted(discovery.faults.items()))

    @admin.display(description="findings")
    def shown_findings(self, discovery: AgentDiscovery) -> str:
        return _as_text(discovery.findings)
