"""Certificates that end soon are told once."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.gateways.actions import expiry
from apps.gateways.actions.expiry import tell_expiring_certificates
from apps.gateways.models import Agent, Gateway
from apps.gateways.tests.factories import make_gateway
from apps.gateways.tests.fleets import make_certificate, make_fleet
from conftest import Cast


def told() -> list[str]:
    events = AuditEvent.objects.filter(action="certificate.expiring").order_by("id")
    return [event.target.get("agentId") or event.target["gatewayId"] for event in events]


def test_it_is_told_once_and_again_for_the_next_certificate(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    [agent] = make_fleet(gateway, "web-1")
    certificate = make_certificate(agent, days_left=29)
    make_certificate(gateway, days_left=-1)
    with caplog.at_level(logging.WARNING):
        assert tell_expiring_certificates() == 2
    assert tell_expiring_certificates() == 0
    assert sorted(told()) == ["gw-1", "web-1"]
    assert "the certificate of agent web-1 ends at" in caplog.text
    event = AuditEvent.objects.get(target__agentId="web-1")
    assert event.details == {
        "certificateSha256": certificate.fingerprint,
        "endsAt": certificate.not_after.isoformat(),
    }
    make_certificate(agent, days_left=365)
    assert tell_expiring_certificates(now=timezone.now() + timedelta(days=340)) == 1


def test_what_was_renewed_revoked_or_removed_is_not_told(gateway: Gateway, cast: Cast) -> None:
    now = timezone.now()
    renewed, fresh, quick = make_fleet(gateway, "renewed", "fresh", "quick")
    make_certificate(renewed, days_left=1)
    make_certificate(renewed, days_left=300)
    make_certificate(fresh, days_left=31)
    # A sixth of a short life is far less than a month.
    make_certificate(quick, days_left=2, life_days=7)
    for field in ("revoked_at", "removed_at"):
        make_certificate(make_fleet(gateway, field, **{field: now})[0], days_left=1)
    [alone] = make_fleet(gateway, "alone")
    make_certificate(alone, days_left=1, revoked_at=now)
    # Of another organization, by the same name.
    make_certificate(make_fleet(make_gateway(cast.umbrella, "gw-u"), "fresh")[0], days_left=1)
    assert tell_expiring_certificates() == 1
    assert AuditEvent.objects.get(action="certificate.expiring").organization_id == cast.umbrella.pk


def test_a_whole_fleet_is_told_in_parts_and_logged_in_few_lines(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "BATCH", 20)
    for agent in make_fleet(gateway, *(f"web-{number}" for number in range(45))):
        make_certificate(agent, days_left=1)
    with caplog.at_level(logging.WARNING):
        assert tell_expiring_certificates() == 45
    assert len(told()) == Agent.objects.count() == 45
    assert len(caplog.records) == 21
    assert "45 certificates end soon" in caplog.text
