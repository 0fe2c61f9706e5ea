"""The page in a real browser: it asks for nothing, its controls change what it says, axe finds no serious fault."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rightbatch.report import units
from rightbatch.report.figures.figure import position_of
from rightbatch.report.sheet import Sheet

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: it drives the browser")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: it looks for what keeps people out")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (1200, 700, 360)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(text: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("browser") / "page.html"
    path.write_text(text, encoding="utf-8")
    return path.as_uri()


class Opened:
    """The page at a width, with the network refused, and what it said to the console and asked for."""

    def __init__(self, browser: Any, address: str, width: int = 1200, **light: str) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **light)
        self.context.set_offline(True)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *error: object) -> None:
        self.context.close()

    def positions(self, control: str) -> set[str]:
        """What is seen of the parts that a control switches."""
        parts = self.page.locator(f'[data-varies="{control}"]:visible')
        return {parts.nth(k).get_attribute("data-position") for k in range(parts.count())}


@pytest.mark.parametrize("width", WIDTHS)
def test_it_opens_without_the_network_and_without_an_error(browser: Any, address: str, width: int) -> None:
    with Opened(browser, address, width) as opened:
        assert opened.said == []
        assert opened.asked == [address]
        assert opened.page.evaluate("document.documentElement.scrollWidth") == width  # nothing sticks out
        for drawing in opened.page.locator("figure svg:visible").all():
            box = drawing.bounding_box()
            assert box["width"] > 0.8 * min(width, 500) - 60
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width


def test_controls_change_what_is_seen_and_said(browser: Any, address: str, sheet: Sheet) -> None:
    with Opened(browser, address) as opened:
        page = opened.page
        for one in (*sheet.easier, sheet):
            page.check(f'input[name="target"][value="{position_of(one)}"]')
            assert opened.positions("target") == {position_of(one)}
            said = page.locator("[aria-live] p:visible").inner_text()
            assert f"batch size {one.answer.batch_size} at" in said
        assert opened.positions("patience_in") == {"evaluations"}
        page.focus('input[name="patience_in"][value="evaluations"]')
        page.keyboard.press("ArrowRight")
        assert opened.positions("patience_in") == {"epochs"}
        assert "epochs" in page.locator("#stopping p:visible").first.inner_text()
        assert opened.positions("target") == {position_of(sheet)}  # another control's parts stay as they are


def test_tables_have_the_numbers_of_the_study(browser: Any, address: str, sheet: Sheet) -> None:
    with Opened(browser, address) as opened:
        opened.page.locator("#sweet-spot details:visible summary").click()
        rows = opened.page.locator("#sweet-spot details:visible tbody tr").all()
        assert len(rows) == len(sheet.answer.sizes)
        for row, size in zip(rows, sheet.answer.sizes, strict=True):
            cells = row.locator("td").all_inner_texts()
            assert size.cost is not None
            assert cells[:2] == [str(size.batch_size), units.significant(size.cost.estimate, 4)]


@pytest.mark.parametrize("light", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Any, address: str, light: str) -> None:
    with Opened(browser, address, color_scheme=light) as opened:
        opened.page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
        found = axe.Axe().run(opened.page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []


def test_colours_follow_the_light(browser: Any, address: str) -> None:
    seen = []
    for light in ("light", "dark"):
        with Opened(browser, address, color_scheme=light) as opened:
            text = opened.page.locator("#sweet-spot svg text").first
            seen.append(text.evaluate("element => getComputedStyle(element).fill"))
    assert seen[0] != seen[1]


def test_without_scripts_it_shows_the_answer_and_no_dead_controls(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator("fieldset:visible").count() == 0
    assert page.locator("figure svg:visible").count() >= 9
    context.close()
