"""docs/protocol.md: every message as its type says it, with the golden example that all implementations are held to."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import opsmap_protocol
from opsmap_protocol import checks, errors, identity, messages, session, specs

GOLDEN = Path(__file__).resolve().parent.parent / "agent" / "tests" / "golden" / "messages.json"

_INTRODUCTION = f"""
# The wire protocol

Between an agent and its gateway, and between a gateway and the backend, there is one WebSocket over mutual TLS,
dialled from below. A **frame** is one text message: one JSON object with a `type`. This page is what an
implementation in another language needs; `agent/opsmap_protocol` is the implementation in Python, [record
7](adr/0007-seals.md) and [record 8](adr/0008-two-sessions.md) say why.

- Unknown fields are ignored. An unknown `type` is answered with `error`, code `unknown_message`, and the session
  goes on.
- `null` and absent mean the same, but for a seal, which covers what was written.
- Times are ISO 8601 with an offset, of the years 1970 to 9998; they are written in UTC.
- Refused as malformed, where JSON's readers disagree or choke: a name twice in one object, `NaN` and `Infinity`, a
  number too large for a double, an integer of more than 40 digits (in a field of its own: 64 bits), half of a
  surrogate pair, binary frames.

## Limits

| what | limit | |
| --- | --- | --- |
| a frame | {opsmap_protocol.MAX_FRAME_BYTES // 1024**2} MiB | `frame_too_large`; above it the socket itself ends |
| the first frame | {session.MAX_GREETING_BYTES // 1024} KiB | nothing is known yet of who sends it |
| nesting | {opsmap_protocol.MAX_NESTING} levels | from an agent {opsmap_protocol.MAX_AGENT_NESTING}: gateways wrap |
| frames that cannot be understood | {session.MAX_BAD_FRAMES} in a session | then it is closed |
| commands on their way to an agent | `presence.credits` | {messages.DEFAULT_CREDITS} unless it says otherwise |
""".strip()

_SESSION = """
## A session

```mermaid
sequenceDiagram
    participant A as agent
    participant G as gateway
    participant B as backend
    A->>G: register (sealed, with its certificate and a random nonce)
    G->>A: registered (the version both speak)
    G->>B: agent_online (the register as it came)
    Note over B: certificate, seal, organization
    B->>A: trust (certificates of the signing keys)
    B->>A: challenge (sealed; that nonce, and a random token)
    Note over A: certificates, seal, organization
    A->>B: presence (sealed, with the token; what it holds)
    Note over B: the session counts from here
    B->>A: resume (sealed: this session is the one in use)
    B->>A: config_update, command …
    A->>B: command_received, events …
    B->>A: events_ack (committed)
```

Each end reads frames by the same state machine (`opsmap_protocol.session`); a frame that may not come now is
refused.

```mermaid
stateDiagram-v2
    [*] --> greeting
    greeting --> open: the greeting has been read
    open --> draining: goaway was said
    greeting --> closed
    open --> closed
    draining --> closed
```

**Versions.** A greeting names the newest version that its side speaks (`protocol_version`) and the oldest
(`protocol_min`; absent, it speaks exactly one). The answer names the newest that both speak. If there is none, the
session ends with `error`, code `version_unsupported`, that names both ranges, and close code 4406.

**Several sessions.** An agent holds up to two, to two gateways. It sends events on the session that last got
`resume` and on no other. A frame that carries another `token` than its session's does not count.

## Seals

What a gateway must not be able to forge has two more members: `signed_by`, the SHA-256 of the certificate of the
key, in hexadecimal, and `signature`, 64 bytes of Ed25519 in base64. Signed are these bytes, one after the other:

1. `opsmap seal 1 backend` or `opsmap seal 1 agent`, by who seals, and a zero byte;
2. of the backend: the id of the organization that the agent belongs to, as in its certificate, and a zero byte. It
   is not in the frame: an agent takes it from its own certificate, so a command means nothing to another
   organization's agent;
3. the **canonical form** of the object without `signature`, in UTF-8: names sorted by code point, no spaces, in
   texts only `"`, `\\` and what is below U+0020 escaped (`\\n` and the like where JSON has them, else `\\u001f`),
   integers and `true`, `false`, `null` as they are, all other numbers as the shortest decimal that reads back as
   the same double, with at least `.0` behind it (`1.0`) and an exponent from 1e16 up and below 1e-4 (`1e+22`,
   `1e-07`).

The form is made of what was understood, not of the bytes that came; a frame may be written anew on its way. The
backend's keys are certified below the Backend CA with the URI `{signer}`; an agent's key is that of its own
certificate, below the Agent CA. `agent/tests/golden/seals.json` has seals to check an implementation against.
""".strip().replace("{signer}", identity.BACKEND_SIGNER_URI)

_SECTIONS = (
    (
        "Agent → gateway → backend",
        "FROM_AGENT",
        "A gateway passes these on unchanged but for `register`, `heartbeat` and `discovery_result`, which it wraps.",
    ),
    ("Gateway, or backend through it → agent", "TO_AGENT", "A gateway routes by `target_agent`."),
    ("Gateway → backend", "FROM_GATEWAY", "And what it passes on of its agents."),
    ("Backend → gateway", "TO_GATEWAY", "And what it is to pass on to its agents."),
    ("Gateway → agent at the door", "TO_ENROLLING", "On another address than that for agents with a certificate."),
    ("Agent at the door → gateway", "FROM_ENROLLING", "All that an agent without a certificate may say."),
)

_FORMER_NAMES = (
    (
        "`register`",
        "`register`, sealed, with certificate and versions; what the agent holds is in `presence`",
    ),
    (
        "`heartbeat`",
        "`heartbeat`",
    ),
    (
        "`command_result` (agent → gateway → backend)",
        (
            "the event body `command_result` within `events`: durable, numbered, acknowledged; `outcome` says "
            "what `success` cannot"
        ),
    ),
    (
        "`discovery_result`",
        "`discovery_result`, its lists under `findings`",
    ),
    (
        "`event`",
        (
            "`events` with typed bodies: `health_changed`, `job_exited`, `async_started`, `async_status`, "
            "`command_output`"
        ),
    ),
    (
        "`registered` with `config_update`",
        "`registered`; the configuration comes from the backend, sealed, as `config_update`",
    ),
    (
        "`command`",
        "`command`, sealed, with `issued_at`, `not_after`, `subject` and `epoch`",
    ),
    (
        "`discover`, `trigger_discovery`",
        "`discover`, one for each agent: it is sealed for it",
    ),
    (
        "`ping`",
        "`ping`",
    ),
    (
        "`config_update`, `push_agent_config`",
        "`config_update`, one for each agent: it is sealed for it",
    ),
    (
        "`gateway_register`, `gateway_registered`",
        "the same, with versions",
    ),
    (
        "`agent_online` with `AgentInfo`",
        "`agent_online` with the agent's own `register`",
    ),
    (
        "`agent_offline`",
        "`agent_offline`, with the session it is about",
    ),
    (
        "`aggregated_heartbeat`",
        "`aggregated_heartbeat`, with what was lost",
    ),
    (
        "`discovery_batch`",
        "`discovery_batch`, kept until `discovery_ack`",
    ),
    (
        "`broadcast_command` with one command",
        "`broadcast_command` with what all its sealed commands share, and the rest for each target",
    ),
    (
        "`AsyncStarted`, `check_job`",
        "`async_started`, `check_job_status` and its answer `job_statuses`",
    ),
)

_CHOICES = {
    "EventBody": messages.EventBody,
    "CommandSpec": specs.CommandSpec,
    "ExecutionMode": specs.ExecutionMode,
    "CompletionCheck": checks.CompletionCheck,
    "Probe": checks.Probe,
}

_WORDS = {"str": "text", "int": "integer", "float": "number", "bool": "true or false", "datetime": "time", "Any": "any"}


def protocol_page() -> str:
    """The page but for its first line, which says where it comes from."""
    blocks = [_INTRODUCTION, _SESSION, *_message_blocks(), *_part_blocks(), *_error_blocks(), _former_names()]
    return "\n\n".join(blocks) + "\n"


def _message_blocks() -> Iterator[str]:
    golden: dict[str, list[dict[str, Any]]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    told: set[str] = set()
    yield "## Messages"
    for title, union, remark in _SECTIONS:
        members = [each for each in typing.get_args(getattr(messages, union)) if each.type not in told]
        told.update(each.type for each in members)
        yield f"### {title}\n\n{remark}"
        for member in members:
            yield _message(member, golden[member.type][0])


def _message(member: Any, example: dict[str, Any]) -> str:
    lines = [f"#### `{member.type}`", "", _directions(member), ""]
    if doc := _doc(member):
        lines += [doc, ""]
    shown = json.dumps(example, indent=1, ensure_ascii=False)
    lines += [
        *_fields(member),
        "",
        "<details><summary>Example</summary>",
        "",
        "```json",
        shown,
        "```",
        "",
        "</details>",
    ]
    return "\n".join(lines)


def _directions(member: Any) -> str:
    ways = {
        "agent → gateway": messages.FROM_AGENT,
        "→ agent": messages.TO_AGENT,
        "gateway → backend": messages.FROM_GATEWAY,
        "backend → gateway": messages.TO_GATEWAY,
        "agent at the door → gateway": messages.FROM_ENROLLING,
        "gateway → agent at the door": messages.TO_ENROLLING,
    }
    way = ", ".join(name for name, union in ways.items() if member in typing.get_args(union))
    if member.type in messages.SEALED_BY_BACKEND:
        return f"*{way}. Sealed by the backend.*"
    if member.type in messages.SEALED_BY_AGENT:
        return f"*{way}. Sealed by the agent.*"
    return f"*{way}. Not sealed.*"


def _part_blocks() -> Iterator[str]:
    yield "## What messages are made of"
    rows = [
        f"| {name} | {', '.join(f'`{member.type}`' for member in typing.get_args(union))} |"
        for name, union in _CHOICES.items()
    ]
    yield "\n".join(["| one of several, by its `type` | |", "| --- | --- |", *rows])
    told: set[Any] = set()
    for part in (part for message in _all_messages() for part in _parts(message, told)):
        if issubclass(part, Enum):
            docs = _attribute_docs(part)
            rows = [f"| `{each.value}` | {docs.get(each.name, '')} |" for each in part]
            lines = [f"### {part.__name__}", "", _doc(part), "", "| value | |", "| --- | --- |", *rows]
        else:
            name = getattr(part, "type", None)
            title = f"{part.__name__}, `type` `{name}`" if isinstance(name, str) else part.__name__
            lines = [f"### {title}", "", _doc(part), "", *_fields(part)]
        yield re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def _parts(hint: Any, told: set[Any]) -> Iterator[Any]:
    """The dataclasses and enums that fields of messages hold, each once, those of a union together."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType, list, dict):
        for argument in arguments:
            yield from _parts(argument, told)
        return
    if not isinstance(hint, type) or not (dataclasses.is_dataclass(hint) or issubclass(hint, Enum)) or hint in told:
        return
    told.add(hint)
    if hint not in _all_messages():
        yield hint
    if dataclasses.is_dataclass(hint):
        for inner in typing.get_type_hints(hint).values():
            if typing.get_origin(inner) is not typing.ClassVar:
                yield from _parts(inner, told)


def _all_messages() -> tuple[Any, ...]:
    agents, gateways = messages.FROM_AGENT | messages.TO_AGENT, messages.FROM_GATEWAY | messages.TO_GATEWAY
    return typing.get_args(agents | gateways | messages.FROM_ENROLLING | messages.TO_ENROLLING)


def _fields(cls: Any) -> list[str]:
    rows = [f"| `{field.name}` | {_type(field)} | {_default(field)} |" for field in dataclasses.fields(cls)]
    if not rows:
        return ["No fields."]
    return ["| field | type | default |", "| --- | --- | --- |", *rows]


def _type(field: dataclasses.Field[Any]) -> str:
    assert isinstance(field.type, str)
    alternatives = [each.strip() for each in field.type.split("|") if each.strip() != "None"]
    return " or ".join(_words(each) for each in alternatives)


def _words(annotation: str) -> str:
    if found := re.fullmatch(r"list\[(.+)\]", annotation):
        return f"list of {_words(found[1])}"
    if found := re.fullmatch(r"dict\[str, (.+)\]", annotation):
        return "object" if found[1] == "Any" else f"object of {_words(found[1])}"
    return _WORDS.get(annotation, annotation)


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return "empty"
    if field.default is dataclasses.MISSING:
        return "required"
    return "absent" if field.default is None else f"`{json.dumps(field.default)}`"


def _error_blocks() -> Iterator[str]:
    docs = _attribute_docs(errors.CloseCode)
    rows = [
        f"| {code.value} | {code.name.lower().replace('_', ' ')} | {docs.get(code.name, '')} |"
        for code in errors.CloseCode
    ]
    yield "\n".join(
        ["## Close codes", "", _doc(errors.CloseCode), "", "| code | name | |", "| --- | --- | --- |", *rows]
    )
    kinds: list[type[errors.ProtocolError]] = [errors.ProtocolError, *errors.ProtocolError.__subclasses__()]
    named = [(kind.code, _doc(kind)) for kind in kinds if "code" in vars(kind) and kind.__module__ == errors.__name__]
    lines = ["## Codes of `error` that every side may send", "", "| code | |", "| --- | --- |"]
    yield "\n".join([*lines, *(f"| `{code}` | {' '.join(doc.split())} |" for code, doc in named)])


def _former_names() -> str:
    rows = [f"| {former} | {now} |" for former, now in _FORMER_NAMES]
    return "\n".join(
        ["## Names of the reference, and what became of them", "", "| reference | here |", "| --- | --- |", *rows]
    )


def _doc(cls: Any) -> str:
    doc = inspect.cleandoc(cls.__doc__ or "")
    # A dataclass without a docstring gets its signature for one.
    return "" if doc.startswith(f"{cls.__name__}(") else doc


def _attribute_docs(cls: type) -> dict[str, str]:
    """The texts below the members of a class, which only its source has."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for assignment, text in zip(body.body, body.body[1:], strict=False):
        match assignment, text:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(doc))):
                docs[name] = " ".join(doc.split())
    return docs
