"""The API of the discovery inbox."""

from django.urls import path

from apps.proposals import api

api_urlpatterns = [
    path("proposals", api.ProposalsView.as_view()),
    path("proposals/accept", api.AcceptView.as_view()),
    path("proposals/dismiss", api.DismissView.as_view()),
]
