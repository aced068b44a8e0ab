"""Django's middleware for an event loop: called where it is, instead of by a hop to a thread and back for each hook.

Under ASGI, Django runs every hook of its own middleware in the request's thread, some fifteen hops for a request that
none of them has anything to wait for. And one middleware that knows only threads, as WhiteNoise's, keeps a thread for
as long as the request takes, so that requests that wait would use them up. The hooks here only look at headers, with
one exception: a session that has changed is stored, in a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from csp import middleware as csp
from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest, HttpResponse
from django.middleware import clickjacking, common, csrf, security
from django.utils.deprecation import MiddlewareMixin
from whitenoise.middleware import WhiteNoiseMiddleware


class InPlace(MiddlewareMixin):
    """For middleware whose hooks do not wait for anything."""

    async def __acall__(self, request: HttpRequest) -> HttpResponse:
        response = self.process_request(request) if hasattr(self, "process_request") else None
        response = response or await self.get_response(request)  # type: ignore[misc]  # it is async, or we would not be
        return await self.finish(request, response) if hasattr(self, "process_response") else response

    async def finish(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        return self.process_response(request, response)  # type: ignore[attr-defined,no-any-return]


class SecurityMiddleware(InPlace, security.SecurityMiddleware):
    pass


class CSPMiddleware(InPlace, csp.CSPMiddleware):
    pass


class CommonMiddleware(InPlace, common.CommonMiddleware):
    pass


class AuthenticationMiddleware(InPlace, auth.AuthenticationMiddleware):
    pass


class XFrameOptionsMiddleware(InPlace, clickjacking.XFrameOptionsMiddleware):
    pass


class SessionMiddleware(InPlace, sessions.SessionMiddleware):
    """A session that has changed is stored, and that has to wait for the database."""

    async def finish(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        if request.session.modified:
            return await sync_to_async(self.process_response)(request, response)
        return self.process_response(request, response)


class MessageMiddleware(InPlace, messages.MessageMiddleware):
    """Messages that were shown or added may be in the session, which may be in the database."""

    async def finish(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        kept = getattr(request, "_messages", None)
        if kept is not None and (kept.used or kept.added_new):
            return await sync_to_async(self.process_response)(request, response)
        return response


class CsrfViewMiddleware(InPlace, csrf.CsrfViewMiddleware):
    """Only a form that is posted is checked, and only that reads the body. The API checks its requests by itself."""

    def __init__(self, get_response: Any) -> None:
        super().__init__(get_response)
        if self.async_mode:
            self.process_view = self._process_view_async  # type: ignore[method-assign,assignment]

    async def _process_view_async(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> Any:
        check = super().process_view
        if request.method in {"GET", "HEAD"} or getattr(view, "csrf_exempt", False):
            return check(request, view, args, kwargs)
        return await sync_to_async(check)(request, view, args, kwargs)


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]  # WhiteNoise has no types
    """WhiteNoise, which knows no event loop, and reads a file in a thread if one is asked for."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if not self._is_async:
            return super().__call__(request)
        if not request.path_info.startswith(self.static_prefix):
            return self.get_response(request)
        return self._serve_or_pass(request)

    async def _serve_or_pass(self, request: HttpRequest) -> Any:
        find = self.find_file if self.autorefresh else self.files.get
        file = await sync_to_async(find)(request.path_info)
        if file is None:
            return await self.get_response(request)
        return await sync_to_async(self.serve)(file, request)
