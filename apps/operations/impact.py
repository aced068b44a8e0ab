"""What a failure would mean, what explains the trouble there is, and who may act: read and described for the API."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from django.http import Http404

from apps.maps.enums import ComponentState
from apps.maps.models import Component, Map
from apps.maps.planning.graph import Spread
from apps.maps.planning.impact import find_causes, find_impact
from apps.maps.planning.plans import Condition
from apps.maps.selectors import get_graph
from apps.operations.state_machine import condition_of
from apps.orgs.models import User
from apps.rbac.selectors import people_with, resolve_permissions

MAX_SHOWN = 200
"""Of what is affected; the nearest ones. The counts say how many there are."""
MAX_PEOPLE = 50

_ACTIONS = ("start", "stop", "restart")
_TROUBLED = [state for state in ComponentState if condition_of(state) in {Condition.FAILED, Condition.IMPAIRED}]
_Nodes = Spread[uuid.UUID]


def get_troubled(map: Map) -> dict[uuid.UUID, Condition]:
    """The components of a Map that have failed or are impaired. One query."""
    rows = Component.objects.filter(map=map, state__in=_TROUBLED).values_list("pk", "state")
    return {pk: condition_of(ComponentState(state)) for pk, state in rows}


def describe_impact(map: Map, user: User, chosen: Sequence[uuid.UUID] = ()) -> dict[str, Any]:
    """What would fail with the chosen components, and what they need; of none, the causes of what is wrong now.

    In at most five queries, whatever the size of the Map.

    Raises:
        Http404: one of the chosen is no component of this Map.
    """
    graph = get_graph(map)
    if any(pk not in graph for pk in chosen):
        raise Http404
    troubled = {pk: condition for pk, condition in get_troubled(map).items() if pk in graph}
    roots = tuple(dict.fromkeys(chosen)) or find_causes(graph, troubled).roots
    impact = find_impact(graph, roots)
    explained = _explained(impact.would_fail, troubled, roots)
    would_fail, needed = _beyond(impact.would_fail, roots), _beyond(impact.needed, roots)
    shown = {*roots[:MAX_SHOWN], *impact.ordered[:MAX_SHOWN]}
    shown.update(pk for pks in explained.values() for pk in pks[:MAX_SHOWN])
    shown.update(pk for path in [*would_fail[1], *needed[1]] for pk in path)
    briefs = _briefs(map, shown)
    sizes = impact.would_fail.sizes()
    return {
        "components": [
            {
                **briefs[pk],
                # Less itself. What several reach counts for the nearest.
                "affectedCount": sizes[pk] - 1,
                "explains": _known(briefs, explained[pk][:MAX_SHOWN]),
                "explainsCount": len(explained[pk]),
            }
            for pk in roots[:MAX_SHOWN]
            if pk in briefs
        ],
        "componentCount": len(roots),
        "wouldFail": _reached(*would_fail, briefs),
        "needs": _reached(*needed, briefs),
        "ordered": {"count": len(impact.ordered), "items": _known(briefs, impact.ordered[:MAX_SHOWN])},
        "mayAct": _may_act(map, user),
    }


def _explained(
    would_fail: _Nodes, troubled: Collection[uuid.UUID], roots: Collection[uuid.UUID]
) -> dict[uuid.UUID, list[uuid.UUID]]:
    """By root, what is in trouble already and would be because of it; each once, at the nearest root."""
    found: dict[uuid.UUID, list[uuid.UUID]] = defaultdict(list)
    known = set(roots)
    for pk in troubled:
        if pk not in known and pk in would_fail:
            found[would_fail.root_of(pk)].append(pk)
    return found


def _beyond(spread: _Nodes, roots: Collection[uuid.UUID]) -> tuple[int, list[list[uuid.UUID]]]:
    """How many are reached besides the roots, and the ways to the nearest of them."""
    return len(spread) - len(roots), [spread.path_to(pk) for pk in spread.nearest(len(roots), MAX_SHOWN)]


def _reached(count: int, paths: Iterable[list[uuid.UUID]], briefs: dict[uuid.UUID, dict[str, str]]) -> dict[str, Any]:
    """`path` names the way from the component that fails, or that needs, to this one: why it is here."""
    return {
        "count": count,
        "items": [
            {**briefs[path[-1]], "distance": len(path) - 1, "path": [brief["name"] for brief in _known(briefs, path)]}
            for path in paths
            if path[-1] in briefs
        ],
    }


def _briefs(map: Map, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, dict[str, str]]:
    rows = Component.objects.filter(map=map, pk__in=ids).values_list("pk", "name", "state")
    return {pk: {"id": str(pk), "name": name, "state": state} for pk, name, state in rows}


def _known(briefs: dict[uuid.UUID, dict[str, str]], ids: Iterable[uuid.UUID]) -> list[dict[str, str]]:
    """A component can be deleted between two reads."""
    return [briefs[pk] for pk in ids if pk in briefs]


def _may_act(map: Map, user: User) -> dict[str, Any]:
    """What the person who asks may do, and who may do everything."""
    perms = {action: f"component:{action}" for action in _ACTIONS}
    granted = resolve_permissions(user, map.organization_id, perms.values())
    people = people_with(map.organization_id, perms.values()).order_by("name", "email")[:MAX_PEOPLE]
    return {
        "you": {action: granted[perm] for action, perm in perms.items()},
        "people": [{"id": str(person.pk), "name": person.name, "email": person.email} for person in people],
    }
