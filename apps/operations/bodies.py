"""What requests about components of a Map say: which of them are meant."""

from __future__ import annotations

import uuid
from typing import Any

from rest_framework import serializers

from apps.maps.models import Map
from apps.maps.planning.labels import MAX_QUERY_LENGTH, LabelQuery, LabelQueryError, read_label_query
from apps.maps.selectors import select_components


class SelectionBody(serializers.Serializer[Any]):
    """What it is about: `components`, or those of a `group`, of a query of `labels`, or of both; else the whole Map."""

    components = serializers.ListField(child=serializers.UUIDField(), max_length=50_000, default=list)
    group = serializers.CharField(max_length=80, required=False)
    labels = serializers.CharField(max_length=MAX_QUERY_LENGTH, required=False)

    def validate_labels(self, value: str) -> LabelQuery:
        try:
            return read_label_query(value)
        except LabelQueryError as error:
            raise serializers.ValidationError(str(error)) from None

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["components"] and ("group" in attrs or "labels" in attrs):
            raise serializers.ValidationError("Say components, or a group and labels; not both.")
        return attrs

    def chosen(self, map: Map) -> list[uuid.UUID]:
        """The components that are meant; empty only if it is the whole Map.

        Raises:
            ValidationError: a group or query that no component fits.
        """
        fields = self.validated_data
        if "group" not in fields and "labels" not in fields:
            named: list[uuid.UUID] = fields["components"]
            return named
        found = select_components(map, group=fields.get("group"), labels=fields.get("labels"))
        if not found:
            raise serializers.ValidationError("No component of this Map is in that group or has such labels.")
        return found
