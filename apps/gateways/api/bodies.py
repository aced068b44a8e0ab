"""What requests say: bodies and queries, checked."""

from __future__ import annotations

import uuid
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from apps.gateways.access import MAX_FLEET
from apps.gateways.enums import CommandState
from apps.gateways.filters import FleetFilter
from apps.gateways.selectors import HistoryFilter
from opsmap_protocol.enums import OutputStream

MAX_PAGE = 200
MAX_OUTPUT_CHARACTERS = 1024 * 1024
MAX_KEY_CHARACTERS = 120
NAME_CHARACTERS = 80


class PlainDictField(serializers.DictField):
    """JSON that PostgreSQL can keep: no NUL and no half of a surrogate pair, at any depth."""

    def to_internal_value(self, data: Any) -> dict[Any, Any]:
        value: dict[Any, Any] = super().to_internal_value(data)
        if not is_storable(value):
            raise serializers.ValidationError("Text with a NUL or a lone surrogate, or a number that is none.")
        return value


def is_storable(value: Any) -> bool:
    match value:
        case str():
            return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
        case float():
            return value - value == 0
        case list():
            return all(is_storable(item) for item in value)
        case dict():
            return all(is_storable(name) and is_storable(item) for name, item in value.items())
    return True


class CommandBody(serializers.Serializer[Any]):
    command = PlainDictField()
    execution = PlainDictField(required=False)
    timeoutMs = serializers.IntegerField(min_value=100, max_value=3_600_000, default=30_000)  # noqa: N815

    def as_wish(self) -> dict[str, Any]:
        """The arguments of `queue_command` and `start_broadcast` that say what is to run."""
        fields = self.validated_data
        spec, timeout_ms = fields["command"], fields["timeoutMs"]
        return {
            "name": str(spec.get("name") or spec.get("type") or "command")[:NAME_CHARACTERS],
            "spec": spec,
            "execution": fields.get("execution") or {"type": "sync", "timeout_ms": min(timeout_ms, 60_000)},
            "timeout_ms": timeout_ms,
        }


class FilterBody(serializers.Serializer[Any]):
    """Which agents: what is given must all be so. Everybody is meant only by saying `all`."""

    labels = serializers.DictField(child=serializers.CharField(max_length=253, allow_blank=True), default=dict)
    hostnamePattern = serializers.RegexField(r"^[A-Za-z0-9._*?-]*$", max_length=253, default="")  # noqa: N815
    agentIds = serializers.ListField(  # noqa: N815
        child=serializers.CharField(max_length=127), allow_empty=False, max_length=MAX_FLEET, required=False
    )
    all = serializers.BooleanField(default=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        is_limited = bool(attrs["labels"] or attrs["hostnamePattern"] or "agentIds" in attrs)
        if is_limited == attrs["all"]:
            raise serializers.ValidationError("Say labels, hostnamePattern or agentIds; or all, and nothing else.")
        return attrs


class BroadcastBody(CommandBody):
    organizationId = serializers.UUIDField(required=False)  # noqa: N815
    filter = FilterBody()

    def as_filter(self) -> FleetFilter:
        fields = self.validated_data["filter"]
        agents = fields.get("agentIds")
        return FleetFilter(fields["labels"], fields["hostnamePattern"], None if agents is None else tuple(agents))


class PageQuery(serializers.Serializer[Any]):
    limit = serializers.IntegerField(min_value=1, max_value=MAX_PAGE, default=50)
    before = serializers.UUIDField(required=False)
    state = serializers.MultipleChoiceField(choices=CommandState.choices, required=False)

    def as_history(
        self,
        *,
        agent_id: uuid.UUID | None = None,
        broadcast_id: uuid.UUID | None = None,
        subject: uuid.UUID | None = None,
    ) -> HistoryFilter:
        """The page that is asked for, of the commands that are all of what is given."""
        fields = self.validated_data
        states = tuple(sorted(fields.get("state", ())))
        return HistoryFilter(agent_id, broadcast_id, subject, states, fields.get("before"))


class HistoryQuery(PageQuery):
    agent = serializers.UUIDField(required=False)
    broadcast = serializers.UUIDField(required=False)
    subject = serializers.UUIDField(required=False)


class OutputQuery(serializers.Serializer[Any]):
    stream = serializers.ChoiceField(choices=[stream.value for stream in OutputStream], default=OutputStream.STDOUT)
    offset = serializers.IntegerField(min_value=0, max_value=2**31 - 1, default=0)
    limit = serializers.IntegerField(min_value=1, max_value=MAX_OUTPUT_CHARACTERS, default=64 * 1024)


def read_query(query: type[serializers.Serializer[Any]], request: Request) -> Any:
    """The query parameters. Raises ValidationError."""
    read = query(data=request.query_params)
    read.is_valid(raise_exception=True)
    return read


def read_body(body: type[serializers.Serializer[Any]], request: Request) -> Any:
    """Raises ValidationError."""
    read = body(data=request.data)
    read.is_valid(raise_exception=True)
    return read


def read_idempotency_key(request: Request) -> str | None:
    """The key that makes a repeated request harmless; None without one. Raises ValidationError."""
    key = request.headers.get("Idempotency-Key", "")
    if len(key) > MAX_KEY_CHARACTERS:
        # Cut short it might be the same as another one.
        raise serializers.ValidationError({"Idempotency-Key": [f"At most {MAX_KEY_CHARACTERS} characters."]})
    return key or None
