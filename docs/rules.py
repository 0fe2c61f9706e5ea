"""Writes a page for every rule of the book into docs/rules: from its record, and from the recorded digits study.

python docs/rules.py
"""

from __future__ import annotations

from pathlib import Path

from rightbatch.pipeline.judge import example
from rightbatch.report.rules import index_page, rule_page
from rightbatch.rules import RULES

FOLDER = Path(__file__).parent / "rules"


def pages() -> dict[str, str]:
    """The text of every page by its name."""
    found = example()
    written = {f"{rule.name}.md": rule_page(rule, found) for rule in RULES.values()}
    return {"README.md": index_page(list(RULES.values()), found), **written}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
