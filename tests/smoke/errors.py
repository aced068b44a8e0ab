"""How the smoke run fails, and how a call of the REST API does."""

from typing import Any


class SmokeError(Exception):
    """Something is not as it must be; the text says what was expected and what was found."""


class RefusedError(SmokeError):
    """The API answered, but not with success; `problem` is its document, or None if that was no JSON."""

    def __init__(self, message: str, status: int, problem: Any) -> None:
        super().__init__(message)
        self.status = status
        self.problem = problem


class LostAnswerError(SmokeError):
    """The connection ended before the answer: whether the call took effect, nobody knows."""
