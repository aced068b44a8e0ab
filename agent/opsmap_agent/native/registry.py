"""The closed list of native commands: functions of the agent itself, no process, no shell, nothing to inject into.

    @native("file_stat")
    def file_stat(context: NativeContext, *, path: str) -> dict[str, Any]: ...

The annotated keyword arguments are the parameters of the command, checked before the call. A plain function may block
and runs in a thread; a coroutine runs in the event loop. What is returned is the result.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from opsmap_agent.configuration import NativeCommands
from opsmap_agent.jobfolder import JobFolder
from opsmap_agent.journal import Journal
from opsmap_agent.probes import Prober
from opsmap_agent.refusals import RejectedError
from opsmap_protocol import codec
from opsmap_protocol.errors import MalformedMessageError

NativeFunction = TypeVar("NativeFunction", bound=Callable[..., Any])


class NativeCommandError(Exception):
    """The command ran and its answer is no: no such process, no such file. The message goes to the person."""


@dataclass(frozen=True, slots=True)
class NativeContext:
    """What native commands may use of the agent."""

    prober: Prober
    journal: Journal
    folder_of: Callable[[str], JobFolder]
    """The job folder of a request."""


@dataclass(frozen=True, slots=True)
class _Entry:
    function: Callable[..., Any]
    parameters: type
    """A dataclass made of the function's keyword arguments."""
    switch: str | None


_registry: dict[str, _Entry] = {}


def native(name: str, *, switch: str | None = "") -> Callable[[NativeFunction], NativeFunction]:
    """Registers a function as the native command `name`.

    `switch` is the key under `native_commands` that can switch it off: `name` if not given; None if nothing does.
    """

    def register(function: NativeFunction) -> NativeFunction:
        _registry[name] = _Entry(function, _parameters(name, function), name if switch == "" else switch)
        return function

    return register


def native_names() -> list[str]:
    return sorted(_registry)


async def run_native(
    name: str, params: dict[str, Any], context: NativeContext, switches: NativeCommands, executor: Executor
) -> Any:
    """The result of a native command.

    Raises:
        RejectedError: unknown, switched off, or wrong parameters.
        NativeCommandError: it ran and says no.
    """
    entry = _registry.get(name)
    if entry is None:
        raise RejectedError(f"this agent has no native command {name[:80]!r}")
    if entry.switch is not None and not getattr(switches, entry.switch):
        raise RejectedError(f"native command {name!r} is switched off in native_commands")
    call = functools.partial(entry.function, context, **_arguments(name, entry, params))
    if inspect.iscoroutinefunction(entry.function):
        return await call()
    return await asyncio.get_running_loop().run_in_executor(executor, call)


def _parameters(name: str, function: Callable[..., Any]) -> type:
    hints = typing.get_type_hints(function)
    fields: list[Any] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            has_default = parameter.default is not parameter.empty
            default = dataclasses.field(default=parameter.default) if has_default else dataclasses.field()
            fields.append((parameter.name, hints[parameter.name], default))
    return dataclasses.make_dataclass(f"{name}_parameters", fields)


def _arguments(name: str, entry: _Entry, params: dict[str, Any]) -> dict[str, Any]:
    known = [field.name for field in dataclasses.fields(entry.parameters)]
    unknown = sorted(set(params) - set(known))
    if unknown:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise RejectedError(f"native command {name!r} has no parameter {unknown[0][:80]!r}; {takes}")
    try:
        values = codec.build(entry.parameters, params)
    except MalformedMessageError as error:
        raise RejectedError(f"native command {name!r}: {error}") from None
    return {field: getattr(values, field) for field in known}
