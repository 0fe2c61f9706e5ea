"""Rules for how the steps to a target fall as the batch grows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rightbatch.fit.hyperbola import HyperbolaFit
from rightbatch.records import Interval
from rightbatch.rules.case import Case, Tuned
from rightbatch.rules.effects import Effect, Finding, Unit, Untold
from rightbatch.rules.rule import Prediction, Rule, no_prediction
from rightbatch.rules.sources import MCCANDLISH, SHALLUE

PERFECT, NONE = 0.8, 0.2
"""Steps fall as B^-slope. From 0.8 on that is perfect scaling (a factor 4 in size wastes at most a third more
examples); up to 0.2 larger batches no longer help; between the two returns diminish."""

SPAN = 4.0
"""Slopes are taken over sizes at least so many times apart: over a doubling the noise of seeds is too large."""

MISFIT = math.log(1.25)
"""A law of steps is right within a quarter."""


@dataclass(frozen=True)
class Regimes:
    """Where perfect scaling ends and where larger batches stop to help, in batch size; None: not between the sizes."""

    perfect_until: float | None
    no_help_from: float | None


def regimes(batch_sizes: Sequence[float], steps: Sequence[float]) -> Regimes:
    """The regime edges of Shallue et al. from slopes of the steps themselves: where these pass 0.8 and 0.2.

    A slope belongs to the middle (in logs) of the sizes that it was taken over; between two middles the edge is
    interpolated. A slope that comes back over its bound counts: perfect scaling ends where the slope last was 0.8, and
    help ends where it is 0.2 for good.
    """
    pairs = sorted(zip(batch_sizes, steps, strict=True))
    x, y = [math.log(size) for size, _ in pairs], [math.log(count) for _, count in pairs]
    found = [((x[a] + x[b]) / 2, (y[a] - y[b]) / (x[b] - x[a])) for a, b in spans([size for size, _ in pairs])]
    return Regimes(_falls_below(found, PERFECT), _falls_below(found, NONE))


def regimes_of_law(fit: HyperbolaFit) -> Regimes:
    """The same edges of S = S_min (1 + B_crit / B), whose slope at B is B_crit / (B + B_crit)."""
    knee = fit.knee.estimate
    return Regimes(knee * (1 / PERFECT - 1), knee * (1 / NONE - 1))


def _falls_below(found: list[tuple[float, float]], bound: float) -> float | None:
    above = [k for k, (_, slope) in enumerate(found) if slope >= bound]
    if not above or above[-1] == len(found) - 1:
        return None
    (x0, y0), (x1, y1) = found[above[-1]], found[above[-1] + 1]
    return math.exp(x0 + (x1 - x0) * (y0 - bound) / (y0 - y1))


def spans(batch_sizes: Sequence[float]) -> list[tuple[int, int]]:
    """Positions of each size (they ascend) and of the next one that is at least a factor 4 away."""
    found = []
    for k, size in enumerate(batch_sizes):
        far = next((j for j in range(k + 1, len(batch_sizes)) if batch_sizes[j] >= SPAN * size * (1 - 1e-9)), None)
        if far is not None:
            found.append((k, far))
    return found


def _slopes(case: Case) -> list[Effect] | Untold:
    """How fast steps fall, between tuned sizes a factor 4 apart; the range is left to who asks."""
    if case.untuned:
        return case.untuned
    tuned = case.tuned
    found = [_slope(case, tuned[a], tuned[b]) for a, b in spans([one.batch_size for one in tuned])]
    return found or Untold("no two tuned sizes are a factor 4 apart", case.sweep(case.wide()))


def _slope(case: Case, small: Tuned, large: Tuned) -> Effect:
    run = math.log(large.batch_size / small.batch_size)
    return Effect(
        f"slope from {small.batch_size} to {large.batch_size}",
        (small.steps.log - large.steps.log) / run,
        math.hypot(small.steps.error, large.steps.error) / run,
        case.freedom,
        unit=Unit.NUMBER,
        batch_size=large.batch_size,
    )


def _judge_perfect(case: Case) -> Finding | Untold:
    slopes = _slopes(case)
    if isinstance(slopes, Untold):
        return slopes
    first = replace(slopes[0], low=PERFECT)
    smallest = case.tuned[0].batch_size
    beyond = Untold(f"smaller sizes than {smallest} were not tried", case.sweep("1,2,4")) if smallest > 2 else None
    return Finding((first,), f"{first.name}: {first.value:.2f}", only_holds=beyond)


def _judge_diminishing(case: Case) -> Finding | Untold:
    slopes = _slopes(case)
    if isinstance(slopes, Untold):
        return slopes
    effects = tuple(replace(one, low=NONE, high=PERFECT) for one in slopes)
    between = [one for one in effects if one.within]
    text = "slopes " + ", ".join(f"{one.value:.2f}" for one in effects)
    if between:
        text = f"between perfect and none {between[0].name.removeprefix('slope ')}"
    return Finding(effects, text, one_is_enough=True, only_holds=None if _whole_range(case) else _try_more(case))


def _judge_parallelism(case: Case) -> Finding | Untold:
    slopes = _slopes(case)
    if isinstance(slopes, Untold):
        return slopes
    last = replace(slopes[-1], high=NONE)
    largest = case.tuned[-1].batch_size
    beyond = None
    if largest < case.evidence.facts.train_examples / 2:
        beyond = Untold(f"sizes above {largest} did not reach the target or were not tried", _try_more(case).command)
    return Finding((last,), f"{last.name}: {last.value:.2f}", only_holds=beyond)


def _whole_range(case: Case) -> bool:
    return case.tuned[0].batch_size <= 2 and case.tuned[-1].batch_size >= case.evidence.facts.train_examples / 2


def _try_more(case: Case) -> Untold:
    """Larger sizes, as far as there are data; else smaller ones."""
    largest, data = case.tuned[-1].batch_size, case.evidence.facts.train_examples or math.inf
    larger = [size for size in (2 * largest, 4 * largest) if size <= data]
    text = ",".join(map(str, larger)) if larger else "1,2"
    return Untold("the sizes tried do not span all regimes", case.sweep(text))


def _predict_steps(case: Case) -> tuple[Prediction, ...]:
    if case.tradeoff is None:
        return ()
    fit = case.tradeoff
    found = [Prediction("critical batch size", fit.critical_batch_size), Prediction("fewest steps", fit.minimum_steps)]
    return (
        *found,
        *(Prediction(f"steps at {one.batch_size}", Interval(fit.steps(one.batch_size))) for one in case.tuned),
    )


def _judge_hyperbola(case: Case) -> Finding | Untold:
    if case.untuned:
        return case.untuned
    if case.tradeoff is None or len(case.rated) < 5:
        return Untold("fewer than five sizes have a best rate that is not at an edge", case.sweep(case.wide()))
    effects = tuple(
        Effect(
            f"steps at {one.batch_size} over the law's",
            one.steps.log - math.log(case.tradeoff.steps(one.batch_size)),
            one.steps.error,
            case.freedom,
            -MISFIT,
            MISFIT,
            batch_size=one.batch_size,
        )
        for one in case.rated
    )
    worst = max(effects, key=lambda effect: abs(effect.value))
    knee = case.tradeoff.critical_batch_size.estimate
    text = f"B_crit {knee:.3g}; furthest off at {worst.batch_size}, by {100 * (math.exp(abs(worst.value)) - 1):.0f} %"
    return Finding(effects, text)


_REGIMES = replace(SHALLUE, at="section 4.1")

RULES = (
    Rule(
        name="perfect-scaling",
        family="shape",
        statement="While batches are small, doubling the batch size halves the steps to the target.",
        sources=(_REGIMES,),
        scope="every workload of the study, rate and momentum tuned at each size",
        tolerance="from the smallest size to one a factor 4 away, steps fall as B to a power of -0.8 or more",
        predict=no_prediction,
        judge=_judge_perfect,
    ),
    Rule(
        name="diminishing-returns",
        family="shape",
        statement="Beyond a size that depends on the problem, larger batches save fewer and fewer steps.",
        sources=(_REGIMES,),
        scope="every workload of the study, rate and momentum tuned at each size",
        tolerance="over some factor of 4 in size, steps fall as B to a power between -0.8 and -0.2",
        predict=no_prediction,
        judge=_judge_diminishing,
    ),
    Rule(
        name="maximal-parallelism",
        family="shape",
        statement="Beyond some size, larger batches save no steps at all.",
        sources=(_REGIMES,),
        scope="every workload of the study, rate and momentum tuned at each size",
        tolerance="over the last factor of 4 in size, steps fall as B to a power of -0.2 or less",
        predict=no_prediction,
        judge=_judge_parallelism,
    ),
    Rule(
        name="hyperbola",
        family="shape",
        statement="Steps S and examples E to a target obey (S / S_min - 1) (E / E_min - 1) = 1.",
        sources=(replace(MCCANDLISH, at="equation 2.11"),),
        scope="rate tuned at each size",
        tolerance="at every size tried, the steps are within 25 % of the fitted law",
        predict=_predict_steps,
        judge=_judge_hyperbola,
    ),
)
