"""From evidence to one choice: a size, a rate, what is as good, why, how sure, and what to beware of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from rightbatch import curves
from rightbatch.advice import advice, case_of
from rightbatch.answer import Caution, PresentChoice, Recommendation, SizeRow, TargetRow
from rightbatch.batch_schedule import SETTING
from rightbatch.cautions import cautions_of, cautions_of_forecast
from rightbatch.cells import SizeEvidence
from rightbatch.errors import InputError, InsufficientEvidence
from rightbatch.evidence import Evidence
from rightbatch.fit.learning_rate import RateLawFit, fit_rate_law
from rightbatch.fit.noise import CriticalPrior
from rightbatch.fit.tradeoff import TradeoffFit, fit_tradeoff
from rightbatch.lattice import index_of, snap
from rightbatch.means import mean_of
from rightbatch.question import EQUIVALENT_FACTOR, Objective, Question
from rightbatch.records import Interval
from rightbatch.search.forecast import Forecast
from rightbatch.shortfall import nothing_reached
from rightbatch.zones import SURE, Likelihood, find_zones, likelihoods

TARGET_LADDER = (0.7, 0.8, 0.9, 0.95, 1.0)
"""Easier targets at which the answer is given as well: shares of the gain from the start to the target."""


def recommend(
    evidence: Evidence,
    *,
    protocol: str,
    spent_seconds: Mapping[str, float],
    in_budget: bool = True,
    forecast: Forecast | None = None,
    advised: bool = True,
) -> Recommendation:
    """The best size and rate for the question that the evidence is about.

    `protocol` says in a sentence how rates were tuned, `spent_seconds` what the answer cost, by activity; `in_budget`
    is False where the search was cut off before it was done. `forecast` is what a search of few runs believes: it then
    chooses among what reached the target, and says what the sizes are expected to cost that were not trained so far.
    `advised`: the rule book is held against the evidence, which takes longer than all the rest.

    Raises
    ------
    InsufficientEvidence: When no cell reaches the target in all of its runs; the message says how near they came.
    """
    best = forecast.best if forecast else evidence.choice
    if best is None or best.best is None or best.cost is None or best.best_rate is None:
        raise InsufficientEvidence(nothing_reached(evidence, forecast, in_budget, spent_seconds))
    sizes = forecast.sizes if forecast else evidence.sizes
    sure = forecast.likelihoods if forecast else likelihoods(evidence)
    tradeoff, rate_law = laws_of(evidence)
    rows = tuple(_row(evidence, size, sure) for size in sizes)
    row = next(r for r in rows if r.batch_size == best.batch_size)
    critical = tradeoff.critical_batch_size if tradeoff else forecast.critical_batch_size if forecast else None
    zones = find_zones(
        sizes,
        best,
        speeds={r.batch_size: r.batch_size / r.step_seconds for r in rows if r.step_seconds},
        step_time=evidence.step_time_fit,
        critical_batch_size=critical,
    )
    as_cheap = {r.batch_size for r in rows if r.cost and r.cost.estimate <= EQUIVALENT_FACTOR * best.cost.estimate}

    def as_good(one: Likelihood) -> bool:
        return one.as_good >= SURE and one.batch_size in as_cheap

    targets = _targets(evidence, best)
    fresh = evidence.fresh_costs(best.batch_size, best.best.learning_rate)
    partial = Recommendation(
        workload=evidence.facts.name,
        objective=evidence.question.objective,
        target=replace(evidence.question.target, quantity=evidence.judged_by),
        protocol=protocol,
        batch_size=best.batch_size,
        learning_rate=best.best.learning_rate,
        best_rate=best.best_rate,
        cost=best.cost,
        seconds=row.seconds,
        examples=row.examples if row.examples is not None else math.nan,
        steps=row.steps if row.steps is not None else math.nan,
        as_good=_contiguous(best.batch_size, sure, as_good),
        not_excluded=_not_excluded(best.batch_size, sure, rows),
        fresh_costs=fresh,
        zones=zones,
        present=_present(evidence, best.cost.estimate, forecast),
        sizes=rows,
        targets=targets,
        step_time=evidence.step_time_fit,
        tradeoff=tradeoff,
        rate_law=rate_law,
        seed_deviation=forecast.seed_deviation if forecast else evidence.seed_noise.deviation,
        seed_freedom=evidence.seed_noise.freedom,
        reasons=(),
        cautions=(),
        spent_seconds=spent_seconds,
    )
    cautions = cautions_of(evidence, partial)
    if forecast is not None:
        cautions = (*cautions_of_forecast(evidence, forecast, best), *cautions)
    if not in_budget:
        cautions = (Caution.OUT_OF_BUDGET.value, *cautions)
    rested, failing = advice(case_of(evidence, forecast)) if advised else ((), ())
    reasons = (*_reasons(partial, forecast, evidence.critical_prior), *rested)
    return replace(partial, reasons=reasons, cautions=(*cautions, *failing))


def laws_of(evidence: Evidence) -> tuple[TradeoffFit | None, RateLawFit | None]:
    """The laws, from sizes whose best rate is not at an edge; None with fewer than three of them."""
    usable = [size for size in evidence.sizes if size.best is not None and not size.at_edge]
    if len(usable) < 3:
        return None, None
    batch_sizes = [size.batch_size for size in usable]
    rates = [size.best_rate.estimate for size in usable if size.best_rate]
    rate_law = fit_rate_law(batch_sizes, rates)
    if evidence.question.objective is Objective.METRIC or SETTING in evidence.settings:  # the law is of one size
        return None, rate_law
    steps = [evidence.steps_of_cost(size.batch_size, size.cost.estimate) for size in usable if size.cost]
    known = [count for count in steps if count is not None]
    return fit_tradeoff(batch_sizes, known, prior=evidence.critical_prior), rate_law


def _row(evidence: Evidence, size: SizeEvidence, sure: tuple[Likelihood, ...] | None) -> SizeRow:
    steps = evidence.steps_of_cost(size.batch_size, size.cost.estimate) if size.cost else None
    schedule = evidence.schedule(size.batch_size)
    examples = schedule.examples_after(steps) if steps else None
    return SizeRow(
        batch_size=size.batch_size,
        learning_rate=size.best.learning_rate if size.best else None,
        best_rate=size.best_rate,
        cost=size.cost,
        seconds=evidence.seconds.of_run(schedule, steps, examples) if steps and examples else None,
        examples=examples,
        steps=steps,
        step_seconds=size.step_seconds,
        quality=_quality(evidence, size),
        as_good=next((s.as_good for s in sure or () if s.batch_size == size.batch_size), None),
        at_edge=size.at_edge,
        seeds=len(size.best.costs) if size.best else max((len(c.costs) + c.misses for c in size.cells), default=0),
    )


def _quality(evidence: Evidence, size: SizeEvidence) -> Interval | None:
    """How good the runs at the best rate became, mean over seeds and its t interval."""
    if size.best is None:
        return None
    direction = evidence.facts.direction
    values = [
        value
        for run in evidence.runs_at(size.batch_size, size.best.learning_rate)
        if evidence.conclusive(run) and (value := curves.quality(run.points, direction)) is not None
    ]
    return mean_of(values)


def _contiguous(best: int, sure: tuple[Likelihood, ...] | None, keep: Callable[[Likelihood], bool]) -> tuple[int, ...]:
    """Sizes around the best one that pass, without a gap; just the best where nothing is known of noise."""
    if sure is None:
        return (best,)
    sizes = [s.batch_size for s in sure]
    passes = [keep(s) for s in sure]
    low = high = sizes.index(best)
    while low > 0 and passes[low - 1]:
        low -= 1
    while high + 1 < len(sizes) and passes[high + 1]:
        high += 1
    return tuple(sizes[low : high + 1])


def _not_excluded(best: int, sure: tuple[Likelihood, ...] | None, rows: Sequence[SizeRow]) -> tuple[int, ...]:
    """Sizes around the best one that may be as good; where nothing is known of noise, all that reach the target."""
    if sure is None:
        return tuple(row.batch_size for row in rows if row.cost is not None)
    return _contiguous(best, sure, lambda one: one.as_good >= 1 - SURE)


def _present(evidence: Evidence, best_cost: float, forecast: Forecast | None) -> PresentChoice | None:
    if evidence.facts.present is None:
        return None
    size, rate = evidence.facts.present
    cell = next((c for c in evidence.cells_of(size) if index_of(c.learning_rate) == index_of(rate)), None)
    if cell is None:
        expected = forecast.costs.get((size, snap(rate))) if forecast else None
        return PresentChoice(size, rate, None, expected.estimate / best_cost, True) if expected else None
    cost = cell.mean if cell.reaches else None
    return PresentChoice(size, cell.learning_rate, cost, cost / best_cost if cost else None)


def _targets(evidence: Evidence, best: SizeEvidence) -> tuple[TargetRow, ...]:
    """The answer along a ladder of easier targets, from the same curves; at the target itself it is the best."""
    question, target = evidence.question, evidence.question.target
    starts = [
        v for run in evidence.relevant if run.points and (v := getattr(run.points[0], target.quantity)) is not None
    ]
    # Of a length-bound workload the lengths that an easier target needs were not run.
    if question.objective is Objective.METRIC or not starts or evidence.facts.length_bound:
        return ()
    start = float(np.median(starts))
    rows = []
    for share in TARGET_LADDER[:-1]:
        value = start + share * (target.value - start)
        easier = replace(evidence, question=Question(question.objective, replace(target, value=value)))
        if (cell := easier.best_cell) is not None:
            rows.append(TargetRow(value, share, cell.batch_size, cell.learning_rate, cell.mean))
    assert best.best is not None
    assert best.cost is not None
    rows.append(TargetRow(target.value, 1.0, best.batch_size, best.best.learning_rate, best.cost.estimate))
    return tuple(rows)


def _reasons(answer: Recommendation, forecast: Forecast | None, prior: CriticalPrior | None) -> tuple[str, ...]:
    reasons = []
    for name, edge in (("below", answer.zones.very_small_below), ("above", answer.zones.huge_above)):
        if edge.batch_size is None and len(answer.sizes) == 1:
            continue
        if edge.batch_size is None:
            reasons.append(f"no size {name} {answer.batch_size} was seen to cost twice as much")
            continue
        parts = []
        if edge.throughput_share is not None:
            parts.append(f"{100 * edge.throughput_share:.0f} % of the best examples per second")
        if edge.critical_ratio is not None:
            parts.append(f"{edge.critical_ratio:.2g} times the critical batch size")
        kind = "very small" if name == "below" else "huge"
        reasons.append(f"{name} {edge.batch_size:.0f} is {kind}: twice the cost; there " + ", ".join(parts or ["-"]))
    if answer.tradeoff is not None:
        critical = answer.tradeoff.critical_batch_size
        reasons.append(
            f"steps follow S_min (1 + B_crit / B) with B_crit {critical.estimate:.3g} and a misfit of "
            f"{100 * (answer.tradeoff.hyperbola.deviation or 0):.0f} %"
        )
    elif forecast is not None:
        critical = forecast.critical_batch_size
        reasons.append(
            f"steps follow S_min (1 + B_crit / B) with B_crit {critical.estimate:.3g} [{critical.low:.3g}, "
            f"{critical.high:.3g}], by the versions of the laws that fit the runs best (90 %)"
        )
    if prior is not None:
        known = prior.interval(0.9)
        reasons.append(
            f"gradients put B_crit at {known.estimate:.3g} [{known.low:.3g}, {known.high:.3g}] (90 %) before any run"
        )
    if answer.rate_law is not None:
        exponent = answer.rate_law.exponent
        reasons.append(
            f"the best rate grows as batch size to the power {exponent.estimate:.2f} "
            f"[{exponent.low:.2f}, {exponent.high:.2f}] (linear rule 1, square root 0.5)"
        )
    return tuple(reasons)


def parse_objective(name: str) -> Objective:
    """An objective by name. Raises `InputError` for another word."""
    try:
        return Objective[name.upper()]
    except KeyError:
        names = ", ".join(o.name.lower() for o in Objective)
        raise InputError(f"There is no objective {name!r}. Choose one of: {names}.") from None
