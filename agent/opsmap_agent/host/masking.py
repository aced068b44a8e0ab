"""Secrets in what processes were started with: they do not leave the host.

A command line has no grammar, so this knows customs: options and variables whose names say it, passwords in URLs and
headers, and the short options of well-known programs. It is a net against accidents, no promise.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath

MASK = "***"

_NAME_WORDS = ("pass", "pwd", "secret", "token", "key", "credential", "auth")
"""In the name of a variable of the environment: better one value too many."""

_OPTION = re.compile(
    r"pass(word|wd|phrase|wort|code)?|pwd|secret|token|credentials?|auth(orization)?|bearer|api_?key|"
    r"(access|account|client|encryption|master|private|shared|signing|ssh|storage)_?key|keytab|cookie",
    re.IGNORECASE,
)
"""Words of the name of an option. Here also other things have to stay readable: "--keep", "--author"."""

_PLACE = re.compile(r"(file|path|location|dir|folder|type|name|url|uri|mode|provider|timeout|ttl|size|length)$", re.I)
"""What an option ends with that names where a secret is, or its kind, and not what it is."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_ASSIGNMENT = re.compile(r"(?P<name>-{0,2}[A-Za-z_][\w.\-/:]*)=(?P<value>.+)", re.DOTALL)
_URL_PASSWORD = re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.\-]*://[^\s/:@]*):[^\s/]+@")
_HEADER = re.compile(
    r"(?P<name>\b(?:proxy-)?authorization|\bcookie|\bx-[\w\-]*(?:token|key|auth|secret)[\w\-]*)\s*:.*", re.I | re.DOTALL
)
_QUERY = re.compile(
    r"(?P<before>[?&;][\w.\-]*(?:password|passwd|pwd|secret|token|signature|api_?key|sig)=)[^&;\s]+", re.IGNORECASE
)
_USER_AND_PASSWORD = re.compile(r"(?P<user>[^:/\s]+):.+", re.DOTALL)

_ATTACHED = {"-p": re.compile(r"(mysql|mariadb)\w*(-\w+)?")}
"""Short options with the secret behind them in the same word, and whose they are."""

_FOLLOWING = {
    "-p": re.compile(r"sshpass|mongo\w*"),
    "-a": re.compile(r"(redis|valkey|keydb)-\w+"),
    "-w": re.compile(r"ldap\w+"),
}
"""Short options with the secret as the next word."""

_USER_OPTIONS = frozenset({"-u", "--user", "-U", "--proxy-user"})
"""Of curl, followed by user:password."""


def mask_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Names stay. A value stays if its name does not sound like a secret, but for the password of a URL in it."""
    return {
        name: MASK if any(word in name.lower() for word in _NAME_WORDS) else _masked_text(value)
        for name, value in environment.items()
    }


def mask_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line, program first, with what is likely a secret replaced."""
    program = PurePath(arguments[0]).name if arguments else ""
    masked: list[str] = []
    is_secret_next = False
    for argument in arguments:
        if is_secret_next and not argument.startswith("--"):
            masked.append(_masked_value(masked[-1], argument))
            is_secret_next = False
        else:
            masked.append(_masked_argument(program, argument))
            is_secret_next = _announces_secret(program, argument)
    return masked


def _masked_argument(program: str, argument: str) -> str:
    for option, programs in _ATTACHED.items():
        if argument.startswith(option) and len(argument) > len(option) and programs.fullmatch(program):
            return option + MASK
    found = _ASSIGNMENT.fullmatch(argument)
    if found is not None and _is_secret_name(found["name"]):
        return f"{found['name']}={MASK}"
    return _masked_text(argument)


def _masked_value(option: str, value: str) -> str:
    if option in _USER_OPTIONS:
        return _USER_AND_PASSWORD.sub(rf"\g<user>:{MASK}", value)
    return MASK


def _masked_text(text: str) -> str:
    if ":" not in text and "=" not in text:
        return text
    text = _URL_PASSWORD.sub(rf"\g<before>:{MASK}@", text)
    text = _QUERY.sub(rf"\g<before>{MASK}", text)
    return _HEADER.sub(rf"\g<name>: {MASK}", text)


def _announces_secret(program: str, argument: str) -> bool:
    """Whether the word after this one is the secret."""
    if argument in _USER_OPTIONS and program == "curl":
        return True
    programs = _FOLLOWING.get(argument)
    if programs is not None and programs.fullmatch(program):
        return True
    return argument.startswith("-") and "=" not in argument and len(argument) > 2 and _is_secret_name(argument)


def _is_secret_name(name: str) -> bool:
    """Whether one word of the name, or two together ("api-key", "apiKey"), say so, and its end does not deny it."""
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words or _PLACE.match(words[-1]):
        return False
    pairs = [f"{first}_{second}" for first, second in itertools.pairwise(words)]
    return any(_OPTION.fullmatch(word) for word in [*words, *pairs])
