"""Frames that nobody should send, for Hypothesis to draw: bytes, texts, JSON, and golden frames with something changed.

`FUZZ_EXAMPLES` in the environment asks for more than the few examples of an ordinary run.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

GOLDEN: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "golden" / "messages.json").read_text(encoding="utf-8")
)

FUZZ = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "4")),
    deadline=None,
    database=None,
    # Each example starts a daemon: looking for a smaller one would take minutes.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

_ODD_VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63 - 1,
        2**63,
        -(2**63),
        10**39,
        0.0,
        -0.5,
        1e308,
        "",
        "\0",
        " ",
        "..",
        "/",
    ),
    *(
        "srv-1",
        "srv-2",
        "\x1b[31m",
        "<b>",
        "é",
        "\U0001f600",
        "x" * 300,
        "2026-03-01T03:00:00Z",
        "0001-01-01T00:00:00Z",
    ),
    *([], {}, [[]], [None], {"type": "native"}, {"type": ["x"]}, {"": {}}, {"type": "execute", "path": "/bin/true"}),
]
_TEXT = st.text(max_size=8)
_JSON = st.recursive(
    st.sampled_from(_ODD_VALUES) | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in _places(item, (*path, key)))]


@st.composite
def changed(draw: st.DrawFn, examples: list[dict[str, Any]]) -> dict[str, Any]:
    """One of these objects with one to three things in it changed, gone, or added; its `type` mostly stays."""
    frame = copy.deepcopy(draw(st.sampled_from(examples)))
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from([place for place in _places(frame)[1:] if place != ("type",)] or [("x",)]))
        holder: Any = frame
        for step in path:
            holder = holder[step]
        # Copied: what is drawn is kept by Hypothesis, and may be changed by the next round.
        match draw(st.sampled_from(["change", "change", "remove", "add"])):
            case "remove" if isinstance(holder, dict):
                holder.pop(last, None)
            case "add" if isinstance(holder, dict):
                holder[draw(_TEXT)] = copy.deepcopy(draw(_JSON))
            case _:
                holder[last] = copy.deepcopy(draw(_JSON))
    return frame


@st.composite
def _damaged(draw: st.DrawFn, frame: str) -> str:
    place = draw(st.integers(0, len(frame)))
    end = draw(st.sampled_from([place, place + 1, len(frame)]))
    return frame[:place] + draw(st.text(max_size=4)) + frame[end:]


def hostile_frames(kinds: list[str]) -> st.SearchStrategy[str | bytes]:
    """Anything at all, and much that looks like a message of those kinds."""
    examples = [example for kind in kinds for example in GOLDEN[kind]]
    texts = [json.dumps(example) for example in examples]
    written = st.one_of(
        st.text(max_size=50),
        _JSON.map(json.dumps),
        st.sampled_from(texts),
        st.sampled_from(texts).flatmap(_damaged),
        changed(examples).map(json.dumps),
        st.builds(
            lambda kind, fields: json.dumps({**fields, "type": kind}),
            st.sampled_from(kinds),
            st.dictionaries(_TEXT, _JSON),
        ),
        st.sampled_from(["[" * 1_200, '{"a":' * 1_200, '{"type":"x","type":"y"}', '{"type":"ping","timestamp":NaN}']),
    )
    # Sockets take no halves of surrogate pairs; JSON texts may spell them.
    return written.map(lambda text: text.encode("utf-8", "replace").decode()) | st.binary(max_size=50)


@dataclass
class Watch:
    """What went wrong where nobody is told: exceptions in log records, and those that asyncio found."""

    faults: list[str] = field(default_factory=list)


class _Traces(logging.Handler):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.name == "asyncio":
            trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
            self._watch.faults.append(f"{record.name}: {record.getMessage()}\n{trace}")


@contextmanager
def watching() -> Iterator[Watch]:
    """Fails at its end if anything was logged with a traceback, or an exception reached the event loop."""
    watch = Watch()
    traces = _Traces(watch)
    logging.getLogger().addHandler(traces)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: watch.faults.append(f"event loop: {context}"))
    try:
        yield watch
    finally:
        loop.set_exception_handler(None)
        logging.getLogger().removeHandler(traces)
    assert not watch.faults, "\n".join(watch.faults)
