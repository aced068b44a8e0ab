"""What the middleware does under an event loop: no less than Django's own."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.http import HttpResponse
from django.test import AsyncClient
from django.urls import path

from conftest import PASSWORD, Cast
from opsmap.urls import urlpatterns as real_urlpatterns

threads: list[threading.Thread] = []


async def where(request: Any) -> HttpResponse:
    threads.append(threading.current_thread())
    return HttpResponse("here")


urlpatterns = [path("where", where), *real_urlpatterns]


@pytest.fixture
async def signed_off() -> AsyncIterator[None]:
    """The thread in which Django's test client asks keeps its connection, in the way of whoever drops the database."""
    yield
    await sync_to_async(connections.close_all)()


@pytest.mark.urls(__name__)
async def test_a_request_passes_without_leaving_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **more: Any) -> Any:
        raise AssertionError("a hop to a thread")

    monkeypatch.setattr("opsmap.middleware.sync_to_async", refuse)
    hops: list[Any] = []
    run_in_executor = asyncio.BaseEventLoop.run_in_executor
    monkeypatch.setattr(
        asyncio.BaseEventLoop,
        "run_in_executor",
        lambda loop, executor, work, *arguments: hops.append(work) or run_in_executor(loop, executor, work, *arguments),
    )
    response = await AsyncClient().get("/where")
    assert (response.status_code, threads.pop()) == (200, threading.current_thread())
    # Only what Django itself does at the beginning and the end of a request; before, there were some fifteen.
    assert len(hops) <= 4


@pytest.mark.urls(__name__)
async def test_every_header_is_there() -> None:
    headers = (await AsyncClient().get("/where")).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.django_db(transaction=True)
async def test_a_form_without_its_token_is_refused_and_with_it_signs_in(cast: Cast, signed_off: None) -> None:
    client = AsyncClient(enforce_csrf_checks=True)
    form = {"username": cast.owner.email, "password": PASSWORD}
    assert (await client.post("/sign-in/", form)).status_code == 403
    page = (await client.get("/sign-in/")).content.decode()
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert found is not None
    assert (await client.post("/sign-in/", form | {"csrfmiddlewaretoken": "x" * 64})).status_code == 403
    assert (await client.get("/api/v1/auth/session")).status_code == 401
    response = await client.post("/sign-in/", form | {"csrfmiddlewaretoken": found[1]})
    assert response.status_code == 302
    # The session is stored: the next request knows who asks.
    shown = await client.get("/api/v1/auth/session")
    assert shown.json()["user"]["email"] == cast.owner.email
    assert "Cookie" in shown.headers["Vary"]


@pytest.mark.django_db(transaction=True)
async def test_the_api_checks_a_session_s_token_by_itself(cast: Cast, signed_off: None) -> None:
    client = AsyncClient(enforce_csrf_checks=True)
    await client.aforce_login(cast.owner)
    response = await client.post("/api/v1/maps/validate", {"documents": []}, content_type="application/json")
    assert response.status_code == 403


async def test_static_files_are_served_and_what_is_none_is_not() -> None:
    response = await AsyncClient().get("/static/css/base.css")
    missing = await AsyncClient().get("/static/nothing.css")
    assert (response.status_code, missing.status_code) == (200, 404)
    assert response.headers["Content-Type"].startswith("text/css")
    response.close()
