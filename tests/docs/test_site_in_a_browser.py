"""The site in a real browser: axe finds no serious fault, and nothing sticks out at the width of a telephone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: it drives the browser")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: it looks for what keeps people out")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

PAGES = (
    "index",
    "choose",
    "own-loop",
    "house",
    "reference/commands/find",
    "reference/api/bring",
    "reference/papers/smith-le",
    "rules/linear",
)
"""One of each kind."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.parametrize("light", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Any, site: Path, light: str) -> None:
    context = browser.new_context(viewport={"width": 1200, "height": 900}, color_scheme=light)
    context.set_offline(True)
    for name in PAGES:
        page = context.new_page()
        page.goto((site / f"{name}.html").as_uri())
        found = axe.Axe().run(page).response["violations"]
        assert [(name, one["id"]) for one in found if one["impact"] in ("serious", "critical")] == []
        page.close()
    context.close()


def test_nothing_sticks_out_at_the_width_of_a_telephone(browser: Any, site: Path) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 800})
    context.set_offline(True)
    for name in PAGES:
        page = context.new_page()
        page.goto((site / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 360, name
        page.close()
    context.close()
