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


class ReasonRequiredError(ProblemError):
    """The Map's document asks for a reason, and none was given."""

    code = "reason_required"


class QueueFullError(ProblemError):
    """So many operations of this Map wait already that another one is refused."""

    code = "queue_full"
    status = HTTPStatus.CONFLICT


class NotSteerableError(ProblemError):
    """The operation, as it stands, cannot be paused, resumed, tried again or skipped; the message says why."""

    code = "not_steerable"
    status = HTTPStatus.CONFLICT


class SupersededError(ProblemError):
    """Since the operation ended something else was done to its components: trying it again could undo that."""

    code = "superseded"
    status = HTTPStatus.CONFLICT


class NoSuchComponentError(ProblemError):
    code = "no_such_component"
    status = HTTPStatus.NOT_FOUND


class NoSuchStepError(ProblemError):
    code = "no_such_step"
    status = HTTPStatus.NOT_FOUND


class MapChangedError(ProblemError):
    """The Map's structure changed while it was read."""

    code = "map_changed"
    status = HTTPStatus.CONFLICT


class NoLogError(ProblemError):
    code = "no_log"
    status = HTTPStatus.NOT_FOUND


class LogUnavailableError(ProblemError):
    code = "log_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
