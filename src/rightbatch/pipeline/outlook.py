"""How long a search or a sweep is going to take: roughly, from measured steps, before the first of its runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rightbatch.curves import until_horizon
from rightbatch.evidence import Evidence
from rightbatch.nearness import nearest
from rightbatch.pipeline.first_choice import first_choice
from rightbatch.records import Trial
from rightbatch.search.sweep import Sweep

RATES_OF_A_SIZE = 7
"""So many rates tune a size: five half a decade apart, and the two beside the best."""

RATES_FOR_ALL_SEEDS = 4
"""Of them, so many reach the target, and are run with the other seeds."""

SIZES_TUNED, CONTENDERS = 6, 10
"""The adaptive search tunes about so many sizes, and gives so many of their rates all seeds."""

LENGTHS, SHARE_OF_LENGTHS = 3, 1.0
"""Where only ends count, a run is made at so many planned lengths, which are so much of the longest together."""

RUNS_OF_A_SEARCH = (1.0, 5.0)
"""The search of few runs takes about as long as one to five runs at their planned length."""


@dataclass(frozen=True)
class Outlook:
    """How many runs are still to be made, and how many seconds of training steps they take; evaluation comes on top.

    `runs` None: not known, as runs are paused and continued. `low_seconds` and `high_seconds` None: no step was timed,
    or no length is planned. They are the same where the plan is `exact`.
    """

    runs: int | None
    low_seconds: float | None
    high_seconds: float | None
    exact: bool = False


Foresee = Callable[[Outlook], None]
"""Is told of an outlook once, before the first run."""


def unforeseen(outlook: Outlook) -> None:
    """Nobody wants to know."""


def of_sweep(sweep: Sweep, evidence: Evidence) -> Outlook:
    """That of a sweep. Known exactly where its rates are given and all its runs go to their planned length."""

    def seconds(size: int) -> float | None:
        planned = _run_seconds(evidence, size)
        return planned if planned is None or sweep.run_seconds is None else min(planned, sweep.run_seconds)

    if sweep.rates is None:
        runs = len(sweep.batch_sizes) * (RATES_OF_A_SIZE + RATES_FOR_ALL_SEEDS * (len(sweep.seeds) - 1))
        return _rough(evidence, runs, [seconds(size) for size in sweep.batch_sizes])
    cells = [(size, rate) for size in sweep.batch_sizes for rate in sweep.rates]
    wanted = [size for size, rate in cells for seed in sweep.seeds if seed not in evidence.seeds_of(size, rate)]
    each = [found for size in wanted if (found := seconds(size)) is not None]
    exact = sweep.until is until_horizon and not sweep.contender_seeds and not evidence.facts.length_bound
    if exact and len(each) == len(wanted):
        return Outlook(len(wanted), sum(each), sum(each), exact)
    return _rough(evidence, len(wanted), each, done=0)


def of_adaptive(batch_sizes: Sequence[int], seeds: int, evidence: Evidence) -> Outlook:
    """That of the adaptive search. It stays among the sizes whose runs do not take much longer than others."""
    each = sorted(found for size in batch_sizes if (found := _run_seconds(evidence, size)) is not None)
    runs = RATES_OF_A_SIZE * min(SIZES_TUNED, len(batch_sizes)) + CONTENDERS * (seeds - 1)
    return _rough(evidence, runs, each[: len(each) // 2 + 1])


def of_few_runs(evidence: Evidence) -> Outlook:
    """That of the search of few runs, by a run of what is trained with now, or of the size nearest to it."""
    timed, (present, _) = [record.batch_size for record in evidence.step_times], first_choice(evidence.facts)
    seconds = _run_seconds(evidence, nearest(timed, present)) if timed else None
    low, high = RUNS_OF_A_SEARCH
    return Outlook(None, *((low * seconds, high * seconds) if seconds is not None else (None, None)))


def _rough(evidence: Evidence, runs: int, run_seconds: Sequence[float | None], *, done: int | None = None) -> Outlook:
    """An estimate from so many runs of about such lengths, right to a factor of two. `done`: made already."""
    share = 1.0
    if evidence.facts.length_bound:
        runs, share = LENGTHS * runs, SHARE_OF_LENGTHS / LENGTHS
    left = max(1, runs - (len(evidence.runs) if done is None else done))
    known = [seconds for seconds in run_seconds if seconds is not None]
    if not known:
        return Outlook(left, None, None)
    total = left * share * sum(known) / len(known)
    return Outlook(left, total / 2, total * 2)


def _run_seconds(evidence: Evidence, size: int) -> float | None:
    """Training seconds of a run at its planned length; None where the length or a step's seconds are not known."""
    step, planned = evidence.step_seconds(size), evidence.facts.planned_examples
    steps = Trial(size, 1.0, 0, planned or None).planned_steps
    return None if step is None or steps is None else steps * step
