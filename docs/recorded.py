"""Writes the numbers that pages take from records: see written/records.py.

python docs/recorded.py
"""

from __future__ import annotations

from pathlib import Path

from written import records


def pages() -> dict[Path, str]:
    """The text of every page that has such numbers, as it should be."""
    texts = {path: path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.md")}
    return {path: records.with_numbers(text) for path, text in sorted(texts.items()) if "<!-- / -->" in text}


def main() -> None:
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
