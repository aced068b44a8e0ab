"""What agent and gateway share when they get their first certificate: where the token comes from, what comes of it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from opsmap_daemon import tls
from opsmap_daemon.files import write_whole
from opsmap_daemon.pair import Pair
from opsmap_protocol.enums import PeerRole
from opsmap_protocol.errors import InvalidIdentityError
from opsmap_protocol.identity import Identity, identity_of_peer, parse_identity
from opsmap_trust.enrolment_tokens import EnrolmentTokenError, EnrolmentTokenText

TOKEN_VARIABLE = "OPSMAP_ENROLMENT_TOKEN"  # noqa: S105 - a name
_STANDARD_INPUT = "-"
_MAX_TOKEN_FILE_BYTES = 4096

EXIT_FAILURE = 1
EXIT_TRY_AGAIN = 75
EXIT_REFUSED = 77
"""EX_TEMPFAIL and EX_NOPERM of sysexits.h: a script may repeat the one, and not the other."""

_PASSING_CODES = {"try_again", "too_many_attempts", "too_many_refusals", "unavailable"}
_AUTHORITY_MODE = 0o644


class EnrolmentError(Exception):
    """There is no certificate. The message is for people and does not repeat the token."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def refusal(code: str, reason: str) -> EnrolmentError:
    """What the other side says."""
    exit_code = EXIT_TRY_AGAIN if code in _PASSING_CODES else EXIT_REFUSED
    return EnrolmentError(f"refused: {reason[:500]} ({code[:80]})", exit_code)


def add_token_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--token-file", metavar="FILE", help="the file with the enrolment token; - is standard input")
    group.add_argument("--token", help="the enrolment token itself; other users of this host can see it, better do not")
    parser.epilog = f"Without either, the token is taken from the environment variable {TOKEN_VARIABLE}."


def read_token(options: argparse.Namespace) -> tuple[EnrolmentTokenText, str]:
    """The token, and its text as it is shown to the backend. Raises EnrolmentError."""
    text = _token_text(options).strip()
    try:
        return EnrolmentTokenText.parse(text), text
    except EnrolmentTokenError as error:
        raise EnrolmentError(str(error)) from None


def _token_text(options: argparse.Namespace) -> str:
    if options.token is not None:
        print("warning: --token shows the token to every user of this host; use --token-file", file=sys.stderr)
        return str(options.token)
    if options.token_file == _STANDARD_INPUT:
        return sys.stdin.read(_MAX_TOKEN_FILE_BYTES)
    if options.token_file is not None:
        path = Path(options.token_file)
        try:
            with path.open(encoding="ascii", errors="replace") as stream:
                return stream.read(_MAX_TOKEN_FILE_BYTES)
        except OSError as error:
            raise EnrolmentError(f"{path}: cannot be read: {error.strerror}") from None
    if TOKEN_VARIABLE in os.environ:
        return os.environ[TOKEN_VARIABLE]
    raise EnrolmentError(f"no enrolment token: give --token-file, or set {TOKEN_VARIABLE}")


@dataclass(frozen=True)
class Place:
    """The files that enrolment fills. `authorities` are the files by what the backend calls their content."""

    pair: Pair
    root: Path
    authorities: dict[str, Path]

    def fill(self, *, root: str, authorities: dict[str, str], chain: str, key: str) -> None:
        """Write all of it (PEM), the pair last: with it the host is enrolled. Raises OSError."""
        for path in (self.pair.cert, self.pair.key, self.root, *self.authorities.values()):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(self.root, root, _AUTHORITY_MODE)
        for name, path in self.authorities.items():
            write_whole(path, authorities[name], _AUTHORITY_MODE)
        self.pair.replace(chain, key)


def identity_in(pair: Pair, role: PeerRole) -> Identity | None:
    """Whose working certificate is there already: the key fits, and it is valid now."""
    side: Literal["server", "client"] = "client"
    try:
        return identity_of_peer(tls.own_certificate(pair.cert, pair.key, side), role)
    except (tls.TlsError, InvalidIdentityError):
        return None


def finished_before(pair: Pair, role: PeerRole, *, is_new: bool, is_forced: bool) -> Identity | None:
    """Whom an earlier, interrupted attempt has enrolled here: nothing is left to do but what follows the certificate.

    Args:
        is_new: there is no configuration file yet, so a certificate can only be from such an attempt.

    Raises:
        EnrolmentError: a working identity is there, and nobody said that it is to be replaced.
    """
    has_recovered = pair.recover()
    identity = identity_in(pair, role)
    if identity is None or is_forced:
        return None
    if not has_recovered and not is_new:
        raise EnrolmentError(f"{pair.cert}: this is {role} {identity.name} already; --force replaces that")
    return identity


def check_name(name: str, role: PeerRole) -> str:
    """The name if it can be one of an agent or gateway. Raises EnrolmentError."""
    try:
        parse_identity(Identity("0" * 8 + "-0000-0000-0000-" + "0" * 12, role, name).uri)
    except InvalidIdentityError:
        expected = "letters, digits, '.', '_' and '-', at most 127, the first one a letter or digit"
        raise EnrolmentError(f"{name[:130]!r} cannot be the name of an {role}: {expected}") from None
    return name


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """What goes wrong with files is told like every other failure. Raises EnrolmentError."""
    try:
        yield
    except InvalidIdentityError as error:
        raise EnrolmentError(str(error)) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise EnrolmentError(f"{where}{error.strerror or error}") from None


def add_common_arguments(parser: argparse.ArgumentParser, configuration: Path) -> None:
    add_token_arguments(parser)
    parser.add_argument("--force", action="store_true", help="replace a certificate that still works")
    parser.add_argument(
        "--config",
        type=Path,
        default=configuration,
        metavar="FILE",
        help="the configuration file, which says where certificates are; made if there is none (default: %(default)s)",
    )


def as_yaml(value: dict[str, Any], indent: str = "") -> str:
    """A minimal configuration file: nested keys, texts in quotes."""
    lines = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines.append(f"{indent}{key}:\n{as_yaml(item, indent + '  ')}")
        else:
            escaped = str(item).replace("\\", "\\\\").replace('"', '\\"')
            shown = str(item).lower() if isinstance(item, bool) else f'"{escaped}"'
            lines.append(f"{indent}{key}: {shown}\n")
    return "".join(lines)
