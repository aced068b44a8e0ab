"""Why an operation cannot be."""

from __future__ import annotations

from http import HTTPStatus

from opsmap.lib.problems import ProblemError


class NotExecutableError(ProblemError):
    """The plan has problems; `problems` says which."""

    code = "not_executable"


class HeldError(ProblemError):
    """Another operation holds components that this one needs; `holders` says who."""

    code = "held"
    status = HTTPStatus.CONFLICT


class NoLogError(ProblemError):
    code = "no_log"
    status = HTTPStatus.NOT_FOUND


class LogUnavailableError(ProblemError):
    code = "log_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
