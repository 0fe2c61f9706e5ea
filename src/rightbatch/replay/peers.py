"""What people do without a search of their own: random cells, a grid, batch size 32, the largest batch.

Each is a pure function of the evidence and of what it was told. Runs go to the target or to their end, one after the
other; the guess is the cell with the lowest median seconds so far.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rightbatch.curves import until_target
from rightbatch.evidence import Evidence
from rightbatch.nearness import apart, nearest
from rightbatch.records import Trial
from rightbatch.replay.scale import SMALL
from rightbatch.replay.seen import cells_of, fastest, offered_rates
from rightbatch.replay.table import Cell
from rightbatch.replay.world import Told
from rightbatch.search.searcher import Guess
from rightbatch.search.strategy import Action, Advance, Done, Offers


@dataclass(frozen=True)
class InOrder:
    """Runs cells in a given order, each with the next seed in every round, for as many rounds as wanted."""

    order: tuple[Cell, ...]
    offers: Offers
    rounds: int | None = None
    """None: until no seed is left."""

    def __call__(self, evidence: Evidence) -> Action:
        made = {(run.trial.batch_size, run.trial.learning_rate, run.trial.seed) for run in evidence.runs}
        for seed in itertools.count() if self.rounds is None else range(self.rounds):
            waiting = [cell for cell in self.order if (*cell, seed) not in made]
            trial = next((trial for cell in waiting if self.offers(trial := Trial(*cell, seed))), None)
            if trial is not None:
                return Advance(trial, until_target(evidence.question.target), "the next one")
            if len(waiting) == len(self.order):
                break  # nobody has this seed
        return Done("every cell was run")

    def guess(self, evidence: Evidence) -> Guess:
        return Guess(*(fastest(evidence) or self.order[0]))


def random_cells(told: Told) -> InOrder:
    """Cells in a random order, each once before any is run again."""
    cells = cells_of(told)
    return InOrder(tuple(cells[k] for k in told.generator.permutation(len(cells))), told.offers)


def grid(told: Told) -> InOrder:
    """Cells in an order that covers sizes and rates evenly at every moment, finer and finer."""
    places = evenly(len(told.sizes), len(told.rates))
    order = ((told.sizes[row], told.rates[column]) for row, column in places)
    offered = set(cells_of(told))
    return InOrder(tuple(cell for cell in order if cell in offered), told.offers)


def default_32(told: Told) -> InOrder:
    """Batch size 32, or the nearest that there is; its rates one after the other, outwards from the middle."""
    rates = offered_rates(told)
    size = nearest(rates, SMALL)
    middle = middle_of(told.rates)
    order = sorted(rates[size], key=lambda rate: apart(rate, middle))
    return InOrder(tuple((size, rate) for rate in order), told.offers, rounds=1)


def largest(told: Told) -> Largest:
    """The largest batch, at the middle rate of the range taken for that of batch size 32 and scaled linearly.

    The linear rule is that of Goyal et al. 2017 (arXiv 1706.02677), section 2.1.
    """
    rates = offered_rates(told)
    size = max(rates)
    wanted = nearest(rates[size], middle_of(told.rates) * size / SMALL)
    return Largest(size, tuple(rate for rate in reversed(rates[size]) if rate <= wanted))


@dataclass(frozen=True)
class Largest:
    """One batch size; while its rate misses the target, the next lower one."""

    batch_size: int
    rates: tuple[float, ...]
    """From the first that is tried downwards."""

    def __call__(self, evidence: Evidence) -> Action:
        tried = len(evidence.runs)
        if fastest(evidence) is not None:
            return Done("the target was reached")
        if tried == len(self.rates):
            return Done("no lower rate is left")
        trial = Trial(self.batch_size, self.rates[tried], 0)
        return Advance(trial, until_target(evidence.question.target), "the next lower rate")

    def guess(self, evidence: Evidence) -> Guess:
        upcoming = self.rates[min(len(evidence.runs), len(self.rates) - 1)]
        return Guess(*(fastest(evidence) or (self.batch_size, upcoming)))


# ------------------------------------------------------------------------------------------------------- helpers


def middle_of(rates: Sequence[float]) -> float:
    """The geometric middle of a range of rates."""
    return math.sqrt(min(rates) * max(rates))


@lru_cache(maxsize=256)
def evenly(rows: int, columns: int) -> tuple[tuple[int, int], ...]:
    """Every place of a rectangle in the order in which the Halton sequence (bases 2 and 3) first falls on it."""
    found: dict[tuple[int, int], None] = {}
    for across, along in zip(_radical_inverse(2), _radical_inverse(3), strict=True):
        found.setdefault((across[0] * rows // across[1], along[0] * columns // along[1]))
        if len(found) == rows * columns:
            break
    return tuple(found)


def _radical_inverse(base: int) -> Iterator[tuple[int, int]]:
    """The van der Corput sequence, the digits of 1, 2, 3 and so on mirrored at the point, as exact fractions."""
    for number in itertools.count(1):
        numerator, denominator = 0, 1
        while number:
            number, digit = divmod(number, base)
            numerator, denominator = numerator * base + digit, denominator * base
        yield numerator, denominator
