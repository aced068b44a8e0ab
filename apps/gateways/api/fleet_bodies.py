"""What requests about the registry say, checked."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.utils import timezone
from rest_framework import serializers

from apps.gateways.actions.enrolment_tokens import MAX_LIFE, MAX_USES
from apps.gateways.api.bodies import MAX_PAGE, FilterBody, is_storable
from apps.gateways.enums import Standing
from apps.gateways.filters import FleetFilter, RegistryFilter
from apps.gateways.payloads import SETTINGS
from apps.gateways.registry import Cursor
from opsmap_protocol.enums import PeerRole

MAX_REASON = 300
_NAME_PATTERN = r"^[A-Za-z0-9._*?-]+$"


class TextField(serializers.CharField):
    """Text that PostgreSQL can keep."""

    def to_internal_value(self, data: Any) -> str:
        text: str = super().to_internal_value(data)
        if not is_storable(text):
            raise serializers.ValidationError("Text with a NUL or a lone surrogate.")
        return text


class RegistryQuery(serializers.Serializer[Any]):
    """Which gateways or agents a list shows; `label=role=db` as often as there are labels."""

    limit = serializers.IntegerField(min_value=1, max_value=MAX_PAGE, default=50)
    after = serializers.CharField(max_length=2000, required=False)
    state = serializers.MultipleChoiceField(choices=Standing.choices, required=False)
    gateway = TextField(max_length=127, default="", allow_blank=True)
    zone = TextField(max_length=80, default="", allow_blank=True)
    # The name is that of the parameter; serializers have none of their own by it, whatever their types say.
    label = serializers.ListField(child=TextField(max_length=400), max_length=20, required=False)  # type: ignore[assignment]
    version = TextField(max_length=40, default="", allow_blank=True)
    name = serializers.RegexField(_NAME_PATTERN, max_length=253, default="", allow_blank=True)
    certificateEndsBefore = serializers.DateTimeField(required=False)  # noqa: N815

    def validate_after(self, text: str) -> Cursor:
        try:
            return Cursor.parse(text)
        except ValueError:
            raise serializers.ValidationError("Take it from `next` of the page before.") from None

    def validate_label(self, labels: list[str]) -> dict[str, str]:
        if any("=" not in label for label in labels):
            raise serializers.ValidationError("Say name=value.")
        return {name: value for name, _, value in (label.partition("=") for label in labels)}

    def as_filter(self, organization_ids: list[uuid.UUID]) -> RegistryFilter:
        fields = self.validated_data
        return RegistryFilter(
            organization_ids=tuple(organization_ids),
            standings=tuple(Standing(state) for state in sorted(fields.get("state", ()))),
            gateway=fields["gateway"],
            zone=fields["zone"],
            labels=fields.get("label") or {},
            name_pattern=fields["name"],
            version=fields["version"],
            certificate_ends_before=fields.get("certificateEndsBefore"),
        )


class ReasonBody(serializers.Serializer[Any]):
    """Why: whoever finds it so later wants to know."""

    reason = TextField(max_length=MAX_REASON)


class FleetBody(serializers.Serializer[Any]):
    """Whom a request is about that concerns many agents."""

    organizationId = serializers.UUIDField(required=False)  # noqa: N815
    filter = FilterBody()

    def as_filter(self) -> FleetFilter:
        fields = self.validated_data["filter"]
        agents = fields.get("agentIds")
        return FleetFilter(fields["labels"], fields["hostnamePattern"], None if agents is None else tuple(agents))


class SettingsField(serializers.DictField):
    """Settings to change, by the names of the API; null gives one back to the host's file. Values: `check_settings`."""

    def to_internal_value(self, data: Any) -> dict[Any, Any]:
        value: dict[Any, Any] = super().to_internal_value(data)
        unknown = sorted(str(name) for name in value.keys() - SETTINGS.keys())
        if unknown or not value:
            raise serializers.ValidationError(f"Say one or more of {', '.join(SETTINGS)}.")
        return {SETTINGS[name]: each for name, each in value.items()}


class FleetSettingsBody(FleetBody):
    settings = SettingsField()


class DiscoverBody(serializers.Serializer[Any]):
    types = serializers.ListField(child=TextField(max_length=40), max_length=40, default=list)


class FleetDiscoverBody(FleetBody, DiscoverBody):
    pass


class EnrolmentTokenBody(serializers.Serializer[Any]):
    """What the token shall be good for. `gateway` is the id of the gateway's row; `zone` is for gateways alone."""

    organizationId = serializers.UUIDField(required=False)  # noqa: N815
    role = serializers.ChoiceField(choices=[PeerRole.GATEWAY.value, PeerRole.AGENT.value])
    description = TextField(max_length=200, default="", allow_blank=True)
    namePattern = serializers.RegexField(_NAME_PATTERN, max_length=127, default="*")  # noqa: N815
    gateway = serializers.UUIDField(required=False, allow_null=True)
    zone = TextField(max_length=80, default="", allow_blank=True)
    mayReplace = serializers.BooleanField(default=False)  # noqa: N815
    maxUses = serializers.IntegerField(min_value=1, max_value=MAX_USES, default=1)  # noqa: N815
    expiresAt = serializers.DateTimeField(required=False)  # noqa: N815

    def validate_expiresAt(self, value: Any) -> Any:  # noqa: N802
        if not timedelta() < value - timezone.now() <= MAX_LIFE:
            raise serializers.ValidationError(f"Between now and {MAX_LIFE.days} days from now.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        is_gateway = attrs["role"] == PeerRole.GATEWAY
        if is_gateway and attrs.get("gateway"):
            raise serializers.ValidationError({"gateway": ["Only agents come by a gateway."]})
        if not is_gateway and attrs["zone"]:
            raise serializers.ValidationError({"zone": ["Agents have the zone of their gateway."]})
        return attrs


class TokensQuery(serializers.Serializer[Any]):
    limit = serializers.IntegerField(min_value=1, max_value=MAX_PAGE, default=50)
    before = serializers.UUIDField(required=False)
