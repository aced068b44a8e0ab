"""What can go wrong between the backend and a host."""

from http import HTTPStatus

from opsmap.lib.problems import ProblemError


class InvalidCommandError(ProblemError):
    """A command that no agent could understand; the message names the field."""

    code = "invalid_command"
    status = HTTPStatus.BAD_REQUEST


class AgentUnavailableError(ProblemError):
    """The agent, or the gateway it comes by, is not connected."""

    code = "agent_offline"
    status = HTTPStatus.SERVICE_UNAVAILABLE


class LinkRefusedError(Exception):
    """A gateway's connection is refused: wrong certificate, unknown identity."""


class PkiError(Exception):
    """Certificates that are missing, or contradict each other."""
