"""A person at a real browser: signs in, starts the Map, and watches it come up without a reload."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.smoke.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.processes]

CHROMIUM = next(
    (
        path
        for name in (os.environ.get("OPSMAP_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
        if name and (path := shutil.which(name))
    ),
    None,
)
# Chromium asks its maker's servers for this and that; here it must not.
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]


@pytest.fixture
def page(stack: Stack) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium: install the package chromium, or set OPSMAP_CHROMIUM to one")
    arguments = [*QUIET, "--disable-gpu", "--disable-quic", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        context = browser.new_context(base_url=stack.ready["web_url"], viewport={"width": 1280, "height": 800})
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        yield page
        browser.close()
    assert faults == [], "the pages run without an error, and nothing breaks the Content-Security-Policy"


def sign_in(page: Page, stack: Stack) -> None:
    credentials = stack.credentials()
    page.goto("/")
    page.get_by_label("Email").fill(credentials["email"])
    page.get_by_label("Password", exact=True).fill(credentials["password"])
    page.get_by_role("button", name="Sign in").click()


def test_a_person_starts_the_map_and_watches_a_component_turn_running(page: Page, stack: Stack) -> None:
    sign_in(page, stack)
    page.get_by_role("link", name="Trading Platform").first.click()
    component = page.locator('[data-component="postgresql"]').first
    expect(component).to_have_attribute("data-state", "stopped", timeout=15_000)
    # What this sets is gone after a reload.
    page.evaluate("window.wasLoadedOnce = true")

    page.get_by_role("button", name="Start Map", exact=True).click()
    page.get_by_test_id("confirm-operation").click()

    expect(component).to_have_attribute("data-state", "running", timeout=20_000)
    expect(page.get_by_test_id("operation-panel")).to_have_attribute(
        "data-operation-state", "succeeded", timeout=60_000
    )
    states = page.locator("[data-component]").evaluate_all("rows => rows.map(row => row.dataset.state)")
    assert set(states) == {"running"}
    assert page.evaluate("window.wasLoadedOnce") is True

    page.get_by_role("button", name="Stop Map", exact=True).click()
    page.get_by_test_id("confirm-operation").click()
    expect(component).to_have_attribute("data-state", "stopped", timeout=40_000)


def test_a_wrong_password_is_refused_without_saying_what_was_wrong(page: Page, stack: Stack) -> None:
    page.goto("/")
    page.get_by_label("Email").fill(stack.credentials()["email"])
    page.get_by_label("Password", exact=True).fill("not-this-one")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Email or password is wrong.")).to_be_visible()
