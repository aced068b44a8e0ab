"""Faults a person can act on: each is one clear line and an exit code, never a traceback."""

EXIT_FAILED = 1
EXIT_PORT_TAKEN = 2
EXIT_USAGE = 2
EXIT_ALREADY_RUNNING = 3


class EmbeddedError(Exception):
    """Something stands in the way; the message says what, and what to do about it."""

    exit_code = EXIT_FAILED


class ServiceError(EmbeddedError):
    """PostgreSQL or Valkey cannot be prepared, started or reached."""


class PlacementError(EmbeddedError):
    """There is no folder where the data, the sockets or the binaries may live."""


class PortTakenError(EmbeddedError):
    """Somebody else listens on a port that OpsMap needs."""

    exit_code = EXIT_PORT_TAKEN


class AlreadyRunningError(EmbeddedError):
    """Another supervisor holds this state folder."""

    exit_code = EXIT_ALREADY_RUNNING
