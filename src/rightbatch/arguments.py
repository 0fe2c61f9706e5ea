"""What people type on the command line, as values: sizes, rates, settings, the question."""

from __future__ import annotations

import re
from typing import Any

from rightbatch.errors import InputError
from rightbatch.records import Setting


def asked(
    objective: str,
    target: float | None,
    target_on: str | None,
    first_touch: bool,
    at_seconds: float | None,
    at_examples: float | None,
    present: str | None,
    epochs: float | None,
    settings: list[str] | None,
) -> dict[str, Any]:
    """The fields of `Ask` from what was typed. Raises `InputError` for what cannot be read."""
    return dict(
        objective=objective,
        target=target,
        target_on=target_on,
        first_touch=first_touch,
        at_seconds=at_seconds,
        at_examples=at_examples,
        present=_present(present),
        epochs=epochs,
        settings=dict(_setting(text) for text in settings or ()),
    )


def _present(text: str | None) -> tuple[int, float] | None:
    if text is None:
        return None
    try:
        size, rate = text.split(",")
        return int(size), float(rate)
    except ValueError:
        raise InputError(f"--present is BATCH_SIZE,RATE, for instance 32,0.1; got {text!r}.") from None


def _setting(text: str) -> tuple[str, Setting]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set is NAME=VALUE, for instance momentum=0.9; got {text!r}.")
    try:
        return name, float(value)
    except ValueError:
        return name, value


def sizes(text: str | None) -> tuple[int, ...] | None:
    """Batch sizes from "16,32,64" or "4..4096"; the latter are the powers of two between, ends included."""
    if text is None:
        return None
    span = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if span:
        low, high = int(span[1]), int(span[2])
        powers = tuple(2**k for k in range(high.bit_length() + 1) if low <= 2**k <= high)
        if not powers:
            raise InputError(f"There is no power of two between {low} and {high}. List sizes instead: {low},{high}.")
        return powers
    listed = numbers(text, "batch sizes")
    if any(size != int(size) or size < 1 for size in listed):
        raise InputError(f"Batch sizes are whole numbers from 1, got {text!r}.")
    return tuple(sorted({int(size) for size in listed}))


def numbers(text: str, what: str) -> list[float]:
    """Numbers with commas between. Raises `InputError`, which names `what` they are, for anything else."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{what} are numbers with commas between, got {text!r}.") from None
