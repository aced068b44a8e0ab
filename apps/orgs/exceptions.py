"""What can go wrong with people and organizations."""

from http import HTTPStatus

from opsmap.lib.problems import ProblemError


class SignInError(ProblemError):
    """Deliberately says nothing about which of the two was wrong."""

    code = "sign_in_failed"
    status = HTTPStatus.UNAUTHORIZED

    def __init__(self) -> None:
        super().__init__("Email or password is wrong.")
