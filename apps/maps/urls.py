"""The API of Maps as documents. Their live side is in apps.operations."""

from django.urls import path

from apps.maps import api

api_urlpatterns = [
    path("maps/validate", api.ValidateView.as_view()),
    path("maps/import", api.ImportView.as_view()),
    path("maps/<uuid:map_id>/documents", api.DocumentsView.as_view()),
    path("maps/<uuid:map_id>/documents.zip", api.ArchiveView.as_view()),
    path("schemas/v1/map-document.json", api.SchemaView.as_view(), name="map-document-schema"),
    path("schemas/map-document.json", api.SchemaView.as_view()),
]
