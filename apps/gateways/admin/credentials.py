"""Certificates and enrolment tokens."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from apps.gateways.actions.enrolment_tokens import (
    MAX_LIFE,
    MAX_USES,
    create_enrolment_token,
    revoke_enrolment_token,
)
from apps.gateways.actions.revocation import revoke_certificate
from apps.gateways.admin.bases import EndsSoonFilter, ReportedAdmin, actor_in_admin
from apps.gateways.models import Certificate, EnrolmentToken
from apps.gateways.payloads import enrolment_commands, token_state
from opsmap.lib.problems import ProblemError
from opsmap_protocol.enums import PeerRole


class NotAfterFilter(EndsSoonFilter):
    column = "not_after"


@admin.register(Certificate)
class CertificateAdmin(ReportedAdmin):
    list_display = ("name", "role", "organization", "not_before", "not_after", "revoked_at", "short_fingerprint")
    list_filter = ("role", "organization", NotAfterFilter, ("revoked_at", admin.EmptyFieldListFilter))
    list_select_related = ("organization",)
    search_fields = ("name", "fingerprint__startswith", "serial")
    ordering = ("-not_after", "-pk")
    actions = ("revoke",)

    @admin.display(description="fingerprint")
    def short_fingerprint(self, certificate: Certificate) -> str:
        return certificate.fingerprint[:16]

    @admin.action(description="Revoke…", permissions=["decide"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[Certificate]) -> HttpResponse | None:
        actor = actor_in_admin(request)
        return self.decide_with_reason(
            request,
            queryset,
            lambda certificate, reason: revoke_certificate(certificate=certificate, actor=actor, reason=reason),
            title="Revoke certificates: whoever shows them is not let in",
            done="Certificates revoked",
        )


class EnrolmentTokenForm(forms.ModelForm):  # type: ignore[type-arg]  # Django's own is no generic
    """What a new token shall be good for."""

    life_hours = forms.IntegerField(
        min_value=1, max_value=int(MAX_LIFE / timedelta(hours=1)), initial=24, label="Life in hours"
    )
    max_uses = forms.IntegerField(min_value=1, max_value=MAX_USES, initial=1)

    class Meta:
        model = EnrolmentToken
        fields = ("organization", "role", "description", "name_pattern", "gateway", "zone", "may_replace", "max_uses")

    def clean(self) -> dict[str, Any]:
        fields = super().clean() or {}
        gateway, organization = fields.get("gateway"), fields.get("organization")
        if gateway and fields.get("role") == PeerRole.GATEWAY:
            self.add_error("gateway", "Only agents come by a gateway.")
        elif gateway and organization and gateway.organization_id != organization.pk:
            self.add_error("gateway", "It is of another organization.")
        return fields


@admin.register(EnrolmentToken)
class EnrolmentTokenAdmin(ReportedAdmin):
    """Made here by the same action as over REST; the page after that alone shows the text."""

    form = EnrolmentTokenForm
    list_display = (
        "prefix",
        "role",
        "organization",
        "state",
        "name_pattern",
        "gateway",
        "uses",
        "expires_at",
        "created_by_whom",
        "description",
    )
    list_filter = ("role", "organization")
    list_select_related = ("organization", "gateway")
    search_fields = ("prefix__startswith", "description")
    ordering = ("-pk",)
    actions = ("revoke",)
    # A list of all gateways of everybody would be long.
    raw_id_fields = ("gateway",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("gateways.add_enrolmenttoken")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return [*EnrolmentTokenForm.Meta.fields, "life_hours"]
        shown = ["prefix", "state", "created_by_whom", "created_at", "use_count", "last_used_at"]
        return [*shown, *EnrolmentTokenForm.Meta.fields, "expires_at", "revoked_at"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return () if obj is None else self.get_fields(request, obj)

    @admin.display(description="state")
    def state(self, token: EnrolmentToken) -> str:
        return token_state(token)

    @admin.display(description="uses")
    def uses(self, token: EnrolmentToken) -> str:
        return f"{token.use_count} of {token.max_uses}"

    @admin.display(description="made by")
    def created_by_whom(self, token: EnrolmentToken) -> str:
        return str(token.created_by.get("email") or token.created_by.get("id", ""))

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """The action writes the row; `obj` becomes what it wrote."""
        if change:
            super().save_model(request, obj, form, change)
        fields = form.cleaned_data
        token, text = create_enrolment_token(
            organization_id=fields["organization"].pk,
            role=PeerRole(fields["role"]),
            actor=actor_in_admin(request),
            description=fields["description"],
            name_pattern=fields["name_pattern"],
            gateway=fields["gateway"],
            zone=fields["zone"],
            may_replace=fields["may_replace"],
            max_uses=fields["max_uses"],
            life=timedelta(hours=fields["life_hours"]),
        )
        obj.__dict__.update(token.__dict__)
        obj.shown_once = text

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        try:
            return super().add_view(request, form_url, extra_context)
        except ProblemError as error:
            self.message_user(request, error.detail, messages.ERROR)
            return HttpResponseRedirect(reverse("admin:gateways_enrolmenttoken_changelist"))

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: Any = None) -> HttpResponse:
        """The text goes into this answer alone: in a message it would lie in a cookie, or in the database."""
        web_url = request.build_absolute_uri("/").rstrip("/")
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "The new enrolment token",
            "token": obj,
            "text": obj.shown_once,
            "command": enrolment_commands(obj.shown_once, obj, web_url)["enroll"],
            "days_left": max(1, (obj.expires_at - timezone.now()).days),
        }
        response = TemplateResponse(request, "admin/gateways/token_created.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @admin.action(description="Revoke", permissions=["decide"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[EnrolmentToken]) -> None:
        actor = actor_in_admin(request)
        self.decide(request, queryset, lambda token: revoke_enrolment_token(token=token, actor=actor), "Tokens revoked")
