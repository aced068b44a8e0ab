"""Why a command was not run: one exception for each outcome, with a reason that a person can act on."""

from __future__ import annotations

from typing import ClassVar

from opsmap_protocol.enums import CommandOutcome


class RefusalError(Exception):
    """A command that ends before anything was started. The message names what was refused and why."""

    outcome: ClassVar[CommandOutcome]


class RejectedError(RefusalError):
    """This agent's configuration, or a rule of the protocol, forbids it."""

    outcome = CommandOutcome.REJECTED


class NotStartedError(RefusalError):
    """It is allowed, but this host cannot begin it: no such program, folder or permission."""

    outcome = CommandOutcome.NOT_STARTED


class ExpiredError(RefusalError):
    """It arrived after the time until which it was meant to begin."""

    outcome = CommandOutcome.EXPIRED
