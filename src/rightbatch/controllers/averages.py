"""Exponential averages over examples of the two terms of the gradient noise, each by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rightbatch.controllers.contract import Seen, State
from rightbatch.fit.noise import terms

NOTHING: State = {"gradient": 0.0, "trace": 0.0, "weight": 0.0, "examples": 0}


def with_seen(state: State, seen: Seen, memory_examples: float, metric: str = "plain") -> State:
    """The sums with what was seen in a metric: the weight of a sample falls by e in so many examples."""
    found = [sample for sample in seen.gradients if sample.metric == metric]
    if not found:
        return state
    kept = math.exp(-(seen.examples - state["examples"]) / memory_examples)
    gradient, trace = terms(found)
    return {
        **state,
        "gradient": kept * state["gradient"] + float(gradient.mean()),
        "trace": kept * state["trace"] + float(trace.mean()),
        "weight": kept * state["weight"] + 1.0,
        "examples": seen.examples,
    }


def means(state: Mapping[str, Any]) -> tuple[float, float] | None:
    """|G|^2 and tr(Sigma); None before anything was seen."""
    if not state["weight"]:
        return None
    return state["gradient"] / state["weight"], state["trace"] / state["weight"]


def noise_scale(state: State) -> float:
    """tr(Sigma) / |G|^2: NaN before anything was seen, infinite where |G|^2 cannot be told from zero."""
    found = means(state)
    if found is None:
        return math.nan
    gradient, trace = found
    return max(0.0, trace) / gradient if gradient > 0 else math.inf
