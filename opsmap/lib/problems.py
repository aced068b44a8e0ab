"""Errors of the API as problem+json (RFC 9457), and the base class of every error a person may see."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler


class ProblemError(Exception):
    """Something a caller did or asked that cannot be, said in words for people.

    `code` is stable and for programs; `extra` holds what helps to act on it (camelCase keys).
    """

    code = "problem"
    status = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra


def problem(status: int, code: str, detail: str, **extra: Any) -> Response:
    body = {
        "type": f"urn:opsmap:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
    }
    return Response({**body, "detail": detail, **extra}, status=status, content_type="application/problem+json")


def problem_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """The exception handler of the API: every error has the same shape."""
    if isinstance(error, ProblemError):
        return problem(error.status, error.code, error.detail, **error.extra)
    if isinstance(error, RequestDataTooBig):
        return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", "The request is too large.")
    response = exception_handler(error, context)
    if response is None:
        return None
    if isinstance(error, Http404 | exceptions.NotFound):
        answer = problem(404, "not_found", "There is no such thing, or you may not see it.")
    elif isinstance(error, exceptions.ValidationError):
        answer = problem(400, "invalid", "The request has faults.", errors=error.detail)
    elif isinstance(error, PermissionDenied):
        answer = problem(403, "permission_denied", str(error) or "You may not do this.")
    elif isinstance(error, exceptions.APIException):
        codes = error.get_codes()
        answer = problem(response.status_code, codes if isinstance(codes, str) else "invalid", str(error.detail))
    else:
        return response
    for header in ("WWW-Authenticate", "Retry-After", "Allow"):
        if header in response.headers:
            answer.headers[header] = response.headers[header]
    return answer
