"""Another batch size than the wished one: rate, warm-up, schedule, steps and passes moved together, by a named rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from rightbatch.errors import InputError


@dataclass(frozen=True)
class Plan:
    """A training in numbers; `None` for what it does not have. Schedules are of steps: their milestones move with them.

    `examples` is how many it sees in all; `momentum` is that of SGD, the others are those of Adam.
    """

    batch_size: int
    learning_rate: float
    examples: float | None = None
    warm_up_steps: float = 0.0
    milestones: tuple[float, ...] = ()
    beta1: float | None = None
    beta2: float | None = None
    epsilon: float | None = None

    @property
    def steps(self) -> float | None:
        """Updates of the weights in all."""
        return None if self.examples is None else self.examples / self.batch_size


@dataclass(frozen=True)
class Rule:
    """How a training is moved to a batch size `factor` times as large; `source` is where that was published."""

    statement: str
    source: str
    move: Callable[[Plan, float], Plan]


def moved(plan: Plan, batch_size: int, rule: str) -> Plan:
    """The training at another batch size. Raises `InputError` for a rule that is not in `RULES`, or a size below 1."""
    if rule not in RULES:
        raise InputError(f"There is no rule {rule!r} for another batch size; there are {', '.join(RULES)}.")
    if batch_size < 1:
        raise InputError(f"A batch size is at least 1, got {batch_size}.")
    return RULES[rule].move(replace(plan, batch_size=batch_size), batch_size / plan.batch_size)


def _linear(plan: Plan, factor: float) -> Plan:
    return _same_examples(replace(plan, learning_rate=plan.learning_rate * factor), factor)


def _square_root(plan: Plan, factor: float) -> Plan:
    return _same_examples(replace(plan, learning_rate=plan.learning_rate * math.sqrt(factor)), factor)


def _same_steps(plan: Plan, factor: float) -> Plan:
    """Milestones and warm-up are of steps: they stay, and the passes change."""
    examples = None if plan.examples is None else plan.examples * factor
    return replace(plan, learning_rate=plan.learning_rate * math.sqrt(factor), examples=examples)


def _adam(plan: Plan, factor: float) -> Plan:
    """1 - beta grows with the batch; beyond 1 / (1 - beta) there is none."""
    for name in ("beta1", "beta2"):
        beta = getattr(plan, name)
        if beta is not None and factor * (1 - beta) > 1 - 1e-9:
            raise InputError(
                f"The rule of Adam does not reach so far: {name}={beta:g} would become {1 - factor * (1 - beta):g} at "
                f"{factor:g} times the batch. Choose a size less than {1 / (1 - beta):g} times as large."
            )
    return _square_root(
        replace(
            plan,
            beta1=None if plan.beta1 is None else 1 - factor * (1 - plan.beta1),
            beta2=None if plan.beta2 is None else 1 - factor * (1 - plan.beta2),
            epsilon=None if plan.epsilon is None else plan.epsilon / math.sqrt(factor),
        ),
        factor,
    )


def _same_examples(plan: Plan, factor: float) -> Plan:
    """As many examples in all: what is of steps shrinks as the batch grows."""
    milestones = tuple(step / factor for step in plan.milestones)
    return replace(plan, warm_up_steps=plan.warm_up_steps / factor, milestones=milestones)


RULES = {
    "linear": Rule(
        "the rate in proportion to the batch, the same passes", "Goyal et al. 2017, arXiv 1706.02677", _linear
    ),
    "sqrt": Rule(
        "the rate with the root of the batch, the same passes", "Krizhevsky 2014, arXiv 1404.5997", _square_root
    ),
    "sqrt-same-steps": Rule(
        "the rate with the root of the batch, the same steps", "Hoffer et al. 2017, arXiv 1705.08741", _same_steps
    ),
    "adam": Rule(
        "the rate with the root of the batch, 1 - beta in proportion to it, the same passes",
        "Malladi et al. 2022, arXiv 2205.10287",
        _adam,
    ),
}
"""By the name that people give."""
