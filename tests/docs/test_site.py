"""The site: it is built without a warning, every link leads somewhere, everything has a page, and its code runs."""

from __future__ import annotations

import re
import runpy
import shlex
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("sphinx")

import rightbatch
from rightbatch.pipeline.reproduce import recorded, reproductions
from rightbatch.reproduction import SIZES
from rightbatch.rules import RULES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXECUTED = ("index", "own-workload", "own-loop", "growing")
"""Pages whose code is run here; those of `posterior` and `emso` have tests of their own in tests/optim."""

OF_TRAINERS = "from rightbatch.trainers."
"""In code that tests/trainers runs, where the package is that it is for."""


class Links(HTMLParser):
    """What a page links to, and what in it can be linked to."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = dict(attributes)
        if identifier := known.get("id"):
            self.anchors.add(identifier)
        for name in ("href", "src"):
            if address := known.get(name):
                self.targets.add(address)


def read(page: Path) -> Links:
    links = Links()
    links.feed(page.read_text(encoding="utf-8"))
    return links


def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    pages = {page: read(page) for page in site.rglob("*.html")}
    assert len(pages) > 80
    broken = []
    for page, links in pages.items():
        for address in links.targets:
            parts = urlsplit(address)
            if parts.scheme or address.startswith("//") or page.name in ("search.html", "genindex.html"):
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            found = target.is_file() and (
                not parts.fragment or target not in pages or _has(pages[target], parts.fragment)
            )
            if not found:
                broken.append(f"{page.relative_to(site)} -> {address}")
    assert not broken, broken


def _has(page: Links, fragment: str) -> bool:
    return unquote(fragment) in page.anchors


def test_every_verb_option_rule_paper_and_public_name_has_its_page(site: Path) -> None:
    import typer

    from rightbatch import cli

    for name, command in typer.main.get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        text = (site / "reference" / "commands" / f"{name}.html").read_text(encoding="utf-8")
        for parameter in command.params:
            if parameter.opts[0].startswith("--"):
                assert parameter.opts[0] in text, f"{name} {parameter.opts[0]}"
    for name in RULES:
        assert (site / "rules" / f"{name}.html").is_file(), name
    for one in reproductions(ROOT / "reproductions"):
        assert any(recorded(one.name, size, ROOT / "reproductions") for size in SIZES)
        text = (site / "reference" / "papers" / f"{one.name}.html").read_text(encoding="utf-8")
        assert f"rightbatch reproduce {one.name}" in text
    api = "".join(page.read_text(encoding="utf-8") for page in (site / "reference" / "api").glob("*.html"))
    for name in rightbatch.__all__:
        assert f">{name}<" in api, name


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL)


def test_every_page_with_code_is_executed() -> None:
    with_code = {path.stem for path in DOCS.glob("*.md") if blocks(path.stem)}
    assert with_code == {*EXECUTED, "posterior", "emso"}


@pytest.mark.parametrize("page", EXECUTED)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page}
    for block in blocks(page):
        if OF_TRAINERS not in block:
            exec(compile(block, f"{page}.md", "exec"), names)
    if page == "own-workload":
        assert names["answer"].batch_size in (32, 128, 512)  # type: ignore[attr-defined]
    if page == "index":
        assert names["make"]().present == (32, 0.001)  # type: ignore[operator]


def test_every_command_of_a_page_exists() -> None:
    import typer

    from rightbatch import cli

    known = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    seen = 0
    for page in (ROOT / "README.md", *DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        lines = [line.strip() for line in text.splitlines() if line.startswith("    rightbatch ")]
        lines += re.findall(r"`(rightbatch [a-z][^`]*)`", text)
        for line in lines:
            _, verb, *words = shlex.split(line.split("#")[0].partition(" -- ")[0])
            if verb == "COMMAND":
                continue
            assert verb in known, f"{page.name}: {line}"
            options = {option for parameter in known[verb].params for option in parameter.opts} | {"--help"}
            for word in words:
                assert not word.startswith("--") or word in options, f"{page.name}: {line}"
            seen += 1
    assert seen > 30


def test_numbers_that_pages_take_from_records_are_those_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    pages = runpy.run_path(str(DOCS / "recorded.py"))["pages"]()
    assert pages
    for page, text in pages.items():
        assert page.read_text(encoding="utf-8") == text, f"{page.name}: run `python docs/recorded.py`"
        # A line that begins with a comment ends the paragraph, and what follows is shown as it is written.
        assert not re.findall(r"^[ *-]*<!-- [^/>]*: .*$", text, re.MULTILINE), page.name


def test_pages_can_be_read_in_the_repository_too() -> None:
    for page in (ROOT / "README.md", ROOT / "reproductions" / "README.md", *DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        assert "{{" not in text, page.name
        for address in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            assert ":" in address or (page.parent / address).exists(), f"{page.name} -> {address}"
