"""Every address of the web server, put together from the apps."""

from django.contrib import admin
from django.urls import include, path

from apps.gateways.urls import api_urlpatterns as gateways_api
from apps.maps.urls import api_urlpatterns as maps_api
from apps.operations.urls import api_urlpatterns as operations_api
from apps.operations.views import HealthView
from apps.orgs.urls import api_urlpatterns as orgs_api
from apps.proposals.urls import api_urlpatterns as proposals_api

urlpatterns = [
    path("healthz", HealthView.as_view(), name="health"),
    path("admin/", admin.site.urls),
    path(
        "api/v1/", include((orgs_api + maps_api + gateways_api + operations_api + proposals_api, "api"), namespace="v1")
    ),
    path("", include("apps.orgs.urls")),
    path("", include("apps.operations.urls")),
]
