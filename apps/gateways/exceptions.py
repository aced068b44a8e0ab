"""What can go wrong between the backend and a host."""

from http import HTTPStatus

from opsmap.lib.problems import ProblemError
from opsmap_protocol.errors import CloseCode


class InvalidCommandError(ProblemError):
    """A command that no agent could understand; the message names the field."""

    code = "invalid_command"
    status = HTTPStatus.BAD_REQUEST


class AgentUnavailableError(ProblemError):
    """The agent, or the gateway it comes by, is not connected."""

    code = "agent_offline"
    status = HTTPStatus.SERVICE_UNAVAILABLE


class AgentQuarantinedError(ProblemError):
    """The agent is in quarantine: it is watched, but gets no commands."""

    code = "agent_quarantined"
    status = HTTPStatus.CONFLICT


class StillInUseError(ProblemError):
    """A gateway or agent that is neither revoked nor long gone is not removed."""

    code = "still_in_use"
    status = HTTPStatus.CONFLICT


class NoDiscoveryError(ProblemError):
    """The host has not told anything of itself yet."""

    code = "no_discovery"
    status = HTTPStatus.NOT_FOUND


class InvalidSettingsError(ProblemError):
    """What no agent could be set to; the message names the key."""

    code = "invalid_settings"
    status = HTTPStatus.BAD_REQUEST


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


class InvalidDiscoveryError(ProblemError):
    """A kind of discovery that there is not."""

    code = "invalid_discovery"
    status = HTTPStatus.BAD_REQUEST


class LinkRefusedError(Exception):
    """A gateway's connection is refused, with this close code: wrong certificate, unknown identity, revoked."""

    def __init__(self, reason: str, close_code: CloseCode = CloseCode.UNAUTHENTICATED) -> None:
        super().__init__(reason)
        self.close_code = close_code


class PkiError(Exception):
    """Certificates that are missing, or contradict each other."""
