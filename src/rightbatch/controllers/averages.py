"""Exponential averages over examples of the two terms of the gradient noise, each by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rightbatch.controllers.contract import Seen, State
from rightbatch.fit.noise import terms

MEMORY_EXAMPLES = 20_000.0

NOTHING: State = {
    "gradient": 0.0,
    "trace": 0.0,
    "weight": 0.0,
    "examples": 0,
    "gradient_squares": 0.0,
    "weight_squares": 0.0,
}

ENOUGH = 2.0
"""A standard error is of more samples than this, counted by their weights."""


def with_seen(state: State, seen: Seen, memory_examples: float, metric: str = "plain") -> State:
    """The sums with what was seen in a metric: the weight of a sample falls by e in so many examples."""
    found = [sample for sample in seen.gradients if sample.metric == metric]
    if not found:
        return state
    kept = math.exp(-(seen.examples - state["examples"]) / memory_examples)
    gradient, trace = (float(term.mean()) for term in terms(found))
    return {
        **state,
        "gradient": kept * state["gradient"] + gradient,
        "trace": kept * state["trace"] + trace,
        "weight": kept * state["weight"] + 1.0,
        "examples": seen.examples,
        "gradient_squares": kept * state["gradient_squares"] + gradient**2,
        "weight_squares": kept**2 * state["weight_squares"] + 1.0,
    }


def means(state: Mapping[str, Any]) -> tuple[float, float] | None:
    """|G|^2 and tr(Sigma); None before anything was seen."""
    if not state["weight"]:
        return None
    return state["gradient"] / state["weight"], state["trace"] / state["weight"]


def standard_error(state: Mapping[str, Any]) -> float:
    """Of the mean |G|^2; NaN for fewer than three samples, or as few that are not forgotten."""
    if not state["weight"] or (count := state["weight"] ** 2 / state["weight_squares"]) <= ENOUGH:
        return math.nan
    mean = state["gradient"] / state["weight"]
    variance = max(0.0, state["gradient_squares"] / state["weight"] - mean**2)
    return math.sqrt(variance / (count - 1))


def noise_scale(state: State, caution: float = 0.0) -> float:
    """tr(Sigma) / |G|^2: NaN before anything was seen, infinite where |G|^2 cannot be told from zero.

    With `caution`, |G|^2 is so many standard errors more than was seen; NaN where these are not known.
    """
    found = means(state)
    if found is None:
        return math.nan
    gradient, trace = found
    if caution:
        gradient += caution * standard_error(state)
    if math.isnan(gradient):
        return math.nan
    return max(0.0, trace) / gradient if gradient > 0 else math.inf
