"""The sign-in page."""

from __future__ import annotations

from django.contrib.auth import views as auth_views
from django.http import HttpRequest, HttpResponse

from apps.audit.actor import Actor
from apps.orgs.actions import record_sign_in
from apps.orgs.forms import SignInForm
from apps.orgs.models import User


class SignInView(auth_views.LoginView):
    """Django's login view with our form, recorded in the trail either way."""

    template_name = "orgs/sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True

    def form_valid(self, form: SignInForm) -> HttpResponse:  # type: ignore[override]
        user = form.get_user()
        assert isinstance(user, User)
        record_sign_in(email=user.email, user=user, actor=Actor.person(user, ip=_address(self.request)))
        return super().form_valid(form)

    def form_invalid(self, form: SignInForm) -> HttpResponse:  # type: ignore[override]
        email = str(form.data.get("username", ""))
        record_sign_in(email=email, user=None, actor=Actor("anonymous", "", ip=_address(self.request)))
        return super().form_invalid(form)


def _address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR") or "")
