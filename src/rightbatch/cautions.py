"""What a reader must know before trusting an answer: the cautions that the evidence gives reason to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from rightbatch.answer import Caution, Recommendation
from rightbatch.cells import Cell, SizeEvidence
from rightbatch.directions import has_learned, looks_wrong, other
from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.growth import mean_cost
from rightbatch.left_out import compared_at, left_out
from rightbatch.question import EQUIVALENT_FACTOR, Objective
from rightbatch.records import Run, StopReason, WorkloadFacts
from rightbatch.search.forecast import Forecast

FEWEST_POINTS = 3
"""Fewer different points may be the same by chance."""


def cautions_of_forecast(evidence: Evidence, forecast: Forecast, best: SizeEvidence) -> tuple[str, ...]:
    """Of a search of few runs: what it expects beyond what was trained, and what it assumes."""
    said, guess = [], forecast.guess
    better = forecast.costs[guess.batch_size, guess.learning_rate].estimate
    assert best.cost is not None
    if better < best.cost.estimate / EQUIVALENT_FACTOR:
        share = 100 * (1 - better / best.cost.estimate)
        said.append(Caution.NOT_REACHED_YET.value.format(guess.batch_size, f"{guess.learning_rate:g}", f"{share:.0f}"))
    if all(len(size.best.costs) < 2 for size in forecast.sizes if size.best) and evidence.seed_noise.deviation is None:
        said.append(Caution.SEEDS_ASSUMED.value.format(f"{100 * forecast.seed_deviation:.0f}"))
    return tuple(said)


def _given_up(evidence: Evidence, batch_size: int) -> bool:
    """Whether the runs of a size that missed the target were stopped for their cost, not at their planned length."""
    reasons = {run.stop.reason for run in evidence.relevant if run.trial.batch_size == batch_size and run.stop}
    return StopReason.STOPPED_BY_RULE in reasons and StopReason.FINISHED not in reasons


def _early(evidence: Evidence, answer: Recommendation) -> bool:
    """Whether a run of the choice was beyond the target at its first evaluation after step 0."""
    if evidence.question.objective is Objective.METRIC:
        return False
    crossings = [evidence.crossing(run) for run in evidence.runs_at(answer.batch_size, answer.learning_rate)]
    return any(found is not None and found.low_examples == 0 for found in crossings)


def cautions_of(evidence: Evidence, answer: Recommendation) -> tuple[str, ...]:
    """Of any answer."""
    said = [*_of_direction(evidence), *_of_copies(evidence)]
    if sizes := left_out(evidence):
        said.append(Caution.LEFT_OUT.value.format(_listed(sizes), compared_at(evidence)))
    if not evidence.facts.length_bound and _early(evidence, answer):
        said.append(Caution.EARLY.value)
    said += [Caution.BEST_AT_EDGE.value.format(r.batch_size) for r in answer.sizes if r.at_edge and r.seeds]
    said += _of_sizes_without_cost(evidence, [row.batch_size for row in answer.sizes if row.learning_rate is None])
    for row in (row for row in answer.sizes if row.learning_rate is not None):
        if cell := _cut_short(evidence, row.batch_size, row.cost.estimate if row.cost else math.inf):
            seeds = f"{len(cell.costs)} of {len(cell.costs) + cell.misses}"
            said.append(Caution.CUT_SHORT.value.format(row.batch_size, f"{cell.learning_rate:g}", seeds))
    if len(answer.sizes) > 1 and answer.batch_size in (answer.sizes[0].batch_size, answer.sizes[-1].batch_size):
        which = "smallest" if answer.batch_size == answer.sizes[0].batch_size else "largest"
        said.append(Caution.SIZE_AT_EDGE.value.format(which))
    if answer.seed_deviation is None:
        said.append(Caution.ONE_SEED.value)
    elsewhere = {row.batch_size for row in answer.targets} - set(answer.not_excluded)
    if elsewhere:
        path = ", ".join(f"{row.batch_size} at {row.target:.4g}" for row in answer.targets)
        said.append(Caution.TARGET_MOVES.value.format(path))
    said += _of_fresh_runs(evidence, answer)
    unsteady = [r.batch_size for r in evidence.step_times if len(r.unsteady) > len(r.seconds) / 4]
    if unsteady:
        said.append(Caution.UNSTEADY.value.format(_listed(unsteady)))
    if not any(point.test_metric is not None for run in evidence.runs for point in run.points[-1:]):
        said.append(Caution.OPTIMISTIC.value)
    return (*said, *_cautions_of_workload(evidence.facts))


def _of_fresh_runs(evidence: Evidence, answer: Recommendation) -> Iterator[str]:
    """Of the choice made once more with seeds that chose nothing; or not, though others were."""
    if not answer.fresh_costs:
        if any(run.trial.seed >= FRESH_SEED for run in evidence.relevant):
            yield Caution.NOT_CHECKED.value
        return
    # The estimate of a search of few runs has the fresh run in it: what it is held against is what was known before.
    chosen = (c for c in evidence.cells_of(answer.batch_size) if c.learning_rate == answer.learning_rate and c.reaches)
    before = next((cell.mean for cell in chosen), answer.cost.estimate)
    reached = [cost for cost in answer.fresh_costs if cost is not None]
    if len(reached) < len(answer.fresh_costs):
        runs = [run for run in evidence.runs_at(answer.batch_size, answer.learning_rate) if evidence.conclusive(run)]
        missed = sum(evidence.crossing(run) is None for run in runs)
        yield Caution.FRESH_MISSED.value.format(missed, len(runs))
    if reached and (times := mean_cost(reached) / before) > 1.25:
        yield Caution.FRESH_SLOW.value.format(f"{times:.2f}")


def _of_sizes_without_cost(evidence: Evidence, sizes: Sequence[int]) -> list[str]:
    """Why nothing is said of what these cost, a sentence a reason."""
    by_reason: dict[Caution, list[int]] = {}
    said = []
    for size in sizes:
        if some := [cell for cell in evidence.cells_of(size) if cell.costs]:
            most = max(some, key=lambda cell: len(cell.costs) / (len(cell.costs) + cell.misses))
            seeds = len(most.costs), len(most.costs) + most.misses
            said.append(Caution.PARTLY.value.format(size, f"{most.learning_rate:.4g}", *seeds))
            continue
        if _given_up(evidence, size):
            reason = Caution.GIVEN_UP
        else:
            ended = any(evidence.conclusive(run) for run in evidence.relevant if run.trial.batch_size == size)
            reason = Caution.MISSES if ended else Caution.NOT_EXPECTED
        by_reason.setdefault(reason, []).append(size)
    return [*said, *(reason.value.format(_listed(of_it)) for reason, of_it in by_reason.items())]


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))


def _cautions_of_workload(facts: WorkloadFacts) -> tuple[str, ...]:
    """What to beware of whatever was measured: how the workload is judged, and what cannot be had of it."""
    said = []
    if not facts.train_examples:
        said.append(Caution.EXAMPLES_UNKNOWN.value)
    if facts.length_bound:
        said.append(Caution.LENGTH_BOUND.value)
    if facts.earlier_sources:
        said.append(Caution.MIXED_CODE.value.format(1 + len(facts.earlier_sources)))
    return (*said, *facts.lacks)


def _of_direction(evidence: Evidence) -> Iterator[str]:
    """Where most runs that learned say that the metric's direction is the other one."""
    direction = evidence.facts.direction
    learned = [run for run in evidence.relevant if has_learned(run.points)]
    against = [run for run in learned if looks_wrong(run.points, direction)]
    if 2 * len(against) > len(learned):
        yield Caution.DIRECTION.value.format(direction, len(against), len(learned), other(direction))


def _of_copies(evidence: Evidence) -> Iterator[str]:
    """Where runs that differ in their rate, or in their seed, do not differ at all."""
    trials = {run.trial: run for run in evidence.relevant}
    if _all_copies(trials.values(), [(trial.batch_size, trial.seed) for trial in trials]):
        yield Caution.RATE_IGNORED.value
    if _all_copies(trials.values(), [(trial.batch_size, trial.learning_rate) for trial in trials]):
        yield Caution.SEED_IGNORED.value


def _all_copies(runs: Iterable[Run], alike: Iterable[tuple[float, ...]]) -> bool:
    """Whether runs that are alike in this are the same, as far as can be told of any."""
    groups: dict[tuple[float, ...], list[Run]] = {}
    for key, run in zip(alike, runs, strict=True):
        groups.setdefault(key, []).append(run)
    told = [_is_copy(group[0], other) for group in groups.values() for other in group[1:]]
    return any(told) and all(copy is not False for copy in told)


def _is_copy(one: Run, other: Run) -> bool | None:
    """Whether two curves are the same as far as both go; None where they are too short, or flat."""
    curves_of = [
        [(p.train_loss, p.valid_loss, p.valid_metric) for p in run.points if p.step > 0] for run in (one, other)
    ]
    both = min(map(len, curves_of))
    first, second = (curve[:both] for curve in curves_of)
    return first == second if len(set(first)) >= FEWEST_POINTS else None


def _cut_short(evidence: Evidence, batch_size: int, told: float) -> Cell | None:
    """The cell of a size whose runs were clearly cheaper than what is told of it, but not all got to the target."""
    finished = {
        run.trial.learning_rate
        for run in evidence.relevant
        if run.trial.batch_size == batch_size and run.stop and run.stop.reason is StopReason.FINISHED
    }
    partly = [
        cell
        for cell in evidence.cells_of(batch_size)
        if cell.costs and cell.misses and cell.learning_rate in finished and not cell.diverged
    ]
    cheapest = min(partly, key=lambda cell: min(cell.costs), default=None)
    return cheapest if cheapest and min(cheapest.costs) * EQUIVALENT_FACTOR < told else None
