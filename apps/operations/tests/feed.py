"""A browser's memory of a Map, as `static/js/map/store.js` keeps it: loaded once, then only messages."""

from __future__ import annotations

from typing import Any

from apps.maps.models import Map
from apps.operations.payloads import describe_changes, describe_map
from apps.operations.tests.factories import plain
from apps.orgs.models import User


def load(map_id: Any, user: User) -> dict[str, Any]:
    """The Map as a fresh page gets it, lists without an order of their own sorted."""
    return in_order(plain(describe_map(_row(map_id), user)))


def next_message(map_id: Any, since: int) -> dict[str, Any] | None:
    """What the live feed sends to whoever has version `since`."""
    map = _row(map_id)
    message: dict[str, Any] = plain(describe_changes(map, since))
    return message if map.version != since else None


def apply(shown: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    """What a page shows after a message of changes."""
    states = {group["name"]: group["state"] for group in message["groups"]}
    changed = {component["id"]: component for component in message["components"]}
    known = {operation["id"]: operation for operation in shown["operations"]}
    operations = list((known | {item["id"]: item for item in message["operations"]}).values())
    running = [operation for operation in operations if operation["state"] == "running"]
    ended = sorted((operation for operation in operations if operation["state"] != "running"), key=_end)
    after = shown | {
        "version": message["version"],
        "state": message["mapState"],
        "groups": [group | {"state": states[group["name"]]} for group in shown["groups"]],
        "components": [changed.pop(component["id"], component) for component in shown["components"]],
        "operations": running + ended[-1:],
    }
    assert not changed, "components came that the page does not know, without a reload"
    return in_order(after)


def in_order(payload: dict[str, Any]) -> dict[str, Any]:
    payload["operations"].sort(key=lambda operation: operation["id"])
    for operation in payload["operations"]:
        for step in operation["steps"]:
            step["after"].sort()
    payload["dependencies"].sort(key=lambda dependency: (dependency["from"], dependency["to"]))
    return payload


def _end(operation: dict[str, Any]) -> tuple[str, str]:
    return operation["finishedAt"], operation["id"]


def _row(map_id: Any) -> Map:
    return Map.objects.select_related("organization", "workspace").get(pk=map_id)
