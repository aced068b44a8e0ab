"""`docs/native-commands.md`: what agents can do by themselves, from the functions that do it."""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Iterator
from typing import Any

from opsmap_agent.configuration import NativeCommands
from opsmap_agent.native import NativeCommand, native_commands

_INTRODUCTION = """
# Native commands

What an agent does by itself when a command `{"type": "native", "name": …, "params": …}` asks for it: functions of the
agent, with no shell and no other program, so there is nothing to inject into. A name, a parameter or a type that is not
on this page is refused.

- **Switches.** Each command has its key under `native_commands` in `agent.yaml`; what is off is refused with the name
  of the key. All are on but `process_kill`. Keys that the reference does not have are marked *added*.
- **Time.** Each command has a limit; the shorter of it and that of the command counts. What hangs in the kernel, as a
  look at a dead network file system, is left behind: nobody else waits for it, and of one command at most 3 may hang.
- **Size.** Lists end after 5,000 entries or about 1 MiB. What is left out is said in the `error` of the result, which
  is successful all the same.
- **Secrets** in command lines, environments and URLs are masked as far as they can be told from other text. That is a
  net, no promise: who may use these commands may see much of the host.
- **Failure.** A command that finds that the answer is no (no such file, no such process) ends as `failed` with the
  reason in `error`. One that may not be run at all ends as `rejected`.
- **What is private.** No command reads the agent's own key and journal, nor memory and environment of processes by
  their files in `/proc`.

`?` after a type: null if it is not known, or not to be seen by the agent's user.
""".strip()

_TOPICS = {
    "system": "System",
    "network": "Network",
    "processes": "Processes",
    "process_kill": "Processes",
    "services": "Services",
    "files": "Files",
    "folders": "Files",
    "discovery": "Discovery",
    "job_logs": "Jobs",
}
_ADDED_SWITCHES = frozenset({"process_find", "process_kill", "service_list", "dir_list"})
_WORDS = {"str": "text", "int": "integer", "float": "number", "bool": "true or false", "Any": "any"}


def natives_page() -> str:
    """The page but for its first line, which says where it comes from."""
    commands = native_commands()
    blocks = [_INTRODUCTION, *_overview(commands)]
    for title in dict.fromkeys(_TOPICS.values()):
        blocks.append(f"## {title}")
        blocks += [_described(command) for command in commands if _topic(command) == title]
    return "\n\n".join(blocks) + "\n"


def _overview(commands: list[NativeCommand]) -> Iterator[str]:
    defaults = {field.name: field.default for field in dataclasses.fields(NativeCommands)}
    rows = []
    for title in dict.fromkeys(_TOPICS.values()):
        for command in commands:
            if _topic(command) == title:
                keys = [_switch(key, bool(defaults[key])) for key in command.switches]
                rows.append(
                    f"| [`{command.name}`](#{command.name}) | {' and '.join(keys) or 'none'} | {command.limit_s:g} s |"
                )
    yield "\n".join(["| command | switches | limit |", "| --- | --- | --- |", *rows])


def _switch(key: str, is_on: bool) -> str:
    remarks = [*(["added"] if key in _ADDED_SWITCHES else []), *([] if is_on else ["off by default"])]
    return f"`{key}`" + (f" ({', '.join(remarks)})" if remarks else "")


def _topic(command: NativeCommand) -> str:
    return _TOPICS[command.function.__module__.rpartition(".")[2]]


def _described(command: NativeCommand) -> str:
    doc = inspect.cleandoc(command.function.__doc__ or "")
    return "\n\n".join([f"### {command.name}", doc, _parameters(command), _result(command)])


def _parameters(command: NativeCommand) -> str:
    fields = dataclasses.fields(command.parameters)
    if not fields:
        return "No parameters."
    rows = [f"| `{field.name}` | {_words(field.type)} | {_default(field)} |" for field in fields]
    return "\n".join(["| parameter | type | default |", "| --- | --- | --- |", *rows])


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return "required"
    return "absent" if field.default is None else f"`{json.dumps(field.default)}`"


def _result(command: NativeCommand) -> str:
    hint = _without_cut(typing.get_type_hints(command.function)["return"])
    is_list = typing.get_origin(hint) is list
    (entry,) = typing.get_args(hint) if is_list else (hint,)
    rows = [f"| `{name}` | {_words(each)} |" for name, each in typing.get_type_hints(entry).items()]
    title = "a list of" if is_list else "result"
    return "\n".join([f"| {title} | |", "| --- | --- |", *rows])


def _without_cut(hint: Any) -> Any:
    """`list[X] | Cut[X]` is a list: that it was cut is told beside it."""
    lists = [each for each in typing.get_args(hint) if typing.get_origin(each) is list]
    return lists[0] if lists and typing.get_origin(hint) is not list else hint


def _words(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        words = " or ".join(_words(each) for each in typing.get_args(hint) if each is not type(None))
        return f"{words}?" if type(None) in typing.get_args(hint) else words
    if typing.get_origin(hint) is list:
        return f"list of {_words(typing.get_args(hint)[0])}"
    if typing.get_origin(hint) is dict:
        return f"object of {_words(typing.get_args(hint)[1])}"
    if typing.is_typeddict(hint):
        inner = ", ".join(f"`{name}` {_words(each)}" for name, each in typing.get_type_hints(hint).items())
        return f"{{{inner}}}"
    return _WORDS.get(hint.__name__, str(hint.__name__))
