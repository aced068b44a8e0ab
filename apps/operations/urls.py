"""Pages of Maps, and the API of live Maps and operations."""

from django.urls import path

from apps.operations import api, views

app_name = "operations"

urlpatterns = [
    path("", views.MapListView.as_view(), name="map-list"),
    path(
        "maps/<slug:organization>/<slug:workspace>/<slug:slug>/",
        views.MapDetailView.as_view(),
        name="map-detail",
    ),
]

api_urlpatterns = [
    path("maps", api.MapsView.as_view()),
    path("maps/<uuid:map_id>", api.MapView.as_view()),
    path("maps/<uuid:map_id>/operations", api.MapOperationsView.as_view()),
    path("components/<uuid:component_id>", api.ComponentView.as_view()),
    path("components/<uuid:component_id>/log", api.ComponentLogView.as_view()),
    path("operations/<uuid:operation_id>", api.OperationView.as_view()),
    path("operations/<uuid:operation_id>/cancel", api.OperationCancelView.as_view()),
]
