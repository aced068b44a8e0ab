"""Why a proposal cannot be accepted."""

from __future__ import annotations

from http import HTTPStatus

from opsmap.lib.problems import ProblemError


class NoSuchProposalError(ProblemError):
    code = "no_such_proposal"
    status = HTTPStatus.NOT_FOUND


class NotAcceptableError(ProblemError):
    """The proposal, as it stands, cannot become part of this Map; the message says why."""

    code = "not_acceptable"
    status = HTTPStatus.CONFLICT
