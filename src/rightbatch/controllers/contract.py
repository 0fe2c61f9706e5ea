"""What a controller of the batch size is told, and what it says: at the boundary between two steps.

A controller has no memory of its own. What it wants to remember is a state of plain JSON values, handed back to it the
next time: the same states and sights give the same choices, and a run that is saved goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from rightbatch.errors import InputError
from rightbatch.records import GradientSample

State = Mapping[str, Any]
"""Plain JSON values."""

Need = Literal["loss", "gradients", "inner products", "seconds"]


@dataclass(frozen=True)
class Limits:
    """From which batch size to which, and by how much at most it changes from one choice to the next.

    Raises `InputError` for limits that nothing lies within.
    """

    smallest: int = 1
    largest: int = 2**30
    most_change: float = math.inf

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.largest:
            raise InputError(f"Batch sizes go from at least 1 to at least as many, got {self}.")
        if not self.most_change > 1:
            raise InputError(f"A batch size changes by a factor above 1 at most, got most_change={self.most_change}.")

    def within(self, wanted: float, now: int) -> int:
        """The whole batch size within all limits that is nearest to a wanted one; `now` for what is no number.

        One example more or less is always allowed: else a batch of one could not grow by less than a factor of two.
        """
        if math.isnan(wanted):
            wanted = now
        near = round(min(max(wanted, self.smallest), self.largest))
        if near > now * self.most_change:
            near = max(now + 1, math.floor(now * self.most_change))
        elif near < now / self.most_change:
            near = min(now - 1, math.ceil(now / self.most_change))
        return min(max(near, self.smallest), self.largest)


@dataclass(frozen=True)
class Seen:
    """What is known at a step boundary.

    Parameters
    ----------
    examples, steps: Trained on so far.
    batch_size, first_batch_size: In force now, and at the beginning.
    learning_rate: In force now.
    loss: Mean training loss of the steps since the controller was last asked; None where there were none.
    gradients: Squared norms at some of these steps, for those that need inner products in the metric "along" too.
    alpha_seconds, beta_seconds: A step of B examples takes alpha + beta B; None where that was not measured.
    """

    examples: int
    steps: int
    batch_size: int
    first_batch_size: int
    learning_rate: float
    loss: float | None = None
    gradients: tuple[GradientSample, ...] = ()
    alpha_seconds: float | None = None
    beta_seconds: float | None = None


@dataclass(frozen=True)
class Choice:
    """The batch size of the next step, and the multiple of the first rate that it is made at."""

    batch_size: int
    rate_factor: float = 1.0


class Controller(Protocol):
    """Chooses the batch size while training. Frozen: what it is made with is all that it is."""

    @property
    def limits(self) -> Limits:
        """Within which it chooses."""

    @property
    def needs(self) -> frozenset[Need]:
        """What of `Seen` it looks at, beside what is counted."""

    def begin(self) -> State:
        """The state before anything was seen."""

    def choose(self, state: State, seen: Seen) -> tuple[Choice, State]:
        """What to do next, and the state to be handed back. While it cannot tell, what is in force."""
