"""The admin at a real browser: its pages work under our Content-Security-Policy, and say nothing in the console."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from playwright.sync_api import Page, expect, sync_playwright

from apps.gateways.tests.factories import make_agent, make_gateway, queue
from apps.gateways.tests.fleets import make_certificate, make_discovery
from apps.gateways.tests.sockets import LinkPki
from apps.orgs.models import User
from conftest import Cast
from tests.test_browser import CHROMIUM, QUIET

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def cookie(cast: Cast, settings: Any, tmp_path: Path) -> str:
    """The session of somebody of the staff, in a world with one of everything."""
    settings.PKI_DIR = tmp_path
    LinkPki.make(tmp_path)
    agent = make_agent(make_gateway(cast.acme))
    make_certificate(agent.row, days_left=5)
    make_discovery(agent.row)
    queue(agent)
    client = Client()
    client.force_login(User.objects.create_superuser("staff@opsmap.example", "x"))
    return client.cookies["sessionid"].value


@pytest.fixture
def page(cookie: str, live_server: Any) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium: install the package chromium, or set OPSMAP_CHROMIUM to one")
    arguments = [*QUIET, "--disable-gpu", "--disable-quic", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        context = browser.new_context(base_url=live_server.url, viewport={"width": 1280, "height": 800})
        context.add_cookies([{"name": "sessionid", "value": cookie, "url": live_server.url}])
        page = context.new_page()
        page.set_default_timeout(10_000)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        yield page
        browser.close()
    assert faults == [], "the pages run without an error, and nothing breaks the Content-Security-Policy"


def test_staff_looks_around_quarantines_an_agent_and_makes_a_token(page: Page) -> None:
    for model in ("gateway", "certificate", "enrolmenttoken", "command", "agentdiscovery", "agent"):
        page.goto(f"/admin/gateways/{model}/")
        expect(page.locator("#changelist")).to_be_visible()

    page.get_by_role("link", name="srv-1", exact=True).click()
    expect(page.get_by_text("srv-1.example").first).to_be_visible()
    page.go_back()
    page.locator("input.action-select").check()
    page.get_by_label("Action:").select_option("quarantine")
    page.get_by_role("button", name="Go", exact=True).click()
    page.get_by_label("Why?").fill("it answers strangely")
    page.get_by_role("button", name="go on").click()
    expect(page.get_by_text("Agents in quarantine: 1.")).to_be_visible()
    expect(page.locator(".field-state")).to_have_text("In quarantine")

    page.goto("/admin/gateways/enrolmenttoken/add/")
    page.get_by_label("Organization:").select_option(label="Acme")
    page.get_by_label("Role:").select_option("agent")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#token")).to_contain_text("opsmap-enrol-")
    expect(page.locator("#command")).to_contain_text("opsmap-agent enroll")
