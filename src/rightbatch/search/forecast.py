"""What a search of few runs says of every batch size: measured where it trained to the target, predicted elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rightbatch.cells import Cell, SizeEvidence
from rightbatch.evidence import Evidence
from rightbatch.question import EQUIVALENT_FACTOR
from rightbatch.records import Interval
from rightbatch.search.few_runs import FewRuns
from rightbatch.search.outlook import Outlook, guess_of
from rightbatch.search.searcher import Guess
from rightbatch.zones import Likelihood

Array = npt.NDArray[np.float64]

DRAWS = 4000


@dataclass(frozen=True)
class Forecast:
    """The belief of a search about every batch size at its best rate.

    `sizes` have expected costs with 95 % intervals (of the mean over seeds); a best cell without costs is predicted,
    not run to the target. `best` is the cheapest one that reached it, None where none did; `guess` what would be
    trained with now, whether it reached the target or not. `gain`: by what share the answer is expected to become
    cheaper by the next run, which would cost about `gain_cost`. `likelihoods` are about the best that reached it: what
    is believed to be cheaper than that is as good.
    """

    sizes: tuple[SizeEvidence, ...]
    best: SizeEvidence | None
    guess: Guess
    likelihoods: tuple[Likelihood, ...]
    costs: Mapping[tuple[int, float], Interval]
    critical_batch_size: Interval
    seed_deviation: float
    gain: float
    gain_cost: float


def forecast(search: FewRuns, evidence: Evidence) -> Forecast:
    """The forecast of a search after its evidence."""
    outlook = _within_the_plan(search, search.outlook(evidence), evidence)
    batch_sizes = sorted({size for size, _ in outlook.belief.cells})
    draws = _with_errors_of_seconds(outlook.draws(DRAWS), outlook, evidence)
    cheapest = np.column_stack([draws[:, _columns(outlook, size)].min(axis=1) for size in batch_sizes])
    sizes = {size: _size(evidence, outlook, draws, size) for size in batch_sizes}
    reached = np.flatnonzero(outlook.reached)
    # No more is promised than the choice, which is the best of those that reached the target.
    least = draws[:, reached] if len(reached) else cheapest
    within = cheapest <= least.min(axis=1, keepdims=True) + math.log(EQUIVALENT_FACTOR)
    best = None
    if len(reached):
        row = outlook.advised if outlook.reached[outlook.advised] else int(reached[np.argmin(outlook.means[reached])])
        size = outlook.belief.cells[row][0]
        best = sizes[size] = _at(evidence, outlook, draws, size, row)
    gain, gain_cost = search.next_gain(evidence)
    return Forecast(
        sizes=tuple(sizes.values()),
        best=best,
        guess=guess_of(outlook, evidence),
        likelihoods=tuple(
            Likelihood(size, float(share)) for size, share in zip(batch_sizes, within.mean(axis=0), strict=True)
        ),
        costs={
            cell: _interval(evidence, outlook, row)
            for row, cell in enumerate(outlook.belief.cells)
            if not outlook.closed[row]
        },
        critical_batch_size=outlook.belief.critical_batch_size,
        seed_deviation=outlook.belief.seed_deviation,
        gain=-math.expm1(-gain),
        gain_cost=gain_cost,
    )


def _within_the_plan(search: FewRuns, outlook: Outlook, evidence: Evidence) -> Outlook:
    """Without cells of which no run reached the target and none is expected to in the length that runs are planned for.

    All of them where nothing has reached it: then what is believed is all there is.
    """
    planned, cells = search.planned_examples, outlook.belief.cells
    if not planned or evidence.facts.length_bound or not outlook.reached.any():
        return outlook
    longest = [evidence.cost_of_steps(size, planned / size, planned) or math.inf for size, _ in cells]
    beyond = (outlook.belief.mean[: len(cells)] > np.log(longest)) & ~outlook.reached
    return replace(outlook, closed=outlook.closed | beyond)


def _size(evidence: Evidence, outlook: Outlook, draws: Array, size: int) -> SizeEvidence:
    columns = _columns(outlook, size)
    row = columns[int(np.argmin(outlook.means[columns]))]
    reached = [k for k in columns if outlook.reached[k]]
    trained = min(reached, key=lambda k: float(outlook.means[k]), default=row)
    if outlook.means[trained] <= outlook.means[row] + math.log(EQUIVALENT_FACTOR):
        row = trained  # what was trained to the target is told, where no other rate is clearly better
    if outlook.closed[row]:  # every rate was tried, or is worse than one that was
        return SizeEvidence(size, evidence.cells_of(size), evidence.step_seconds(size))
    return _at(evidence, outlook, draws, size, row)


def _at(evidence: Evidence, outlook: Outlook, draws: Array, size: int, row: int) -> SizeEvidence:
    """A size at one of its cells."""
    _, rate = outlook.belief.cells[row]
    columns = _columns(outlook, size)
    rates = np.array([outlook.belief.cells[k][1] for k in columns])
    open_draws = draws[:, columns][np.isfinite(draws[:, columns]).any(axis=1)]
    low, high = np.quantile(rates[open_draws.argmin(axis=1)], [0.025, 0.975])
    measured = next((cell for cell in evidence.cells_of(size) if cell.learning_rate == rate), None)
    best = measured or Cell(size, rate, (), 0, 0, 0.0)
    fresh = tuple(cost for cost in evidence.fresh_costs(size, rate) if cost is not None)
    return SizeEvidence(
        batch_size=size,
        cells=evidence.cells_of(size),
        step_seconds=evidence.step_seconds(size),
        best=replace(best, costs=(*best.costs, *fresh)),
        cost=_interval(evidence, outlook, row),
        best_rate=Interval(rate, float(min(low, rate)), float(max(high, rate))),
        at_edge=rate in (rates[0], rates[-1]) and len(rates) > 1,
    )


def _columns(outlook: Outlook, size: int) -> list[int]:
    return [k for k, cell in enumerate(outlook.belief.cells) if cell[0] == size]


def _with_errors_of_seconds(draws: Array, outlook: Outlook, evidence: Evidence) -> Array:
    """Draws of log costs in which the seconds of a step are not known better than they were measured.

    The same for all cells of a size: it takes no part in which rate is best.
    """
    sizes = [size for size, _ in outlook.belief.cells]
    errors = {size: evidence.seconds_error(size) for size in sorted(set(sizes))}
    drawn = np.random.default_rng(1).standard_normal((len(draws), len(errors))) * np.array(list(errors.values()))
    place = {size: k for k, size in enumerate(errors)}
    return np.asarray(draws + drawn[:, [place[size] for size in sizes]])


def _interval(evidence: Evidence, outlook: Outlook, row: int) -> Interval:
    belief, (size, _) = outlook.belief, outlook.belief.cells[row]
    centre, variance = float(belief.mean[row]), float(belief.covariance[row, row])
    half = 1.96 * math.hypot(math.sqrt(variance), evidence.seconds_error(size))
    return Interval(math.exp(centre), math.exp(centre - half), math.exp(centre + half))
