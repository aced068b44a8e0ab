"""Every error of the API has one shape: problem+json with a stable code."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from opsmap.lib.problems import ProblemError, problem


class _Anonymous(BaseAuthentication):
    """Knows nobody, and says how one could sign in."""

    def authenticate(self, request: Request) -> None:
        return None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class _TeapotError(ProblemError):
    code = "is_teapot"
    status = HTTPStatus.IM_A_TEAPOT


def _answer(error: Exception | None = None, method: str = "post", **request: Any) -> Response:
    class View(APIView):
        authentication_classes = [_Anonymous]
        permission_classes = []

        def post(self, request: Request) -> Response:
            if error is not None:
                raise error
            return Response(request.data)

    response = View.as_view()(getattr(APIRequestFactory(), method)("/", **{"format": "json", **request}))
    response.render()
    return response


def test_problem_says_type_title_status_code_and_detail() -> None:
    answer = problem(409, "held", "Somebody else is at it.", holders=[1])

    assert answer.status_code == 409
    assert answer.data == {
        "type": "urn:opsmap:problem:held",
        "title": "Conflict",
        "status": 409,
        "code": "held",
        "detail": "Somebody else is at it.",
        "holders": [1],
    }


def test_own_error_becomes_a_problem_with_its_extra() -> None:
    answer = _answer(_TeapotError("Short and stout.", spout=1))

    assert (answer.status_code, answer.headers["Content-Type"]) == (418, "application/problem+json")
    assert answer.data["code"] == "is_teapot"
    assert answer.data["detail"] == "Short and stout."
    assert answer.data["spout"] == 1


def test_own_error_without_a_status_is_unprocessable() -> None:
    answer = _answer(ProblemError("No."))
    assert (answer.status_code, answer.data["code"]) == (422, "problem")


@pytest.mark.parametrize(
    ("error", "status", "code", "detail"),
    [
        (Http404("table row 7 of Umbrella"), 404, "not_found", "There is no such thing, or you may not see it."),
        (exceptions.NotFound("row 7"), 404, "not_found", "There is no such thing, or you may not see it."),
        (PermissionDenied("Not this one."), 403, "permission_denied", "Not this one."),
        (PermissionDenied(), 403, "permission_denied", "You may not do this."),
        (exceptions.PermissionDenied("Nor that."), 403, "permission_denied", "Nor that."),
        (exceptions.NotAuthenticated(), 401, "not_authenticated", "Authentication credentials were not provided."),
        (exceptions.AuthenticationFailed("Expired."), 401, "authentication_failed", "Expired."),
    ],
)
def test_errors_of_the_frameworks_have_the_same_shape(error: Exception, status: int, code: str, detail: str) -> None:
    answer = _answer(error)

    assert answer.status_code == answer.data["status"] == status
    assert (answer.data["code"], answer.data["detail"]) == (code, detail)
    assert answer.data["type"] == f"urn:opsmap:problem:{code}"
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_refused_fields_are_listed() -> None:
    answer = _answer(exceptions.ValidationError({"name": ["This field is required."]}))

    assert (answer.status_code, answer.data["code"]) == (400, "invalid")
    assert answer.data["errors"] == {"name": ["This field is required."]}


def test_body_that_is_no_json_is_a_parse_error() -> None:
    answer = _answer(data="{", format=None, content_type="application/json")
    assert (answer.status_code, answer.data["code"]) == (400, "parse_error")


def test_form_is_refused_because_only_json_is_read() -> None:
    answer = _answer(data="a=1", format=None, content_type="application/x-www-form-urlencoded")
    assert (answer.status_code, answer.data["code"]) == (415, "unsupported_media_type")


def test_headers_that_tell_how_to_go_on_are_kept() -> None:
    assert _answer(exceptions.NotAuthenticated()).headers["WWW-Authenticate"] == "Bearer"
    assert _answer(exceptions.Throttled(wait=30)).headers["Retry-After"] == "30"

    refused = _answer(method="put")
    assert (refused.status_code, refused.data["code"]) == (405, "method_not_allowed")
    assert refused.headers["Allow"] == "POST, OPTIONS"


def test_bug_is_not_dressed_up_as_a_problem() -> None:
    with pytest.raises(ZeroDivisionError):
        _answer(ZeroDivisionError())
