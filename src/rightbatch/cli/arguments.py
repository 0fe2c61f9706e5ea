"""What people type on the command line, as values: sizes, rates, settings, the question."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rightbatch.commands import Command
from rightbatch.errors import InputError
from rightbatch.records import Setting


def asked(
    *,
    present: str | None = None,
    settings: Sequence[str] | None = None,
    direction: str | None = None,
    **others: Any,
) -> dict[str, Any]:
    """The fields of `Ask` from what was typed. Raises `InputError` for what cannot be read."""
    if direction not in (None, "min", "max"):
        raise InputError(f"--direction is min or max, got {direction!r}.")
    return dict(
        present=_present(present),
        settings=dict(_setting(text) for text in settings or ()),
        direction=direction,
        **others,
    )


def given(words: Sequence[str], ask: Mapping[str, Any] | None = None, **of_command: Any) -> Any:
    """The workload that was typed: one name, or the words of a command with what is asked of it.

    Raises `InputError` for several words that are not a command, and for options that only a command has.
    """
    if len(words) == 1 and not any(of_command.values()):
        return words[0]
    if not any("{batch_size}" in word for word in words):
        if any("{learning_rate}" in word for word in words):
            raise InputError(
                f"The command has no {{batch_size}} in it, so every batch size would be trained alike; got "
                f"{shlex.join(words)!r}. Write {{batch_size}} where the program is told its batch size."
            )
        raise InputError(
            f"Give one workload, or a command with {{batch_size}} and {{learning_rate}} in it, after --: "
            f"rightbatch find -- python train.py --batch-size {{batch_size}} --lr {{learning_rate}}; got "
            f"{shlex.join(words)!r}."
        )
    ask = ask or {}
    return Command(
        argv=tuple(words),
        direction=ask.get("direction"),
        train_examples=ask.get("train_examples") or 0,
        present=ask.get("present"),
        settings=ask.get("settings") or {},
        length_bound=bool(ask.get("length_bound")),
        **of_command,
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
    for kind in (int, float):  # a program that is given 64 may not read 64.0
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def sizes(text: str | None) -> tuple[int, ...] | None:
    """Batch sizes from "16,32,64" or "4..4096"; the latter are the powers of two between, ends included."""
    if text is None:
        return None
    span = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if span:
        low, high = int(span[1]), int(span[2])
        if low < 1:
            raise InputError(f"Batch sizes are whole numbers from 1, got {text!r}.")
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
