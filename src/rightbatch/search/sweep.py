"""The exhaustive sweep: batch sizes x rates x seeds, the rate tuned at every size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rightbatch.cells import cheapest
from rightbatch.curves import StopRule, until_horizon
from rightbatch.evidence import Evidence
from rightbatch.lattice import index_of, rate_at
from rightbatch.records import Settings, Trial
from rightbatch.search.rates import next_index
from rightbatch.search.strategy import Action, Advance, Done, Offers, Wait, missing_seed


@dataclass(frozen=True)
class Sweep:
    """Every size with every seed. Sizes are taken outwards from `first_size`; each starts at its neighbour's best rate.

    `rates`: tune on the lattice where None, else exactly these. A rate that one seed missed is not run with the others.
    """

    batch_sizes: Sequence[int]
    seeds: Sequence[int]
    first_size: int
    first_rate: float
    offers: Offers
    rates: Sequence[float] | None = None
    until: StopRule = until_horizon
    planned_examples: int | None = None
    settings: Settings = field(default_factory=Settings)

    def __call__(self, evidence: Evidence) -> Action:
        unsettled: set[int] = set()
        for size, neighbour in outwards(self.batch_sizes, self.first_size):
            if neighbour in unsettled and self.rates is None:  # where to start is not known yet
                unsettled.add(size)
                continue
            trial = self._next_at(evidence, size, neighbour)
            if trial is not None:
                return Advance(trial, self.until, f"batch size {size}: which rate?")
            if evidence.pending_rates(size):
                unsettled.add(size)
        return Wait() if evidence.pending else Done("every size has its best rate")

    def _next_at(self, evidence: Evidence, size: int, neighbour: int | None) -> Trial | None:
        cells = evidence.cells_of(size)
        for cell in cells:  # first the other seeds of what has begun
            if self.rates is not None and not any(cell.learning_rate == rate for rate in self.rates):
                continue
            seed = missing_seed(evidence, size, cell.learning_rate, self.seeds)
            if seed is not None and not cell.misses and self.offers(self._trial(size, cell.learning_rate, seed)):
                return self._trial(size, cell.learning_rate, seed)
        if self.rates is not None:
            tried = {cell.learning_rate for cell in cells} | evidence.pending_rates(size)
            left = (self._trial(size, rate, self.seeds[0]) for rate in self.rates if rate not in tried)
            return next((trial for trial in left if self.offers(trial)), None)
        index = next_index(
            cells,
            start_index(evidence, neighbour, self.first_rate),
            lambda k: self.offers(self._trial(size, rate_at(k), self.seeds[0])),
            pending=evidence.pending_rates(size),
        )
        return None if index is None else self._trial(size, rate_at(index), self.seeds[0])

    def _trial(self, size: int, rate: float, seed: int) -> Trial:
        return Trial(size, rate, seed, self.planned_examples, self.settings)


def outwards(batch_sizes: Sequence[int], first: int) -> list[tuple[int, int | None]]:
    """Each size with the neighbour done before it: the one nearest to `first`, then up and down in turn."""
    sizes = sorted(set(batch_sizes))
    middle = min(
        range(len(sizes)), key=lambda k: abs(sizes[k] / first - 1) if sizes[k] >= first else first / sizes[k] - 1
    )
    order: list[tuple[int, int | None]] = [(sizes[middle], None)]
    for distance in range(1, len(sizes)):
        if middle + distance < len(sizes):
            order.append((sizes[middle + distance], sizes[middle + distance - 1]))
        if middle - distance >= 0:
            order.append((sizes[middle - distance], sizes[middle - distance + 1]))
    return order


def start_index(evidence: Evidence, neighbour: int | None, first_rate: float) -> int:
    """The lattice index to start at: the neighbour's best; where it has none, its own start."""
    if neighbour is not None:
        best = cheapest(evidence.cells_of(neighbour))
        if best is not None:
            return index_of(best.learning_rate)
    return index_of(first_rate)
