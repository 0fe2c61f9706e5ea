"""The family of AdaDamp (Sievert and Shah 2019, arXiv 1910.08222): batches that grow as the loss falls, or by a clock.

Where the wanted batch is larger than the limit, the rate is divided instead: first rate x largest / wanted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from rightbatch.controllers.averages import MEMORY_EXAMPLES, NOTHING, means, with_seen
from rightbatch.controllers.contract import Choice, Limits, Need, Seen, State
from rightbatch.controllers.planned import NONE

LOSS: frozenset[Need] = frozenset({"loss"})


def damped(limits: Limits, wanted: float, seen: Seen) -> Choice:
    """The wanted size, or the largest at a smaller rate."""
    size = limits.within(wanted, seen.batch_size)
    return Choice(size, min(1.0, limits.largest / wanted) if wanted > limits.largest else 1.0)


@dataclass(frozen=True)
class AdaDamp:
    """B_0 (F_0 - F*) / (F - F*): `least_loss` is F*, F_0 the first loss that was seen."""

    least_loss: float = 0.0
    limits: Limits = field(default_factory=Limits)
    needs: frozenset[Need] = field(default=LOSS, init=False)

    def begin(self) -> State:
        return {"first_loss": None, "loss": None}

    def choose(self, state: State, seen: Seen) -> tuple[Choice, State]:
        if seen.loss is not None:
            first = state["first_loss"] if state["first_loss"] is not None else seen.loss
            state = {"first_loss": first, "loss": seen.loss}
        if state["loss"] is None:
            return Choice(seen.batch_size), state
        left = state["loss"] - self.least_loss
        ratio = (state["first_loss"] - self.least_loss) / left if left > 0 else math.nan
        return damped(self.limits, seen.first_batch_size * ratio, seen), state


@dataclass(frozen=True)
class PadaDamp:
    """B_0 + rate x steps: `growth` examples more at every step."""

    growth: float
    limits: Limits = field(default_factory=Limits)
    needs: frozenset[Need] = field(default=NONE, init=False)

    def begin(self) -> State:
        return {}

    def choose(self, state: State, seen: Seen) -> tuple[Choice, State]:
        return damped(self.limits, seen.first_batch_size + self.growth * seen.steps, seen), state


@dataclass(frozen=True)
class GeoDamp:
    """Times `factor` after every `delay_examples`."""

    delay_examples: int
    factor: float = 5.0
    limits: Limits = field(default_factory=Limits)
    needs: frozenset[Need] = field(default=NONE, init=False)

    def begin(self) -> State:
        return {}

    def choose(self, state: State, seen: Seen) -> tuple[Choice, State]:
        grown = self.factor ** (seen.examples // self.delay_examples)
        return damped(self.limits, seen.first_batch_size * grown, seen), state


@dataclass(frozen=True)
class RadaDamp:
    """B_0 over the mean of two ratios to what was seen first: of the loss, and of |G|^2."""

    memory_examples: float = MEMORY_EXAMPLES
    limits: Limits = field(default_factory=Limits)
    needs: frozenset[Need] = field(default=frozenset({"gradients", "loss"}), init=False)

    def begin(self) -> State:
        return {**NOTHING, "first_loss": None, "loss": None, "first_gradient": None}

    def choose(self, state: State, seen: Seen) -> tuple[Choice, State]:
        state = with_seen(state, seen, self.memory_examples)
        if seen.loss is not None:
            first = state["first_loss"] if state["first_loss"] is not None else seen.loss
            state = {**state, "loss": seen.loss, "first_loss": first}
        found = means(state)
        if found is not None and state["first_gradient"] is None and found[0] > 0:
            state = {**state, "first_gradient": found[0]}
        if state["loss"] is None or found is None or state["first_gradient"] is None or not state["first_loss"]:
            return Choice(seen.batch_size), state
        mean = (state["loss"] / state["first_loss"] + max(0.0, found[0]) / state["first_gradient"]) / 2
        return damped(self.limits, seen.first_batch_size / mean if mean > 0 else math.nan, seen), state
