"""Choosing components by their labels: `team=trading,tier!=web`.

A query is one or more conditions, separated by commas, all of which must hold:

    team=trading            has the label team, and it is trading
    tier!=web               has no label tier, or it is another
    tier in (web, cache)    has the label, and it is one of these
    tier notin (web)        has no such label, or it is none of these
    team                    has the label, whatever it is
    !team                   has no such label

As in Kubernetes' label selectors, which many know. Blanks around names and signs do not matter. Keys and values are
what labels may be: letters, digits, `.`, `_`, `-`, `/`; anything else stands in double quotes: `team="night, shift"`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

MAX_QUERY_LENGTH = 1000
MAX_CONDITIONS = 20
MAX_VALUES = 100

_TOKEN = re.compile(r'\s*(?:(?P<word>[\w./:-]+)|"(?P<quoted>[^"]*)"|(?P<sign>!=|==|[=!,()]))')


class LabelQueryError(ValueError):
    """A query that cannot be read; the message says where and what was expected."""


class Operator(StrEnum):
    IN = "in"
    NOT_IN = "notin"
    HAS = "has"
    HAS_NOT = "has not"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label; `values` are empty for HAS and HAS_NOT."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def fits(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value in self.values
            case Operator.NOT_IN:
                return value not in self.values
            case Operator.HAS:
                return value is not None
        return value is None


@dataclass(frozen=True, slots=True)
class LabelQuery:
    requirements: tuple[Requirement, ...]

    def fits(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.fits(labels) for requirement in self.requirements)


def read_label_query(text: str) -> LabelQuery:
    """Raises LabelQueryError."""
    if len(text) > MAX_QUERY_LENGTH:
        raise LabelQueryError(f"A label query has at most {MAX_QUERY_LENGTH} characters, this one {len(text)}.")
    return _Reader(text).read()


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    at: int
    is_name: bool


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._next = 0

    def read(self) -> LabelQuery:
        requirements = [self._requirement()]
        while self._taken(","):
            requirements.append(self._requirement())
            if len(requirements) > MAX_CONDITIONS:
                raise LabelQueryError(f"A label query has at most {MAX_CONDITIONS} conditions.")
        if self._next < len(self._tokens):
            raise self._error("a comma or the end")
        return LabelQuery(tuple(requirements))

    def _split(self) -> list[_Token]:
        tokens, at = [], 0
        while self._text[at:].strip():
            match = _TOKEN.match(self._text, at)
            if match is None:
                at += len(self._text[at:]) - len(self._text[at:].lstrip())
                raise LabelQueryError(
                    f"The label query has {self._text[at]!r} at character {at + 1}, which only fits between "
                    'double quotes: key="value".'
                )
            kind = match.lastgroup
            assert kind is not None
            tokens.append(_Token(match[kind], match.start(kind), kind != "sign"))
            at = match.end()
        return tokens

    def _requirement(self) -> Requirement:
        if self._taken("!"):
            return Requirement(self._name("the name of a label"), Operator.HAS_NOT)
        key = self._name("the name of a label")
        if self._taken("=") or self._taken("=="):
            return Requirement(key, Operator.IN, frozenset([self._name("a value")]))
        if self._taken("!="):
            return Requirement(key, Operator.NOT_IN, frozenset([self._name("a value")]))
        for operator in (Operator.IN, Operator.NOT_IN):
            if self._taken(operator, is_name=True):
                return Requirement(key, operator, self._values())
        return Requirement(key, Operator.HAS)

    def _values(self) -> frozenset[str]:
        if not self._taken("("):
            raise self._error("a list such as (web, cache)")
        values = {self._name("a value")}
        while self._taken(","):
            values.add(self._name("a value"))
            if len(values) > MAX_VALUES:
                raise LabelQueryError(f"A list in a label query has at most {MAX_VALUES} values.")
        if not self._taken(")"):
            raise self._error("a comma or )")
        return frozenset(values)

    def _taken(self, text: str, *, is_name: bool = False) -> bool:
        token = self._tokens[self._next] if self._next < len(self._tokens) else None
        if token is None or (token.text, token.is_name) != (text, is_name):
            return False
        self._next += 1
        return True

    def _name(self, expected: str) -> str:
        if self._next == len(self._tokens) or not self._tokens[self._next].is_name:
            raise self._error(expected)
        self._next += 1
        return self._tokens[self._next - 1].text

    def _error(self, expected: str) -> LabelQueryError:
        if self._next == len(self._tokens):
            return LabelQueryError(f"The label query ends where {expected} should be.")
        token = self._tokens[self._next]
        return LabelQueryError(
            f"The label query has {token.text!r} at character {token.at + 1}, where {expected} should be."
        )
