"""What was planned before the training: sizes and rates by examples seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rightbatch.batch_schedule import BatchSchedule, parsed
from rightbatch.controllers.contract import Choice, Limits, Need, Seen, State
from rightbatch.errors import InputError

NONE: frozenset[Need] = frozenset()


@dataclass(frozen=True)
class Planned:
    """A batch schedule, as a text says it: "1024@50000" (see `rightbatch.batch_schedule`)."""

    plan: str
    limits: Limits = field(default_factory=Limits)
    needs: frozenset[Need] = field(default=NONE, init=False)

    def __post_init__(self) -> None:
        parsed(1, self.plan)

    def begin(self) -> State:
        return {}

    def choose(self, state: State, seen: Seen) -> tuple[Choice, State]:
        phase = self.schedule(seen.first_batch_size).at(seen.examples)
        return Choice(self.limits.within(phase.batch_size, seen.batch_size), phase.rate_factor), state

    def schedule(self, first_batch_size: int) -> BatchSchedule:
        """It, begun with a batch size."""
        return parsed(first_batch_size, self.plan)


@dataclass(frozen=True)
class InsteadOfDecay:
    """Where the rate would be divided by `factor`, the batch is multiplied by it (Smith et al. 2018, arXiv 1711.00489).

    `milestones_examples`: where. A batch that would be larger than the limit stays there, and the rate is divided by
    what is left of the factor.

    Raises `InputError` for a factor that is not above 1.
    """

    milestones_examples: Sequence[int]
    factor: float = 5.0
    limits: Limits = field(default_factory=Limits)
    needs: frozenset[Need] = field(default=NONE, init=False)

    def __post_init__(self) -> None:
        if not self.factor > 1:
            raise InputError(f"A batch grows by a factor above 1, got {self.factor}.")

    def begin(self) -> State:
        return {}

    def choose(self, state: State, seen: Seen) -> tuple[Choice, State]:
        passed = sum(seen.examples >= milestone for milestone in self.milestones_examples)
        wanted = seen.first_batch_size * self.factor**passed
        size = self.limits.within(wanted, seen.batch_size)
        return Choice(size, min(1.0, size / wanted)), state
