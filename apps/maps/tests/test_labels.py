"""Label queries: what they mean, and what is said of those that cannot be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.maps.planning.labels import (
    MAX_CONDITIONS,
    MAX_QUERY_LENGTH,
    MAX_VALUES,
    LabelQuery,
    LabelQueryError,
    Operator,
    Requirement,
    read_label_query,
)

LABELS = {"team": "trading", "tier": "db", "note": "night, shift"}


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ("team=trading", True),
        ("team==trading", True),
        ("team=trading,tier!=web", True),
        ("team=trading,tier=web", False),
        (" team = trading , tier != db ", False),
        ("owner!=web", True),
        ("tier in (web, db)", True),
        ("tier notin (web,db)", False),
        ("owner notin (web)", True),
        ("owner in (web)", False),
        ("team", True),
        ("owner", False),
        ("!owner", True),
        ("!team", False),
        ('note="night, shift"', True),
        ('note=""', False),
        ("in=x", False),
        ("in in (in), team", False),
        ("app.kubernetes.io/name=x", False),
    ],
)
def test_query_means_what_it_says(query: str, fits: bool) -> None:
    assert read_label_query(query).fits(LABELS) is fits


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "The label query ends where the name of a label should be."),
        ("team=", "The label query ends where a value should be."),
        ("team=trading,", "The label query ends where the name of a label should be."),
        ("team trading", "The label query has 'trading' at character 6, where a comma or the end should be."),
        ("team=a=b", "The label query has '=' at character 7, where a comma or the end should be."),
        ("=x", "The label query has '=' at character 1, where the name of a label should be."),
        ("tier in web", "The label query has 'web' at character 9, where a list such as (web, cache) should be."),
        ("tier in (web", "The label query ends where a comma or ) should be."),
        ("tier in ()", "The label query has ')' at character 10, where a value should be."),
        ("team=night;drop", "The label query has ';' at character 11, which only fits between double quotes"),
        ('team="night', "The label query has '\"' at character 6, which only fits between double quotes"),
        ("a" * (MAX_QUERY_LENGTH + 1), "A label query has at most 1000 characters, this one 1001."),
        (",".join(["a"] * (MAX_CONDITIONS + 1)), "A label query has at most 20 conditions."),
        (
            f"a in ({','.join(str(n) for n in range(MAX_VALUES + 1))})",
            "A list in a label query has at most 100 values.",
        ),
    ],
)
def test_query_that_cannot_be_read_says_where_and_what_was_expected(query: str, message: str) -> None:
    with pytest.raises(LabelQueryError) as caught:
        read_label_query(query)
    assert str(caught.value).startswith(message)


@given(st.text(max_size=60))
def test_any_text_is_a_query_or_a_clear_error(text: str) -> None:
    told = "."
    try:
        read_label_query(text)
    except LabelQueryError as error:
        told = str(error)
    assert told.endswith(".")


WORDS = st.from_regex(r"[\w./:-]{1,8}", fullmatch=True)


@st.composite
def requirements(draw: st.DrawFn) -> Requirement:
    operator = draw(st.sampled_from(Operator))
    values = draw(st.frozensets(st.text(st.characters(exclude_characters='"'), max_size=6), min_size=1, max_size=3))
    return Requirement(draw(WORDS), operator, values if operator in {Operator.IN, Operator.NOT_IN} else frozenset())


def _written(requirement: Requirement) -> str:
    values = ", ".join(f'"{value}"' for value in sorted(requirement.values))
    match requirement.operator:
        case Operator.HAS:
            return f'"{requirement.key}"'
        case Operator.HAS_NOT:
            return f'! "{requirement.key}"'
    return f'"{requirement.key}" {requirement.operator} ({values})'


@given(st.lists(requirements(), min_size=1, max_size=4))
def test_what_is_written_is_read_again(wanted: list[Requirement]) -> None:
    assert read_label_query(",".join(map(_written, wanted))) == LabelQuery(tuple(wanted))
