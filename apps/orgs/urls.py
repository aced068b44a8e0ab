"""Pages and API of signing in."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from apps.orgs import api, views

app_name = "orgs"

urlpatterns = [
    path("sign-in/", views.SignInView.as_view(), name="sign-in"),
    path("sign-out/", LogoutView.as_view(), name="sign-out"),
]

api_urlpatterns = [
    path("auth/session", api.SessionView.as_view()),
    path("auth/tokens", api.TokensView.as_view()),
    path("auth/tokens/<uuid:token_id>", api.TokenView.as_view()),
]
