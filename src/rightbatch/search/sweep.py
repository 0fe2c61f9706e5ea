"""The exhaustive sweep: batch sizes x rates x seeds, the rate tuned at every size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rightbatch.cells import Cell, cheapest
from rightbatch.curves import Curve, StopRule, any_rule, until_horizon
from rightbatch.evidence import Evidence
from rightbatch.lattice import index_of, rate_at
from rightbatch.records import Settings, Trial
from rightbatch.search.rates import next_index
from rightbatch.search.strategy import Action, Advance, Done, Offers, Wait, missing_seed


@dataclass(frozen=True)
class Sweep:
    """Every size with every seed. Sizes are taken outwards from `first_size`; each starts at its neighbour's best rate.

    `rates`: exactly these, each with every seed. None: tuned on the lattice; a rate that one seed missed is then not
    run with the others. Where the mean cost over `seeds` is within `contender_factor` of the best, `contender_seeds`
    run too. Every run stops after `run_seconds` of training, if given: steps x seconds per step of its size.
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
    run_seconds: float | None = None
    contender_seeds: Sequence[int] = ()
    contender_factor: float = 2.0

    def __call__(self, evidence: Evidence) -> Action:
        unsettled: set[int] = set()
        for size, neighbour in outwards(self.batch_sizes, self.first_size):
            if neighbour in unsettled and self.rates is None:  # where to start is not known yet
                unsettled.add(size)
                continue
            trial = self._next_at(evidence, size, neighbour)
            if trial is not None:
                return self._advance(evidence, trial, f"batch size {size}: which rate?")
            if evidence.pending_rates(size):
                unsettled.add(size)
        if any(trial.seed in self.seeds for trial in evidence.pending):  # who the contenders are is not known yet
            return Wait()
        for cell in self._contenders(evidence):
            trial = self._missing(evidence, cell.batch_size, cell.learning_rate, self.contender_seeds)
            if trial is not None:
                return self._advance(evidence, trial, "near the best: how much do seeds differ?")
        return Wait() if evidence.pending else Done("every size has its best rate")

    def _next_at(self, evidence: Evidence, size: int, neighbour: int | None) -> Trial | None:
        if self.rates is not None:
            trials = (self._missing(evidence, size, rate, self.seeds) for rate in self.rates)
            return next((trial for trial in trials if trial is not None), None)
        cells = evidence.cells_of(size)
        for cell in cells:  # first the other seeds of what has begun
            trial = None if cell.misses else self._missing(evidence, size, cell.learning_rate, self.seeds)
            if trial is not None:
                return trial
        index = next_index(
            cells,
            start_index(evidence, neighbour, self.first_rate),
            lambda k: self.offers(self._trial(size, rate_at(k), self.seeds[0])),
            pending=evidence.pending_rates(size),
        )
        return None if index is None else self._trial(size, rate_at(index), self.seeds[0])

    def _contenders(self, evidence: Evidence) -> Sequence[Cell]:
        """The cells near the best, judged by `seeds` alone: what further seeds bring does not change who gets them."""
        if not self.contender_seeds:
            return ()
        judged = replace(evidence, runs=tuple(run for run in evidence.runs if run.trial.seed in self.seeds))
        cells = [cell for cell in judged.cells if cell.batch_size in self.batch_sizes and self._asks_for(cell)]
        best = cheapest(cells)
        return () if best is None else [cell for cell in cells if cell.mean <= self.contender_factor * best.mean]

    def _asks_for(self, cell: Cell) -> bool:
        return self.rates is None or cell.learning_rate in self.rates

    def _missing(self, evidence: Evidence, size: int, rate: float, seeds: Sequence[int]) -> Trial | None:
        """The trial with the first of these seeds that is offered and has not run; None if there is none."""
        offered = [seed for seed in seeds if self.offers(self._trial(size, rate, seed))]
        seed = missing_seed(evidence, size, rate, offered)
        return None if seed is None else self._trial(size, rate, seed)

    def _advance(self, evidence: Evidence, trial: Trial, why: str) -> Advance:
        if self.run_seconds is None:
            return Advance(trial, self.until, why)
        spent = until_seconds(evidence.step_seconds(trial.batch_size), self.run_seconds)
        return Advance(trial, any_rule(self.until, spent), why)

    def _trial(self, size: int, rate: float, seed: int) -> Trial:
        return Trial(size, rate, seed, self.planned_examples, self.settings)


def until_seconds(step_seconds: float | None, limit_seconds: float) -> StopRule:
    """Stop at the first rung at or beyond so many training seconds: steps x `step_seconds`, the run's own if None."""

    def rule(curve: Curve) -> str | None:
        last = curve[-1]
        seconds = last.seconds if step_seconds is None else last.step * step_seconds
        return f"trained for the {limit_seconds:g} s that a run was given" if seconds >= limit_seconds else None

    return rule


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
