"""Changes of documents that people wrote: what is meant is said, and nothing else changes."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.maps.documents.editing import EditError, rewrite
from apps.maps.documents.reading import SourceFile, read_documents
from apps.maps.documents.writing import to_yaml

WRITTEN = """\
# Who owns this: team trading
apiVersion: opsmap.io/v1
kind: Component
metadata: {name: trading-api, labels: {team: 'trading'}}   # short
spec:
    type:   service        # see the wiki

    # The databases come first.
    dependsOn:
      - postgresql   # the truth
      - {component: kafka, kind: weak}
    commands:
        start:
            command: "systemctl start trading-api"
            execution:
                mode: async
                max_wait_ms: 120000
        stop:
            script:
              content: |
                #!/bin/sh
                exec stop

    # the end
"""


def _data(text: str, document: int = 0) -> Any:
    documents, faults = read_documents(SourceFile("a.yaml", text))
    assert faults == []
    return documents[document].data


def _changed(change: Any, text: str = WRITTEN) -> str:
    data = copy.deepcopy(_data(text))
    change(data["spec"])
    result = rewrite(text, data)
    assert _data(result) == data
    return result


def _difference(result: str, text: str = WRITTEN) -> tuple[list[str], list[str]]:
    before, after = text.splitlines(), result.splitlines()
    return [line for line in before if line not in after], [line for line in after if line not in before]


@pytest.mark.parametrize(
    ("change", "gone", "new"),
    [
        (
            lambda spec: spec.update(type="database"),
            ["    type:   service        # see the wiki"],
            ["    type:   database        # see the wiki"],
        ),
        (lambda spec: spec.update(host="srv-1"), [], ["    host: srv-1"]),
        (lambda spec: spec["dependsOn"].append("redis"), [], ["      - redis"]),
        (lambda spec: spec["dependsOn"].insert(0, "redis"), [], ["      - redis"]),
        (lambda spec: spec["dependsOn"].pop(0), ["      - postgresql   # the truth"], []),
        (
            lambda spec: spec["dependsOn"][1].update(kind="strong"),
            ["      - {component: kafka, kind: weak}"],
            ["      - {component: kafka, kind: strong}"],
        ),
        (
            lambda spec: spec["commands"]["start"]["execution"].update(max_wait_ms=5),
            ["                max_wait_ms: 120000"],
            ["                max_wait_ms: 5"],
        ),
        (
            lambda spec: spec["commands"]["start"]["execution"].pop("max_wait_ms"),
            ["                max_wait_ms: 120000"],
            [],
        ),
        (
            lambda spec: spec["commands"]["stop"]["script"].update(content="#!/bin/sh\nexec halt\n"),
            ["                exec stop"],
            ["                exec halt"],
        ),
        (
            lambda spec: spec["commands"].pop("stop"),
            WRITTEN.splitlines()[17:22],
            [],
        ),
        (
            lambda spec: spec.update(healthcheck={"type": "tcp", "port": 80}),
            [],
            ["    healthcheck: {type: tcp, port: 80}"],
        ),
        (
            lambda spec: spec["commands"]["start"].update(args=["--a: b", "c"]),
            [],
            ['            args: ["--a: b", c]'],
        ),
    ],
)
def test_only_the_lines_that_mean_it_change(change: Any, gone: list[str], new: list[str]) -> None:
    assert _difference(_changed(change)) == (gone, new)


def test_no_change_is_no_change() -> None:
    assert rewrite(WRITTEN, _data(WRITTEN)) == WRITTEN


def test_label_within_brackets_is_replaced_in_place() -> None:
    data = _data(WRITTEN)
    data["metadata"]["labels"]["team"] = "17"
    assert _difference(rewrite(WRITTEN, data)) == (
        ["metadata: {name: trading-api, labels: {team: 'trading'}}   # short"],
        ['metadata: {name: trading-api, labels: {team: "17"}}   # short'],
    )


def test_line_ends_of_windows_and_a_missing_last_one_stay() -> None:
    text = "spec:\r\n  a: 1 # x\r\n  b:\r\n    - c"
    assert _changed(lambda spec: spec["b"].append("d"), text) == text + "\r\n    - d"
    assert _changed(lambda spec: spec.update(a=2), text) == text.replace("a: 1", "a: 2")


def test_other_documents_of_the_file_stay() -> None:
    text = "a: 1 # one\n---\nb: 2 # two\n---\nc: 3 # three\n"
    assert rewrite(text, {"b": 4}, document=1) == text.replace("b: 2", "b: 4")
    assert rewrite(text, {"b": 2, "d": [1]}, document=1) == text.replace("# two\n", "# two\nd: [1]\n")


def test_empty_values_are_filled_where_they_stand() -> None:
    assert _changed(lambda spec: spec.update(a="x"), "spec:\n  a:\n  # b\n  b: 1\n") == "spec:\n  a: x\n  # b\n  b: 1\n"
    assert _changed(lambda spec: spec["a"].append("x"), "spec:\n  a: []\n  b: 1\n") == "spec:\n  a: [x]\n  b: 1\n"


def test_what_cannot_be_read_is_not_edited() -> None:
    with pytest.raises(EditError, match="an anchor"):
        rewrite("a: &x 1\n", {"a": 2})
    with pytest.raises(EditError, match="no document 3"):
        rewrite("a: 1\n", {"a": 2}, document=3)


TEXT = st.text("ab :#-'\"\n{[,\t", max_size=8)
VALUES = st.recursive(
    TEXT | st.integers(-9, 99) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)
MAPPINGS = st.dictionaries(st.text("abc", min_size=1, max_size=3), VALUES, min_size=1, max_size=4)


def _as_json(data: Any) -> str:
    return json.dumps(data, indent=2)


@settings(deadline=None, max_examples=80)
@given(MAPPINGS, MAPPINGS, st.sampled_from([to_yaml, _as_json]))
def test_whatever_changes_the_text_says_it(old: dict[str, Any], new: dict[str, Any], write: Any) -> None:
    for goal in (old | new, new):
        assert json.dumps(_data(rewrite(write(old), goal)), sort_keys=True) == json.dumps(goal, sort_keys=True)
