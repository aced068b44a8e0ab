"""The closed list of native commands: functions of the agent itself, no process, no shell, nothing to inject into.

    @native("file_stat", limit_s=10)
    def file_stat(context: NativeContext, *, path: str) -> FileStat: ...

The annotated keyword arguments are the parameters of the command, checked before the call. A plain function may block
and runs in a thread of its own; a coroutine runs in the event loop. What is returned is the result: a TypedDict or a
list of them, from which also the page `docs/native-commands.md` is made.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import threading
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from opsmap_agent.checks.probes import Prober
from opsmap_agent.commands.refusals import RejectedError
from opsmap_agent.configuration import NativeCommands
from opsmap_agent.jobs.folder import JobFolder
from opsmap_agent.journal.journal import Journal
from opsmap_agent.native.blocking import BlockingCalls, NoThreadError
from opsmap_agent.native.bounds import Cut
from opsmap_protocol import codec
from opsmap_protocol.errors import MalformedMessageError

NativeFunction = TypeVar("NativeFunction", bound=Callable[..., Any])


class NativeCommandError(Exception):
    """The command ran and its answer is no: no such process, no such file. The message goes to the person.

    `result` is what it has to tell all the same, in the form of its result.
    """

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True, slots=True)
class NativeContext:
    """What native commands may use of the agent."""

    prober: Prober
    journal: Journal
    folder_of: Callable[[str], JobFolder]
    """The job folder of a request."""
    private_paths: tuple[str, ...] = ()
    """Files and folders of the agent that no command reads: its key, its journal."""
    blocking: BlockingCalls = field(default_factory=BlockingCalls)
    """Where what may hang is done; plain functions are there already."""
    is_abandoned: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for this call any more: whoever works through much looks at it now and then."""


@dataclass(frozen=True, slots=True)
class NativeCommand:
    """An entry of the registry. `switches` are the keys under `native_commands` that must all be on."""

    name: str
    function: Callable[..., Any]
    parameters: type
    """A dataclass made of the function's keyword arguments."""
    switches: tuple[str, ...]
    limit_s: float
    changes_host: bool
    """Whether it does more than look."""


@dataclass(frozen=True, slots=True)
class NativeAnswer:
    """`remark` says what the result leaves out; None if it is whole."""

    result: Any
    remark: str | None = None


_registry: dict[str, NativeCommand] = {}


def native(
    name: str, *, limit_s: float = 10.0, switches: tuple[str, ...] | None = None, changes_host: bool = False
) -> Callable[[NativeFunction], NativeFunction]:
    """Registers a function as the native command `name`, whose answer nobody waits for longer than `limit_s`.

    `switches` are the keys under `native_commands` that can switch it off: `name` if not given; none if empty. One that
    does not change the host may look twice: after a crash before its answer was written, it is asked again.
    """

    def register(function: NativeFunction) -> NativeFunction:
        keys = (name,) if switches is None else switches
        _registry[name] = NativeCommand(name, function, _parameters(name, function), keys, limit_s, changes_host)
        return function

    return register


def native_commands() -> list[NativeCommand]:
    """All of them, by name."""
    return [_registry[name] for name in sorted(_registry)]


def only_looks(name: str) -> bool:
    """Whether there is such a command, and it does not change the host."""
    return name in _registry and not _registry[name].changes_host


class Natives:
    """The native commands of one agent. `disabled` gives those that OpsMap has switched off besides."""

    def __init__(
        self,
        context: NativeContext,
        switches: NativeCommands,
        disabled: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self._context = context
        self._switches = switches
        self._disabled = disabled

    async def run(self, name: str, params: dict[str, Any], limit_s: float) -> NativeAnswer:
        """The answer of a native command, within `limit_s` and its own limit.

        Raises:
            RejectedError: unknown, switched off, or wrong parameters.
            NativeCommandError: it ran and says no, or it did not answer in time.
        """
        command = self._find(name)
        arguments = _arguments(command, params)
        limit_s = min(limit_s, command.limit_s)
        context = dataclasses.replace(self._context, is_abandoned=threading.Event())
        try:
            async with asyncio.timeout(limit_s):
                result = await self._call(command, functools.partial(command.function, context, **arguments))
        except TimeoutError:
            raise NativeCommandError(f"no answer within {limit_s:g} s") from None
        except NoThreadError as error:
            raise NativeCommandError(str(error)) from None
        finally:
            context.is_abandoned.set()
        return NativeAnswer(result.entries, result.remark) if isinstance(result, Cut) else NativeAnswer(result)

    def offered(self) -> list[str]:
        """The names of those that are not switched off."""
        disabled = self._disabled()
        return [
            command.name
            for command in native_commands()
            if command.name not in disabled and all(getattr(self._switches, switch) for switch in command.switches)
        ]

    def _find(self, name: str) -> NativeCommand:
        command = _registry.get(name)
        if command is None:
            raise RejectedError(f"this agent has no native command {name[:80]!r}")
        if name in self._disabled():
            raise RejectedError(f"native command {name!r} is switched off by what OpsMap has set on this agent")
        for switch in command.switches:
            if not getattr(self._switches, switch):
                key = "native_commands" if switch == name else f"native_commands.{switch}"
                raise RejectedError(f"native command {name!r} is switched off in {key}")
        return command

    async def _call(self, command: NativeCommand, call: Callable[[], Any]) -> Any:
        if inspect.iscoroutinefunction(command.function):
            answer: Awaitable[Any] = call()
            return await answer
        return await self._context.blocking.run(command.name, call)


def _parameters(name: str, function: Callable[..., Any]) -> type:
    hints = typing.get_type_hints(function)
    fields: list[Any] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            has_default = parameter.default is not parameter.empty
            default = dataclasses.field(default=parameter.default) if has_default else dataclasses.field()
            fields.append((parameter.name, hints[parameter.name], default))
    return dataclasses.make_dataclass(f"{name}_parameters", fields)


def _arguments(command: NativeCommand, params: dict[str, Any]) -> dict[str, Any]:
    known = [field.name for field in dataclasses.fields(command.parameters)]
    unknown = sorted(set(params) - set(known))
    if unknown:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise RejectedError(f"native command {command.name!r} has no parameter {unknown[0][:80]!r}; {takes}")
    try:
        values = codec.build(command.parameters, params)
    except MalformedMessageError as error:
        raise RejectedError(f"native command {command.name!r}: {error}") from None
    return {field: getattr(values, field) for field in known}
