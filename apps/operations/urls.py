"""Pages of Maps, and the API of live Maps and operations."""

from django.urls import path

from apps.operations import api, states_api, steering_api, views

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
    path("maps/<uuid:map_id>/impact", api.MapImpactView.as_view()),
    path("maps/<uuid:map_id>/operations", api.MapOperationsView.as_view()),
    path("components/<uuid:component_id>", api.ComponentView.as_view()),
    path("maps/<uuid:map_id>/maintenance", states_api.MapMaintenanceView.as_view()),
    path("components/<uuid:component_id>/history", states_api.ComponentHistoryView.as_view()),
    path("components/<uuid:component_id>/maintenance", states_api.ComponentMaintenanceView.as_view()),
    path("components/<uuid:component_id>/impact", api.ComponentImpactView.as_view()),
    path("components/<uuid:component_id>/log", api.ComponentLogView.as_view()),
    path("operations/<uuid:operation_id>", api.OperationView.as_view()),
    path("operations/<uuid:operation_id>/cancel", steering_api.OperationCancelView.as_view()),
    path("operations/<uuid:operation_id>/pause", steering_api.OperationPauseView.as_view()),
    path("operations/<uuid:operation_id>/resume", steering_api.OperationResumeView.as_view()),
    path("operations/<uuid:operation_id>/retry", steering_api.OperationRetryView.as_view()),
    path("operations/<uuid:operation_id>/skip", steering_api.OperationSkipView.as_view()),
]
