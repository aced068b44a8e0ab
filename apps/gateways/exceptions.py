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


class UnknownAgentsError(ProblemError):
    """A filter names agents that are not there; `unknown` has the first of them."""

    code = "unknown_agents"
    status = HTTPStatus.BAD_REQUEST


class FleetSizeError(ProblemError):
    """A filter means nobody, or more agents than one broadcast may reach."""

    code = "fleet_size"
    status = HTTPStatus.BAD_REQUEST


class IdempotencyKeyReusedError(ProblemError):
    """The person has used this key for something else."""

    code = "idempotency_key_reused"
    status = HTTPStatus.CONFLICT


class LinkRefusedError(Exception):
    """A gateway's connection is refused: wrong certificate, unknown identity."""


class PkiError(Exception):
    """Certificates that are missing, or contradict each other."""
