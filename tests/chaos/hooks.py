"""Steps in running processes: named functions of the product are wrapped, so that the product has no test code in it.

A step is *where* in a function: as it is entered, as it returns, or around the commit of the transaction it runs in.
A function that is not there any more is an error when the process starts: a chaos run that tests nothing must not pass.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_OURS = ("apps.", "opsmap.", "opsmap_agent.", "opsmap_gateway.", "opsmap_daemon.", "opsmap_trust.", "__main__")

Reach = Callable[[str], None]


class Where(StrEnum):
    ENTER = "enter"
    RETURN = "return"
    BEFORE_COMMIT = "before_commit"
    AFTER_COMMIT = "after_commit"


_AROUND_COMMIT = (Where.BEFORE_COMMIT, Where.AFTER_COMMIT)


@dataclass(frozen=True, slots=True)
class Step:
    """`target` is "module:attribute" or "module:Class.method". `applies` looks at the arguments of the call."""

    name: str
    role: str
    target: str
    where: Where
    applies: Callable[..., bool] = lambda *_args, **_kwargs: True


class TargetMissingError(Exception):
    """The table of steps names something that the product no longer has."""


def install(steps: Iterable[Step], reach: Reach) -> None:
    """Wrap the targets of all `steps` in this process; `reach` is called at each.

    Raises:
        TargetMissingError: a target does not exist.
    """
    by_target: dict[str, list[Step]] = {}
    for step in steps:
        by_target.setdefault(step.target, []).append(step)
    for target, those in by_target.items():
        replace(target, functools.partial(_wrapped, those, reach))


def replace(target: str, make: Callable[[Any], Any]) -> None:
    """Put `make(original)` in the place of a function or method, wherever it has been imported to.

    Raises:
        TargetMissingError: it does not exist.
    """
    owner, name = _find(target)
    original = inspect.getattr_static(owner, name)
    if isinstance(original, (classmethod, staticmethod)):
        replacement: Any = type(original)(make(original.__func__))
    else:
        replacement = make(original)
    setattr(owner, name, replacement)
    if inspect.ismodule(owner):
        _replace_imports(name, original, replacement)


def _replace_imports(name: str, original: Any, replacement: Any) -> None:
    """`from x import f` made copies of the name before we came."""
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith(_OURS) and getattr(module, name, None) is original:
            setattr(module, name, replacement)


def _find(target: str) -> tuple[Any, str]:
    module_name, _, path = target.partition(":")
    *parents, name = path.split(".")
    try:
        owner: Any = importlib.import_module(module_name)
        for parent in parents:
            owner = getattr(owner, parent)
        getattr(owner, name)
    except (ImportError, AttributeError) as error:
        raise TargetMissingError(f"{target}: {error}") from error
    return owner, name


def _wrapped(steps: Sequence[Step], reach: Reach, original: Callable[..., Any]) -> Callable[..., Any]:
    @contextmanager
    def around(*args: Any, **kwargs: Any) -> Iterator[None]:
        present = [step for step in steps if step.applies(*args, **kwargs)]
        _reach_all(present, Where.ENTER, reach)
        with _commits.watched_for(present, reach):
            yield
        _reach_all(present, Where.RETURN, reach)

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            # A commit happens in a thread of its own: steps around it belong on the function that runs there.
            with around(*args, **kwargs):
                return await original(*args, **kwargs)
    else:

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with around(*args, **kwargs):
                return original(*args, **kwargs)

    return wrapper


def _reach_all(steps: Iterable[Step], where: Where, reach: Reach) -> None:
    for step in steps:
        if step.where is where:
            reach(step.name)


class _Commits(threading.local):
    """The steps around the commit of the transaction that this thread is in."""

    def __init__(self) -> None:
        self.steps: list[tuple[Step, Reach]] = []

    @contextmanager
    def watched_for(self, steps: Iterable[Step], reach: Reach) -> Iterator[None]:
        before = self.steps
        self.steps = [*before, *((step, reach) for step in steps if step.where in _AROUND_COMMIT)]
        try:
            yield
        finally:
            self.steps = before

    def reach(self, where: Where) -> None:
        for step, reach in self.steps:
            if step.where is where:
                reach(step.name)

    def add(self, steps: Iterable[Step], reach: Reach) -> None:
        """For a transaction that is put together from several pieces of work: watched until `clear`."""
        self.steps = [*self.steps, *((step, reach) for step in steps if step.where in _AROUND_COMMIT)]

    def clear(self) -> None:
        self.steps = []


_commits = _Commits()


def watch_database_commits() -> None:
    """Have Django's commits reach the steps around them."""

    def make(commit: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(commit)
        def watched(connection: Any) -> None:
            _commits.reach(Where.BEFORE_COMMIT)
            commit(connection)
            _commits.reach(Where.AFTER_COMMIT)

        return watched

    replace("django.db.backends.base.base:BaseDatabaseWrapper._commit", make)


def watch_journal_commits(reach: Reach, steps: Iterable[Step]) -> None:
    """Have the agent's journal reach the steps around its commits.

    Its thread runs pieces of work inside one transaction and commits them together: a piece that matters adds its
    steps, and the commit that follows passes them.
    """
    around = [step for step in steps if step.where in _AROUND_COMMIT]
    by_target: dict[str, list[Step]] = {}
    for step in around:
        by_target.setdefault(step.target, []).append(step)
    for target, those in by_target.items():
        replace(target, functools.partial(_adding, those, reach))

    def make(commit: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(commit)
        def watched(connection: Any, group: Any) -> None:
            try:
                commit(_WatchedConnection(connection), group)
            finally:
                _commits.clear()

        return watched

    replace("opsmap_agent.journal.committer:_commit", make)


def _adding(steps: Sequence[Step], reach: Reach, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        _commits.add([step for step in steps if step.applies(*args, **kwargs)], reach)
        return original(*args, **kwargs)

    return wrapper


class _WatchedConnection:
    """A SQLite connection whose COMMIT passes the steps around it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *args: Any) -> Any:
        if statement != "COMMIT":
            return self._connection.execute(statement, *args)
        _commits.reach(Where.BEFORE_COMMIT)
        result = self._connection.execute(statement, *args)
        _commits.reach(Where.AFTER_COMMIT)
        return result
