"""What collectors return, and how the words of a host become harmless.

Names of processes, containers and mounts are chosen by whoever may start one. They are shown to people and written to
logs elsewhere, so nothing in them may be more than text: no control characters, no terminal escapes, no novels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MAX_TEXT = 256
MAX_COMMAND_LINE = 1024
_MAX_KEY = 200
_REPLACEMENT = "\ufffd"

Finding = dict[str, Any]
"""One thing found. Its `key` is its own within the kind, and the same as long as it is the same thing."""


class NotAvailableError(Exception):
    """A kind cannot be looked at on this host. The message says why, to a person."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a collector found; `fault` says what it could not see of the rest."""

    findings: list[Finding]
    fault: str | None = None


def clean(text: str, max_characters: int = MAX_TEXT) -> str:
    """The text without what is not printable, and cut."""
    cut = text[: max_characters + 1]
    if not cut.isprintable():
        cut = "".join(character if character.isprintable() else _REPLACEMENT for character in cut)
    return cut if len(cut) <= max_characters else f"{cut[: max_characters - 1]}…"


def key_of(*parts: object) -> str:
    """A key made of parts. One that would be too long ends in a digest, and stays its own."""
    whole = ":".join(str(part) for part in parts)
    text = clean(whole, len(whole))
    if text == whole and len(text) <= _MAX_KEY:
        return text
    return f"{text[:_MAX_KEY]}#{hashlib.blake2b(whole.encode('utf-8', 'surrogatepass'), digest_size=6).hexdigest()}"


def without_nulls(**facts: Any) -> Finding:
    """A finding of those facts that are known."""
    return {name: fact for name, fact in facts.items() if fact is not None and fact != []}


def cut_to(findings: Iterable[Finding], max_findings: int, what: str) -> Found:
    """The first in order of their keys: the same ones each time, so that a crowded host does not seem to change."""
    in_order = sorted(findings, key=lambda each: str(each["key"]))
    if len(in_order) <= max_findings:
        return Found(in_order)
    return Found(in_order[:max_findings], f"only {max_findings} of {len(in_order)} {what} are told")
