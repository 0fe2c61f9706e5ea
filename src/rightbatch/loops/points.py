"""The numbers of a point that a loop yielded, as plain ones."""

from __future__ import annotations

from typing import Any

from rightbatch.errors import WorkloadError


def real(value: Any, name: str) -> float | None:
    if value is None:
        return None
    try:
        return float(value.detach() if hasattr(value, "detach") else value)  # torch warns of a loss with its graph
    except Exception as error:
        raise WorkloadError(
            f"The {name} of a point is {value!r:.80}, a {type(value).__name__}. Give a number."
        ) from error


def whole(value: Any, name: str, least: int = 0) -> int:
    try:
        whole = int(value)
        right = bool(whole == value) and whole >= least
    except Exception:  # whatever the person's type raises
        right = False
    if not right:
        raise WorkloadError(
            f"The {name} is {value!r:.80}, a {type(value).__name__}. Give a whole number of at least {least}."
        )
    return whole
