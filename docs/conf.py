"""The site: `make docs` writes it to out/site. Pages that records and code can tell are written anew at every build."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from written import api, commands, papers  # noqa: E402 - they lie beside this file

project = "rightbatch"
author = "The rightbatch developers"
copyright = author
extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
exclude_patterns = ["README.md"]
html_theme = "furo"
html_title = "rightbatch"
html_show_sphinx = False
nitpicky = True


def write_pages() -> None:
    """Into docs/reference, which is not committed."""
    folder = HERE / "reference"
    for part in (commands, api, papers):
        for name, text in part.pages().items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")


OUTSIDE = re.compile(r"(!?)\[([^\]]*)\]\(((?:\.\./)+)([^)#]*)[^)]*\)")
PAGE_OF_PAPER = re.compile(r"reproductions/results/([\w-]+)-(?:smoke|small|paper)\.html")
PAGE_OF_FILE = {
    "reproductions/README.md": "reference/papers/index.md",
    "src/rightbatch/workload.py": "reference/api/bring.md",
    "src/rightbatch/pipeline/profile.py": "reference/api/ask.md",
    "src/rightbatch/controllers/contract.py": "reference/api/modules.md",
}
"""Of what is written anew at every build: in the repository the file is read instead."""
LISTS = ("rules/README", "decisions/README")
"""Pages that list the others of their folder."""


def as_site(app: object, name: str, source: list[str]) -> None:
    """What is written to be read in the repository too: its lists become parts of the site, its files have no page."""
    folder = (HERE / name).parent

    def seen(found: re.Match[str]) -> str:
        picture, text, up, path = found.groups()
        target = (folder / (up + path)).resolve()
        if target.is_relative_to(HERE) or picture:
            return found[0]
        if paper := PAGE_OF_PAPER.fullmatch(path):
            return f"[{text}](/reference/papers/{paper[1]}.md)"
        if path in PAGE_OF_FILE:
            return f"[{text}](/{PAGE_OF_FILE[path]})"
        return f"{text} (`{path}`)"

    source[0] = OUTSIDE.sub(seen, source[0])
    if name in LISTS:
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n*\n```\n"


MENDED = {
    'role="heading"><span': 'role="heading" aria-level="2"><span',
    "<pre>": '<pre tabindex="0">',
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
}
"""Headings of the sidebar say their level, and what scrolls can be scrolled by keyboard: axe asks for both."""


def mend(app: Any, error: Exception | None) -> None:
    """In what was written."""
    if error is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            for before, after in MENDED.items():
                text = text.replace(before, after)
            page.write_text(text, encoding="utf-8")


def setup(app: Any) -> None:
    """Before Sphinx looks for pages, and as it reads them."""
    write_pages()
    app.connect("source-read", as_site)
    app.connect("build-finished", mend)
