"""What `branches` will train at most, and what of its options can be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rightbatch.errors import InputError
from rightbatch.fit.branches import OWN_RATE, RULES, base_rate
from rightbatch.records import WorkloadFacts

LEAST_STEPS = 16
"""Of the branch with the largest batch: fewer would be no training that a rate could be judged by."""


@dataclass(frozen=True)
class BranchPlan:
    """What will be trained at most.

    at: The steps of the trunk at which branches begin.
    factors: The multiples of the batch size of the trunk, each a multiple of the one before.
    branch_examples: How long every branch is.
    """

    batch_size: int
    at: tuple[int, ...]
    factors: tuple[int, ...]
    rules: tuple[str, ...]
    seeds: tuple[int, ...]
    branch_examples: int

    @property
    def trunk_examples(self) -> int:
        """Of the trunk alone."""
        return self.at[-1] * self.batch_size

    @property
    def most_examples(self) -> int:
        """Of all branches, if every rule keeps up at every size."""
        larger = list(itertools.product(self.rules, self.factors))
        cells = len({OWN_RATE, *itertools.starmap(base_rate, larger)}) + len(larger)
        return len(self.at) * cells * len(self.seeds) * self.branch_examples


def factors_within(factors: Sequence[int], batch_size: int, facts: WorkloadFacts) -> tuple[int, ...]:
    listed = tuple(factors)
    if not listed or listed[0] < 2 or any(low >= high or high % low for low, high in itertools.pairwise(listed)):
        raise InputError(
            f"Factors are whole numbers from 2, each a multiple of the one before (2, 4, 8, 16): so branches see the "
            f"same examples. Got {list(listed)}."
        )
    most = facts.train_examples or math.inf
    fitting = tuple(factor for factor in listed if factor * batch_size <= most)
    if not fitting:
        raise InputError(
            f"{listed[0]} times the batch size {batch_size} is more than all {facts.train_examples} training examples. "
            f"Choose a smaller --batch-size."
        )
    return fitting


def steps_of(at: Sequence[int]) -> tuple[int, ...]:
    if not at or min(at) < 0:
        raise InputError(f"Checkpoints are steps of the trunk, whole numbers from 0; got {list(at)}.")
    return tuple(sorted(set(at)))


def known_rules(rules: Sequence[str]) -> tuple[str, ...]:
    unknown = [rule for rule in rules if rule not in RULES]
    if unknown or not rules:
        raise InputError(f"Rules for the rate are {', '.join(RULES)}; got {', '.join(unknown) or 'none'}.")
    return tuple(dict.fromkeys(rules))


def seeds_after(seed: int, seeds: int) -> tuple[int, ...]:
    if seeds < 2:
        raise InputError(f"At least 2 seeds are needed to see what a difference of losses is worth, got {seeds}.")
    # Not that of the trunk: its first branch would see again what the trunk has just seen.
    return tuple(range(seed + 1, seed + 1 + seeds))


def whole_batches(examples: int | None, unit: int) -> int:
    """So many examples, rounded up to whole batches of the largest size."""
    if examples is None:
        return LEAST_STEPS * unit
    if examples < 1:
        raise InputError(f"A branch has at least one example, got {examples}.")
    return -(-examples // unit) * unit
