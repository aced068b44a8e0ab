"""Pages: the list of Maps, the Map, and the health endpoint."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.contrib.auth.mixins import LoginRequiredMixin
from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.crypto import constant_time_compare
from django.views import View

from apps.gateways.selectors import count_online
from apps.maps.access import access_map_by_path
from apps.operations.payloads import describe_map, describe_maps
from apps.operations.selectors import list_maps
from apps.orgs.authentication import person_of
from opsmap.lib.health_key import HEADER, health_key


class MapListView(LoginRequiredMixin, View):
    def get(self, request: HttpRequest) -> HttpResponse:
        maps = describe_maps(list_maps(person_of(request)))
        return render(request, "operations/map_list.html", {"maps": maps})


class MapDetailView(LoginRequiredMixin, View):
    def get(self, request: HttpRequest, organization: str, workspace: str, slug: str) -> HttpResponse:
        map = access_map_by_path(person_of(request), organization, workspace, slug)
        return render(request, "operations/map_detail.html", {"map": _plain(describe_map(map, person_of(request)))})


def _plain(payload: dict[str, Any]) -> dict[str, Any]:
    """As the API would send it: ids and times as text."""
    plain: dict[str, Any] = json.loads(json.dumps(payload, cls=DjangoJSONEncoder))
    return plain


class HealthView(View):
    """For load balancers: this process answers. For the supervisor, by its key, also how much is connected.

    The counts span all organizations, so nobody else learns them.
    """

    def get(self, request: HttpRequest) -> JsonResponse:
        answer: dict[str, Any] = {"status": "ok"}
        if constant_time_compare(request.headers.get(HEADER, ""), health_key(settings.SECRET_KEY)):
            answer |= count_online()
        return JsonResponse(answer)
