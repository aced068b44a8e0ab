"""What the pages of the admin have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from apps.audit.actor import Actor
from apps.orgs.authentication import person_of
from opsmap.lib.problems import ProblemError

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    TabularInline = admin.TabularInline[Any, Any]
    CappedBase = Paginator[Any]
else:
    # Django's own are no generics.
    ModelAdmin, TabularInline, CappedBase = admin.ModelAdmin, admin.TabularInline, Paginator

M = TypeVar("M", bound=Model)

MAX_DECIDED = 1000
"""The most rows that one decision on a list page concerns; for more there is REST, with filters."""

MAX_REASON = 300
_MAX_COUNTED = 10_000
_MAX_LABELS = 10


class CappedPaginator(CappedBase):
    """Counts no further than anybody pages: a history has millions of rows."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows[:_MAX_COUNTED].count())


class ReportedAdmin(ModelAdmin):
    """Rows that come about elsewhere: they are seen, and changed by actions alone."""

    list_per_page = 50
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Who may decide about these rows, by the actions of their list."""
        return request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}")

    # No form leads here. Should one ever, nothing is written without its audit event.

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        raise PermissionDenied("Nothing is saved outside of actions.")

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        raise PermissionDenied("Nothing is deleted outside of actions.")

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        raise PermissionDenied("Nothing is deleted outside of actions.")

    # Deciding about the rows that are ticked

    def decide(self, request: HttpRequest, rows: QuerySet[M], act: Callable[[M], object], done: str) -> None:
        """Do it to each of the rows, and say how it went. One that cannot be is told, and does not stop the others."""
        if not self.are_few(request, rows):
            return
        count = 0
        for row in rows.order_by("pk"):
            try:
                act(row)
                count += 1
            except ProblemError as error:
                self.message_user(request, error.detail, messages.ERROR)
        self.message_user(request, f"{done}: {count}.", messages.SUCCESS if count else messages.WARNING)

    def decide_with_reason(
        self, request: HttpRequest, rows: QuerySet[M], act: Callable[[M, str], object], *, title: str, done: str
    ) -> HttpResponse | None:
        """As `decide`, once it has been said why: first comes a page that asks."""
        if not self.are_few(request, rows):
            return None
        reason = request.POST.get("reason", "").replace("\0", "").strip()[:MAX_REASON]
        if reason:
            self.decide(request, rows, lambda row: act(row, reason), done)
            return None
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "rows": rows.order_by("pk"),
            "action": request.POST["action"],
            "max_reason": MAX_REASON,
        }
        return TemplateResponse(request, "admin/gateways/reason.html", context)

    def are_few(self, request: HttpRequest, rows: QuerySet[Any]) -> bool:
        if rows[: MAX_DECIDED + 1].count() <= MAX_DECIDED:
            return True
        text = f"At most {MAX_DECIDED} at once; for more there is the REST interface. Nothing was done."
        self.message_user(request, text, messages.ERROR)
        return False


def actor_in_admin(request: HttpRequest) -> Actor:
    return Actor.person(person_of(request), ip=str(request.META.get("REMOTE_ADDR") or ""))


def by_organization(rows: Iterable[M]) -> list[list[M]]:
    """An audit event is of one organization."""

    def organization_of(row: Any) -> str:
        return str(row.organization_id)

    return [list(group) for _, group in groupby(sorted(rows, key=organization_of), key=organization_of)]


def show_labels(labels: dict[str, Any]) -> str:
    shown = [f"{name}={value}" for name, value in sorted(labels.items())]
    more = f" and {len(shown) - _MAX_LABELS} more" if len(shown) > _MAX_LABELS else ""
    return ", ".join(shown[:_MAX_LABELS]) + more


class EndsSoonFilter(admin.SimpleListFilter):
    """Certificates by when they end. The column is `certificate_ends_at` or, of a certificate itself, `not_after`."""

    title = "end of the certificate"
    parameter_name = "ends"
    column = "certificate_ends_at"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("past", "Has ended"), ("7", "Within 7 days"), ("30", "Within 30 days")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        now = timezone.now()
        match self.value():
            case "past":
                return queryset.filter(**{f"{self.column}__lt": now})
            case "7" | "30" as days:
                until = now + timedelta(days=int(days))
                return queryset.filter(**{f"{self.column}__gte": now, f"{self.column}__lt": until})
        return queryset
