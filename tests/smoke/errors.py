"""The one way in which the smoke run fails."""


class SmokeError(Exception):
    """Something is not as it must be; the text says what was expected and what was found."""
