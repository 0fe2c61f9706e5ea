"""Rules for how good the weights become."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from rightbatch import curves
from rightbatch.fit.rank_correlation import FEWEST_PAIRS, rank_correlation
from rightbatch.records import Interval, Point
from rightbatch.rules.case import Case
from rightbatch.rules.effects import Effect, Finding, Unit, Untold
from rightbatch.rules.protocols import (
    Budget,
    Protocol,
    Qualities,
    SizeQuality,
    Tuning,
    cell_qualities,
    qualities,
    still_improving,
)
from rightbatch.rules.rule import Prediction, Rule, no_prediction
from rightbatch.rules.sources import BREUEL, DINH, HOFFER, KESKAR, MASTERS, SHALLUE, THOMA

SAME_QUALITY = 0.01
"""Qualities are the same within this share of the gain."""

SMALL = (32, 512)
"""What Keskar et al. call a small batch."""

STRONG = -0.5
"""A rank correlation from which one thing is said to predict another."""


def _known(case: Case, protocol: Protocol) -> Qualities | Untold:
    found = qualities(case.evidence, protocol)
    return replace(found, command=case.sweep(seeds=3)) if isinstance(found, Untold) else found


def more_or_less(share: float) -> str:
    """A difference of quality in words."""
    return f"{100 * abs(share):.1f} % {'more' if share >= 0 else 'less'}"


def small_and_large(sizes: Sequence[SizeQuality]) -> tuple[tuple[SizeQuality, ...], SizeQuality] | None:
    """Sizes from 32 to 512 and the largest one, where that is at least four times as large as each of them."""
    large = max(sizes, key=lambda one: one.batch_size)
    small = tuple(one for one in sizes if SMALL[0] <= one.batch_size <= min(SMALL[1], large.batch_size / 4))
    return (small, large) if small else None


def loss_of_large(found: Qualities) -> Effect | None:
    """By how much the largest size is worse than sizes from 32 to 512, as a share of the gain."""
    pair = small_and_large(found.sizes)
    if pair is None:
        return None
    small, large = pair
    mean, error = found.mean(small)
    names = f"{small[0].batch_size} to {small[-1].batch_size}" if len(small) > 1 else f"{small[0].batch_size}"
    return Effect(
        f"quality at {names} over that at {large.batch_size}, {found.given}",
        mean - large.value,
        math.hypot(error, large.error),
        found.freedom,
        unit=Unit.SHARE,
        batch_size=large.batch_size,
    )


def _judge_large(protocol: Protocol, *, worse: bool) -> Callable[[Case], Finding | Untold]:
    """Whether the largest size is worse (or is not)."""

    def judge(case: Case) -> Finding | Untold:
        found = _known(case, protocol)
        if isinstance(found, Untold):
            return found
        effect = loss_of_large(found)
        if effect is None:
            return Untold("no sizes from 32 to 512 beside one four times as large", case.sweep("64,2048", seeds=3))
        effect = replace(effect, low=SAME_QUALITY) if worse else replace(effect, high=SAME_QUALITY)
        way = "falls short" if effect.value > 0 else "is ahead"
        text = f"{effect.batch_size} {way} by {100 * abs(effect.value):.1f} % of the gain ({found.given})"
        return Finding((effect,), text)

    return judge


def _judge_no_effect(case: Case) -> Finding | Untold:
    """Every size against the mean of all: an equivalence, shown by two one-sided tests of each."""
    found = _known(case, Protocol(Budget.EPOCHS, Tuning.TUNED))
    if isinstance(found, Untold):
        return found
    improving = still_improving(case.evidence, found, SAME_QUALITY)
    if improving:
        return Untold(
            f"batch size {improving[0]} was still getting better when its runs ended", case.sweep(more=case.longer())
        )
    mean, _ = found.mean(found.sizes)
    share = 1 / len(found.sizes)
    effects = tuple(
        Effect(
            f"quality at {one.batch_size} over the mean of all sizes",
            one.value - mean,
            math.sqrt(one.error**2 * (1 - 2 * share) + share**2 * sum(other.error**2 for other in found.sizes)),
            found.freedom,
            -SAME_QUALITY,
            SAME_QUALITY,
            Unit.SHARE,
            one.batch_size,
        )
        for one in found.sizes
    )
    worst = max(effects, key=lambda effect: abs(effect.value))
    return Finding(effects, f"furthest from the mean: {worst.batch_size} by {100 * worst.value:+.1f} % of the gain")


def _judge_sharpness(case: Case) -> Finding | Untold:
    """Spearman's correlation of sharpness and quality over the runs, on Fisher's scale."""
    pairs = [
        (case.sharpness[key], quality, key[:2])
        for run in case.evidence.relevant
        if (key := (run.trial.batch_size, run.trial.learning_rate, run.trial.seed)) in case.sharpness
        and (quality := _of_run(case, run.points)) is not None
    ]
    if len({cell for _, _, cell in pairs}) < FEWEST_PAIRS:
        return Untold(
            "the sharpness of models of fewer than six batch sizes and rates is known", case.measuring_sharpness()
        )
    sharp, good, cells = zip(*pairs, strict=True)
    found = rank_correlation(sharp, good, len(set(cells)))
    if found is None:
        return Untold("all models are equally sharp, or equally good")
    effect = Effect(
        "rank correlation of sharpness and quality (Fisher's z)",
        found.value,
        found.error,
        found.freedom,
        high=math.atanh(STRONG),
        unit=Unit.NUMBER,
    )
    return Finding((effect,), f"rank correlation {found.correlation:.2f} over {found.pairs} models")


def _of_run(case: Case, points: Sequence[Point]) -> float | None:
    value = curves.quality(points, case.evidence.facts.direction)
    return None if value is None else value if case.evidence.facts.direction == "max" else -value


def _judge_small_is_best(case: Case) -> Finding | Untold:
    """Masters and Luschi: no size above 32 is better than the best of 2 to 32."""
    found = qualities(case.evidence, Protocol(Budget.EPOCHS, Tuning.TUNED))
    if isinstance(found, Untold):
        return replace(found, command=found.command or case.sweep(case.wide(), seeds=3))
    small = [one for one in found.sizes if 2 <= one.batch_size <= 32]
    large = [one for one in found.sizes if one.batch_size > 32]
    if not small or not large:
        return Untold("no sizes from 2 to 32 beside larger ones", case.sweep(case.wide(), seeds=3))
    best = max(small, key=lambda one: one.value)
    effects = tuple(replace(_over(one, best, found), high=SAME_QUALITY) for one in large)
    most = max(effects, key=lambda effect: effect.value)
    text = f"{most.batch_size} gets {more_or_less(most.value)} of the gain than {best.batch_size}"
    measured = {size for size, _ in cell_qualities(case.evidence, Budget.EPOCHS) or {} if 2 <= size <= 32}
    left_out = sorted(measured - {one.batch_size for one in small})
    why = f"batch size {left_out[0]} may be better at a rate beyond those tried" if left_out else ""
    only_holds = Untold(why, case.sweep(case.wide(), seeds=3)) if left_out else None
    return Finding(effects, text, best_of=len(small), only_holds=only_holds)


def _judge_too_low(case: Case) -> Finding | Untold:
    """Thoma: the smallest size is worse than some larger one."""
    found = qualities(case.evidence, Protocol(Budget.EPOCHS, Tuning.ONE_RATE))
    if isinstance(found, Untold):
        return replace(found, command=found.command or case.sweep(case.wide(), seeds=3))
    low, *others = found.sizes
    effects = tuple(replace(_over(one, low, found), low=SAME_QUALITY) for one in others)
    most = max(effects, key=lambda effect: effect.value)
    text = f"{most.batch_size} gets {more_or_less(most.value)} of the gain than {low.batch_size} ({found.given})"
    beyond = None
    if low.batch_size > 8:
        beyond = Untold("sizes below 9 were not tried", case.sweep("2,4,8", seeds=3))
    return Finding(effects, text, one_is_enough=True, only_holds=beyond)


def _over(one: SizeQuality, other: SizeQuality, found: Qualities) -> Effect:
    """How much better one size is than another, in shares of the gain."""
    return Effect(
        f"quality at {one.batch_size} over that at {other.batch_size}",
        one.value - other.value,
        math.hypot(one.error, other.error),
        found.freedom,
        unit=Unit.SHARE,
        batch_size=one.batch_size,
    )


_WORSE = Protocol(Budget.EPOCHS, Tuning.ONE_RATE)
_EQUAL_STEPS = Protocol(Budget.STEPS, Tuning.TUNED)

RULES = (
    Rule(
        name="two-to-thirty-two",
        family="size",
        statement="The best quality comes with batch sizes from 2 to 32.",
        sources=(MASTERS,),
        scope="CIFAR-10, CIFAR-100 and ImageNet at equal epochs, the rate tuned",
        tolerance="no larger size is better than the best of 2 to 32 by more than 1 % of the gain",
        predict=lambda case: (Prediction("batch size", Interval(8, 2, 32, note="the range that it names")),),
        judge=_judge_small_is_best,
    ),
    Rule(
        name="too-low-is-possible",
        family="size",
        statement="Smaller batches give better models, but a batch can be too small.",
        sources=(THOMA,),
        scope="Adam at one rate, early stopping (CIFAR-100: 64.2 % at 16, 61.9 % at 8)",
        tolerance="at one rate, some size is better than the smallest by at least 1 % of the gain",
        predict=no_prediction,
        judge=_judge_too_low,
    ),
    Rule(
        name="larger-generalises-worse",
        family="quality",
        statement="Large batches (a tenth of the data) generalise worse than small ones (32 to 512).",
        sources=(KESKAR,),
        scope="equal epochs, the same rate for all sizes (MNIST 98.0 and 97.8 %, CIFAR-10 80.0 and 77.3 %)",
        tolerance="at equal epochs and one rate, the largest size is worse than 32 to 512 by at least 1 % of the gain",
        predict=no_prediction,
        judge=_judge_large(_WORSE, worse=True),
        popular=True,
    ),
    Rule(
        name="no-effect-once-tuned",
        family="quality",
        statement="With the rate tuned at each size and enough training, quality does not depend on the batch size.",
        sources=(replace(SHALLUE, at="section 4.7"), BREUEL),
        scope="any workload; Breuel: LSTMs",
        tolerance="each size is within 1 % of the gain of the mean of all, once no size gets better any more",
        predict=no_prediction,
        judge=_judge_no_effect,
    ),
    Rule(
        name="number-of-updates",
        family="quality",
        statement="What large batches lack is updates: after equally many steps they are as good as small ones.",
        sources=(HOFFER,),
        scope="rate tuned (with the root of the batch in the source)",
        tolerance="at equal steps, the largest size is worse than 32 to 512 by at most 1 % of the gain",
        predict=no_prediction,
        judge=_judge_large(_EQUAL_STEPS, worse=False),
    ),
    Rule(
        name="sharpness-predicts",
        family="quality",
        statement="The sharper the minimum, the worse the model generalises.",
        sources=(KESKAR, DINH),
        scope="one model and data, over batch sizes; sharpness depends on how weights are scaled (Dinh et al.)",
        tolerance="the rank correlation of sharpness and quality is -0.5 or stronger",
        predict=no_prediction,
        judge=_judge_sharpness,
    ),
)
