"""Questions about keys and certificates, answered by a short-lived child process.

Daemons must not load what it takes (OpenSSL's binding, 9 MB), nor parse in their own process what a peer sent. Here are
the questions and the shapes of the answers; `answers.py`, which only the child imports, has the work.

python -m opsmap_trust.answers   < one question as JSON   > one answer as JSON
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from opsmap_protocol.errors import InvalidIdentityError
from opsmap_trust.children import child_command

_TIMEOUT_S = 20.0

KeyKind = Literal["ed25519", "p256"]


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key made here (PKCS #8, PEM), and the request for its certificate (PKCS #10, DER in base64)."""

    key: str
    request: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A certificate chain that fits; `authorities` are what was asked about, by name. All of it PEM."""

    chain: str
    uri: str
    authorities: dict[str, str]
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class RevocationList:
    """What a CRL says: `authority` is its issuer's key (SHA-256 in hexadecimal), `serials` in hexadecimal."""

    authority: str
    number: int
    serials: frozenset[str]


async def make_key(kind: KeyKind) -> NewKey:
    """A new key; agents have Ed25519 ones, which also seal. Raises OSError, InvalidIdentityError."""
    return NewKey(**await _ask({"question": "make_key", "kind": kind}))


async def accept_chain(
    *,
    chain: Sequence[str],
    key: str,
    uri: str | None,
    root: Path | None,
    authorities: Mapping[str, Sequence[str]],
) -> Accepted:
    """Look into a certificate that was issued for `key`, and into the authorities that came with it.

    Args:
        chain: DER in base64, our own first, then its issuer.
        uri: whom the certificate has to name; None if whoever it names is to be looked at later.
        root: a PEM file; everything has to be below it. Without one, `authorities` has to be empty.

    Raises:
        InvalidIdentityError: something does not fit; the message says what.
        OSError: the child cannot be started.
    """
    answer = await _ask(
        {
            "question": "accept_chain",
            "chain": list(chain),
            "key": key,
            "uri": uri,
            "root": None if root is None else str(root),
            "authorities": {name: list(each) for name, each in authorities.items()},
        }
    )
    return Accepted(
        chain=answer["chain"],
        uri=answer["uri"],
        authorities=answer["authorities"],
        not_before=datetime.fromisoformat(answer["not_before"]),
        not_after=datetime.fromisoformat(answer["not_after"]),
    )


async def check_authorities(*, root: Path, named: str, authorities: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The authorities as PEM, by name, if each is below the root.

    Args:
        root: the PEM file of the root that we know.
        named: the root that the peer names (DER in base64), which has to be the same.

    Raises:
        InvalidIdentityError, OSError: as `accept_chain`.
    """
    question = {name: list(each) for name, each in authorities.items()}
    answer = await _ask({"question": "check_authorities", "root": str(root), "named": named, "authorities": question})
    found: dict[str, str] = answer["authorities"]
    return found


async def inspect_revocations(crl: str, authorities: Path) -> RevocationList:
    """What a CRL (DER in base64) says, if one of the authorities in the PEM file signed it.

    Raises:
        InvalidIdentityError, OSError: as `accept_chain`.
    """
    answer = await _ask({"question": "inspect_revocations", "crl": crl, "authorities": str(authorities)})
    return RevocationList(answer["authority"], answer["number"], frozenset(answer["serials"]))


async def _ask(question: dict[str, Any]) -> dict[str, Any]:
    answer = json.loads(await run_apart("opsmap_trust.answers", (), json.dumps(question).encode()))
    if "error" in answer:
        raise InvalidIdentityError(answer["error"])
    found: dict[str, Any] = answer
    return found


async def run_apart(module: str, arguments: Sequence[str], lines: bytes) -> str:
    """The output of a module run as a program with `lines` as its input.

    Raises:
        OSError: the child cannot be started.
        InvalidIdentityError: it failed or took too long; with the last line of its complaint.
    """
    child = await asyncio.create_subprocess_exec(
        *child_command(module, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            answer, complaint = await child.communicate(lines)
    except TimeoutError:
        raise InvalidIdentityError(f"looking into the certificates took more than {_TIMEOUT_S:g} s") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != 0:
        last = complaint.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
        raise InvalidIdentityError(f"the certificates could not be looked into: {last[0]}")
    return answer.decode("ascii")
