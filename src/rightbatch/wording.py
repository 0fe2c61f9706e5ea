"""Small words that messages share."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """A number of things: "1 seed", "2 seeds"."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
