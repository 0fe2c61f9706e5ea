"""Small words that messages share."""

from __future__ import annotations

DIRECTION_UNKNOWN = (
    "and it was not said whether more or less of it is better. Say direction 'max' (an accuracy) or 'min' (an error): "
    "--direction max or --direction min."
)
"""What is said of a metric where nobody said it."""


def of_percent(value: float) -> str:
    """What a value is as a share, in brackets, where it may be meant in percent: " (0.94 for 94 %)"; else nothing."""
    return f" ({value / 100:g} for {value:g} %)" if 1 < value <= 100 else ""


def counted(number: int, what: str) -> str:
    """A number of things: "1 seed", "2 seeds"."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def bytes_text(number: float) -> str:
    """An amount of memory in three digits, in units of a thousand: 1.25 GB, 832 MB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(number) >= 0.9995 * size:
            scaled = number / size
            return f"{scaled:.{max(0, 3 - len(str(int(abs(scaled) + 0.0005))))}f} {unit}"
    return f"{number:.0f} bytes"
