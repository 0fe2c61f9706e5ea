"""How far runs have come on the way to the target: when they passed which share of the gain, and what they did not yet.

Progress is read on a ladder of shares of the gain from the start to the target. A run that is still far from the target
then says something about it already, by what other runs needed from there on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.question import Objective
from rightbatch.records import Run, StopReason, Target

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SHARES = np.array([0.2, 0.35, 0.5, 0.62, 0.72, 0.8, 0.86, 0.905, 0.94, 0.965, 0.982, 0.992, 1.0])
"""Shares of the gain at which curves are read. Their places, evenly from 0 to 1, are the levels."""

KEPT = 4
"""So many of the highest levels that a run has passed are kept: the others say little more."""

FAINTEST = 1e-4
"""A smaller share of the gain is not told from none."""

STALL_STEPS, STALL_SHARE, STALL_GAIN = 60, 0.3, 0.1
"""From so many steps and such a share on, a run is stalled whose last doubling brought so little of what is left."""

TOO_NEAR = 0.6
"""Twice as noisy, a run at the floor of its noise has twice the way left to the target; less than so much of that is
too near for a floor."""


@dataclass(frozen=True)
class Progress:
    """One run on its way.

    `levels` are those it passed (increasing), `log_costs` the log of what it had cost by then, `cost` what it has cost
    in all, in the unit of the objective. `share` is the largest share of the gain that counts. `next_level` has not
    been passed at that cost; None where it has reached the target. `diverged` and `stalled` runs will not reach it; one
    that has `ended` cannot be continued. `log_cost_ahead` is what a run before its first level would have cost there,
    if it went on as it began; None where it has not begun. `plateau` is the share at which it rested for a while before
    it went on; None where it did not.
    """

    batch_size: int
    learning_rate: float
    seed: int
    levels: tuple[float, ...]
    log_costs: tuple[float, ...]
    steps: int
    cost: float
    share: float
    next_level: float | None
    diverged: bool
    stalled: bool
    ended: bool
    log_cost_ahead: float | None = None
    plateau: float | None = None

    @property
    def reached(self) -> bool:
        """Whether it has reached the target."""
        return self.next_level is None

    @property
    def cell(self) -> tuple[int, float]:
        """Its batch size and rate."""
        return self.batch_size, self.learning_rate


def step_costs(evidence: Evidence, batch_sizes: Iterable[int]) -> dict[int, float]:
    """What a step costs in the unit of the objective, for every size where it is known: measured, or seen in a run."""
    objective = evidence.question.objective
    sizes = {*batch_sizes, *(run.trial.batch_size for run in evidence.runs)}
    if objective is Objective.STEPS:
        return dict.fromkeys(sorted(sizes), 1.0)
    if objective is Objective.EXAMPLES:
        return {size: float(size) for size in sorted(sizes)}
    known = {run.trial.batch_size: p.seconds / p.step for run in evidence.runs for p in run.points[-1:] if p.step}
    timed = {record.batch_size for record in evidence.step_times}
    # Measured, or by the law of it, as answers have it: a run's seconds have what a program took before its first step.
    measured = {size: evidence.step_seconds(size) for size in {*known, *timed}}
    return known | {size: seconds for size, seconds in measured.items() if seconds is not None}


def progress_of(evidence: Evidence, costs: dict[int, float]) -> tuple[Progress, ...]:
    """The progress of every run that has a value to judge; of those with fresh seeds, of the ones that got there.

    A fresh seed was not chosen for being fast: without it the run that was expects too much of its cell.
    """
    start = start_value(evidence.runs, evidence.question.target)
    if start is None:
        return ()
    found = [
        _of_run(run, start, evidence.question.target, costs[run.trial.batch_size], evidence.conclusive(run))
        for run in evidence.relevant
        if any(point.step > 0 for point in run.points)
        and (run.trial.seed < FRESH_SEED or evidence.crossing(run) is not None)
    ]
    return tuple(replace(run, stalled=run.stalled and not _on_a_plateau(run, found)) for run in found)


def _on_a_plateau(run: Progress, others: Sequence[Progress]) -> bool:
    """Whether what a run stays at is no floor of noise, which would lie as much higher as a run is noisier.

    One has left such a place; a noisier one is hardly further from the target; or a calmer one rests as far from it.
    """
    way = 1 - run.share
    for other in others:
        noisier, calmer, its = _times_the_noise(other, run), _times_the_noise(run, other), 1 - other.share
        if noisier >= 1 and its < TOO_NEAR * min(noisier, 2) * way:
            return True
        rested = other.share if other.stalled and calmer >= 2 else other.plateau
        if rested is not None and way / (2 * TOO_NEAR) < 1 - rested < 2 * TOO_NEAR * way:
            return True
    return False


def _times_the_noise(run: Progress, other: Progress) -> float:
    """How many times the noise of another run it has at least: by rate over size, or over the root of size.

    These are the laws of SGD and of Adam (Malladi et al. 2022).
    """
    sizes = run.batch_size / other.batch_size
    return run.learning_rate / (other.learning_rate * max(sizes, math.sqrt(sizes)))


def start_value(runs: Sequence[Run], target: Target) -> float | None:
    """The value of an untrained model, or the nearest to it: at the least rate x steps; None where there is none.

    Runs that diverged are left out: theirs may be far worse than that of an untrained model.
    """
    firsts = []
    for run in runs:
        if run.stop is not None and run.stop.reason is StopReason.DIVERGED:
            continue
        for point in run.points:
            value = getattr(point, target.quantity)
            if value is not None and math.isfinite(value) and not target.reached_by(value):
                firsts.append((run.trial.learning_rate * point.step, value))
                break
    return min(firsts, key=lambda first: first[0])[1] if firsts else None


def at_rest(run: Run, start: float, target: Target, fold: float = 2) -> bool:
    """Whether a run gained next to nothing while its steps grew `fold` times; `start`: of an untrained model."""
    steps, _, counted = _shares(run, start, target)
    return _stalled(steps, counted, fold)


def _shares(run: Run, start: float, target: Target) -> tuple[Array, Array, Array]:
    """Steps of the rungs, the share of the gain at each, and the largest share so far that counts."""
    rungs = [point for point in run.points if point.step > 0]
    steps = np.array([point.step for point in rungs], dtype=float)
    values = np.array([_share(getattr(point, target.quantity), start, target.value) for point in rungs])
    # By the rule of the target: what the next rung confirms counts, or what is touched.
    counted = values if target.rule == "first_touch" else np.minimum(values[:-1], values[1:])
    return steps, values, np.maximum.accumulate(counted)


def _of_run(run: Run, start: float, target: Target, step_cost: float, ended: bool) -> Progress:
    steps, values, counted = _shares(run, start, target)
    best = float(counted[-1]) if len(counted) else -math.inf
    passed = int(np.searchsorted(SHARES, best, side="right"))
    levels, log_costs = [], []
    for share in _telling(best, passed):
        at = int(np.searchsorted(counted, share, side="left"))
        if at > 0 or share == 1.0:  # when a share was passed before the first rung is not known
            levels.append(level_of(share))
            log_costs.append(_log_steps(steps, values, at, share) + math.log(step_cost))
    ahead = None
    if passed == 0 and best > FAINTEST:
        ahead = math.log(step_cost * steps[np.searchsorted(counted, best)] * SHARES[0] / best)
    return Progress(
        batch_size=run.trial.batch_size,
        learning_rate=run.trial.learning_rate,
        seed=run.trial.seed,
        levels=tuple(levels),
        log_costs=tuple(log_costs),
        steps=int(steps[-1]),
        cost=float(steps[-1]) * step_cost,
        share=best,
        next_level=None if passed == len(SHARES) else level_of(float(SHARES[passed])),
        diverged=run.stop is not None and run.stop.reason is StopReason.DIVERGED,
        stalled=best < 1 and _stalled(steps, counted),
        ended=ended,
        log_cost_ahead=ahead,
        plateau=_plateau(steps, counted),
    )


def _telling(best: float, passed: int) -> list[float]:
    """The shares to read off a curve: the highest ones passed, and the best value where it lies well above them."""
    shares = [float(share) for share in SHARES[max(0, passed - KEPT) : passed]]
    if 0 < passed < len(SHARES) and best > SHARES[passed - 1] + 0.3 * (SHARES[passed] - SHARES[passed - 1]):
        shares.append(best)
    return shares


def _log_steps(steps: Array, values: Array, at: int, share: float) -> float:
    """Log steps at which a share was passed, interpolated between the rung `at` and the one before."""
    if at == 0:
        return math.log(steps[0])
    before, here = float(values[at - 1]), float(values[at])
    part = (share - before) / (here - before) if math.isfinite(before) and here > before else 1.0
    return float((1 - part) * math.log(steps[at - 1]) + part * math.log(steps[at]))


def _stalled(steps: Array, counted: Array, fold: float = 2) -> bool:
    """Whether a run lies at its noise floor: see `STALL_GAIN`; `fold` 2 is its last doubling."""
    if len(counted) < 2 or steps[-1] < STALL_STEPS or not counted[-1] > STALL_SHARE:
        return False
    return bool(_gained_little(steps[: len(counted)], counted, fold)[-1])


def _plateau(steps: Array, counted: Array) -> float | None:
    """The share at which a run rested last before it went on to much nearer."""
    at = steps[: len(counted)]
    rests = (at >= STALL_STEPS) & (counted > STALL_SHARE) & _gained_little(at, counted, 2)
    left = np.flatnonzero(rests & (1 - counted[-1:] < TOO_NEAR * (1 - counted)))
    return float(counted[left[-1]]) if len(left) else None


def _gained_little(at: Array, counted: Array, fold: float) -> Mask:
    """Whether next to nothing was gained while steps grew to what they are, `fold` times; shape `[rungs]`."""
    then = np.maximum(np.searchsorted(at, at / fold, side="right") - 1, 0)
    return np.asarray(counted - STALL_GAIN * (1 - counted) < counted[then])


def level_of(share: float) -> float:
    """The level of a share, from 0 to 1."""
    return float(np.interp(share, SHARES, np.linspace(0, 1, len(SHARES))))


def _share(value: float | None, start: float, target: float) -> float:
    return -math.inf if value is None or not math.isfinite(value) else (value - start) / (target - start)
