"""What is asked of a study: an objective, a target, and which costs are as good."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from rightbatch.errors import InputError
from rightbatch.records import Target

EQUIVALENT_FACTOR = 1.1
"""Costs within this factor of the best are as good."""

EQUIVALENT_GAIN = 0.02
"""Metrics within this share of the whole gain are as good."""


class Objective(enum.Enum):
    """What "best" means. The value is what is made small."""

    TIME = "training seconds to the target"
    EXAMPLES = "examples to the target"
    STEPS = "optimizer steps to the target"
    METRIC = "shortfall of the metric at equal cost"


@dataclass(frozen=True)
class Question:
    """An objective with what it needs: a target, or for METRIC the seconds or examples at which runs are compared."""

    objective: Objective
    target: Target
    at_seconds: float | None = None
    at_examples: float | None = None

    def __post_init__(self) -> None:
        given = (self.at_seconds is not None) + (self.at_examples is not None)
        if given != (self.objective is Objective.METRIC):
            raise InputError(
                "The objective 'metric' compares at given seconds or at given examples: give exactly one of them, "
                "and none with the other objectives."
            )


def gain_short(cost: float) -> float:
    """The share of the gain that a METRIC cost stands for: how far short of the best value a run stayed."""
    return EQUIVALENT_GAIN * math.log(cost) / math.log(EQUIVALENT_FACTOR)
