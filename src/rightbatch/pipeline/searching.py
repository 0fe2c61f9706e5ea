"""The search of few runs, made for a study: over which sizes and rates, and what it says of every size."""

from __future__ import annotations

from collections.abc import Sequence

from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.lattice import index_of, rate_at
from rightbatch.pipeline.first_choice import first_choice
from rightbatch.question import Objective
from rightbatch.records import Trial
from rightbatch.search.few_runs import FewRuns
from rightbatch.search.forecast import Forecast, forecast
from rightbatch.search.searcher import Guess
from rightbatch.search.strategy import Offers

RATES_AROUND = 8
"""Lattice points to either side of the first choice among which rates are chosen: two decades."""

FURTHEST_RATES = 24
"""No rate is tried further from the first choice: six decades. A target that no rate reaches is not worth more."""

RATES_BEYOND = 4
"""So many lattice points lie beyond every rate that was tried, so that none is the best for want of a next one."""


def suits_few_runs(evidence: Evidence) -> bool:
    """Whether the search of few runs answers this question: it rests on crossings, and compares costs to a target."""
    return evidence.question.objective is not Objective.METRIC and not evidence.facts.length_bound


def few_runs(evidence: Evidence, batch_sizes: Sequence[int], offers: Offers, *, seeds: int) -> FewRuns:
    """The search over given sizes, and over the rates of the lattice around the first choice and around those tried."""
    return FewRuns(
        tuple(batch_sizes),
        _on_the_lattice,
        offers,
        seeds,
        fresh=True,
        planned_examples=evidence.facts.planned_examples or None,
        settings=evidence.settings,
    )


def forecast_of(evidence: Evidence) -> Forecast | None:
    """What the search of few runs says of a study; None where the study is not one that such a search made.

    It is if runs were paused short of the target: everything else that a study knows is whole runs, which speak for
    themselves.
    """
    search = _search_of(evidence)
    return forecast(search, evidence) if search else None


def guess_of(evidence: Evidence) -> Guess | None:
    """What a search of few runs would train with now; None where the study is not one that such a search made."""
    search = _search_of(evidence)
    return search.guess(evidence) if search else None


def _search_of(evidence: Evidence) -> FewRuns | None:
    if not suits_few_runs(evidence):
        return None
    runs = [run for run in evidence.relevant if run.trial.seed < FRESH_SEED and any(p.step for p in run.points)]
    if not runs or all(evidence.conclusive(run) for run in runs):
        return None
    tried = {run.trial.batch_size for run in runs}
    measured = {record.batch_size for record in evidence.step_times}
    # Sizes that were measured only as neighbours of a power of two are nobody's choice.
    sizes = tried | {size for size in measured if not ({size - 1, size + 1} & measured) or size & (size - 1) == 0}
    return few_runs(evidence, sorted(sizes), _anything, seeds=FRESH_SEED)


def _on_the_lattice(evidence: Evidence) -> Sequence[float]:
    first = index_of(first_choice(evidence.facts)[1])
    tried = [index_of(run.trial.learning_rate) for run in evidence.runs] or [first]
    low = min(first - RATES_AROUND, max(min(tried) - RATES_BEYOND, first - FURTHEST_RATES))
    high = max(first + RATES_AROUND, min(max(tried) + RATES_BEYOND, first + FURTHEST_RATES))
    return [rate_at(index) for index in range(low, high + 1)]


def _anything(trial: Trial) -> bool:
    return True
