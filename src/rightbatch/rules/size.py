"""Rules that name a batch size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from rightbatch.fit.step_time import median_error, median_seconds, powers_of_two
from rightbatch.records import Interval
from rightbatch.rules.case import AS_CHEAP, NEAR, Case
from rightbatch.rules.costs import CHEAP, judge_size
from rightbatch.rules.effects import Effect, Finding, Untold
from rightbatch.rules.known import Known, from_interval
from rightbatch.rules.rule import Prediction, Rule, no_prediction
from rightbatch.rules.sources import BENGIO, GOODFELLOW, NG, PLAYBOOK, THOMA

TWO_THOUSAND = 2000
POWER_GAIN = math.log(1.05)
TIMES_EIGHT = math.log(5)
ROUNDS = 6
"""Fewer repeats than this give no median with an interval of 95 %."""


# ----------------------------------------------------------------------------------------------- a named size


def _fixed(batch_size: int) -> Callable[[Case], tuple[Prediction, ...]]:
    return lambda case: (Prediction("batch size", Interval(batch_size)),)


def _judge_fixed(batch_size: int) -> Callable[[Case], Finding | Untold]:
    return lambda case: judge_size(case, batch_size)


# --------------------------------------------------------------------------------------- memory, data, hardware


def _predict_largest(case: Case) -> tuple[Prediction, ...]:
    if case.evidence.fits is None:
        return ()
    return (Prediction("batch size", Interval(case.evidence.fits, note="the largest that was seen to fit")),)


def _judge_largest(case: Case) -> Finding | Untold:
    if case.evidence.fits is None:
        return Untold("what fits into memory was not measured", case.command("memory"))
    if case.unpriced:
        return case.unpriced
    largest = max(case.costs)
    if largest * NEAR >= case.evidence.fits:
        return judge_size(case, case.evidence.fits)
    # Beyond the sizes tried costs are not known. They need not be, where the largest one is too dear and cost grows.
    found = judge_size(case, largest)
    if isinstance(found, Finding) and _rising(case):
        return replace(found, says=f"{found.says}, and {case.evidence.fits} fits: dearer still, if the trend goes on")
    return Untold(f"{case.evidence.fits} fits and was not tried", case.sweep(str(case.evidence.fits)))


def _rising(case: Case) -> bool:
    """Whether the cost grows over the last three sizes, by more than a quarter in all."""
    last = [cost.log for _, cost in sorted(case.costs.items())[-3:]]
    return len(last) == 3 and last[0] < last[1] < last[2] and last[2] - last[0] > AS_CHEAP


def _predict_full(case: Case) -> tuple[Prediction, ...]:
    return (Prediction("batch size", Interval(case.evidence.facts.train_examples)),)


def _judge_full(case: Case) -> Finding | Untold:
    return judge_size(case, case.evidence.facts.train_examples)


def _judge_powers(case: Case) -> Finding | Untold:
    found = [one for one in powers_of_two(case.evidence.step_times) if one.rounds >= ROUNDS]
    if not found:
        return Untold(f"no power of two was timed {ROUNDS} times beside its neighbours", case.command("profile"))
    effects = []
    for one in found:
        freedom = one.rounds - 1
        known = from_interval(one.ratio, freedom)
        assert known is not None  # ratios of times that were measured
        name = f"time of {one.batch_size} examples over that of one more or less"
        effects.append(Effect(name, known.log, known.error, freedom, high=-POWER_GAIN, batch_size=one.batch_size))
    text = ", ".join(f"{e.batch_size}: {100 * (math.exp(e.value) - 1):+.1f} %" for e in effects)
    return Finding(tuple(effects), f"step time against the sizes beside it: {text}", command=case.command("profile"))


def _judge_eight(case: Case) -> Finding | Untold:
    """Seconds per example at the largest size of at most 8, over those at every other."""
    timed = {one.batch_size: one for one in case.evidence.step_times if len(one.seconds) >= ROUNDS}
    times = {size: Known(math.log(median_seconds(one) / size), median_error(one)) for size, one in timed.items()}
    small = [size for size in times if size <= 8]
    if not small or len(times) < 2:
        return Untold(f"no size of at most 8 was timed {ROUNDS} times beside larger ones", case.command("profile"))
    eight = max(small)
    effects = tuple(
        Effect(
            f"seconds of a pass at {eight} over those at {size}",
            times[eight].log - other.log,
            math.hypot(times[eight].error, other.error),
            min(len(timed[eight].seconds), len(timed[size].seconds)) - 1,
            low=TIMES_EIGHT,
            batch_size=size,
        )
        for size, other in sorted(times.items())
        if size != eight
    )
    most = max(effects, key=lambda effect: effect.value)
    text = f"a pass at {eight} takes {math.exp(most.value):.1f}x that at {most.batch_size}"
    return Finding(effects, text, one_is_enough=True, command=case.command("profile"))


RULES = (
    Rule(
        name="largest-that-fits",
        family="size",
        statement="Train with the largest batch that fits into memory.",
        sources=(PLAYBOOK,),
        scope="training time, with all else tuned anew; accelerators that are not yet busy",
        tolerance=CHEAP,
        predict=_predict_largest,
        judge=_judge_largest,
        popular=True,
    ),
    Rule(
        name="thirty-two",
        family="size",
        statement="32 is a good default batch size.",
        sources=(BENGIO,),
        scope="training time on any problem",
        tolerance=CHEAP,
        predict=_fixed(32),
        judge=_judge_fixed(32),
        popular=True,
    ),
    Rule(
        name="powers-of-two",
        family="size",
        statement="Powers of two run faster.",
        sources=(GOODFELLOW,),
        scope="some kinds of hardware, GPUs above all",
        tolerance="each power of two that was timed takes at least 5 % less time than one example more or less",
        predict=no_prediction,
        judge=_judge_powers,
        popular=True,
    ),
    Rule(
        name="full-batch-below-2000",
        family="size",
        statement="With fewer than 2,000 training examples, use all of them in every batch.",
        sources=(NG,),
        scope="small data",
        tolerance=CHEAP,
        predict=_predict_full,
        judge=_judge_full,
        applies=lambda facts: 0 < facts.train_examples < TWO_THOUSAND,
    ),
    Rule(
        name="eight-costs-five-times",
        family="size",
        statement="A pass over the data with batches of 8 or less takes more than five times the least that it can.",
        sources=(THOMA,),
        scope="a convolutional network on a GPU (8: 118 s, 128: 18 s)",
        tolerance="seconds of a pass at the largest size of at most 8 are at least 5 times those at some other size",
        predict=no_prediction,
        judge=_judge_eight,
    ),
)
