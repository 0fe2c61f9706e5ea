"""Rules for the learning rate at another batch size. The formulas are plain functions, usable alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from rightbatch.another_batch import RULES as MOVES
from rightbatch.another_batch import Plan
from rightbatch.records import WorkloadFacts
from rightbatch.rules.case import Case, Tuned
from rightbatch.rules.effects import Effect, Finding, Untold
from rightbatch.rules.known import Known
from rightbatch.rules.rule import Prediction, Rule
from rightbatch.rules.sources import (
    GOYAL,
    HOFFER,
    KRIZHEVSKY,
    MALLADI,
    MCCANDLISH,
    SURGE,
)

TOLERANCE = math.log(1.5)
"""A predicted rate is right within a factor 1.5 of the best one."""

ADAPTIVE = ("adam", "rmsprop", "nadam", "radam", "adagrad", "lamb", "lion", "sign")


# ------------------------------------------------------------------------------------------------ the formulas


def linear(learning_rate: float, factor: float) -> float:
    """The rate at `factor` times the batch size: in proportion."""
    return learning_rate * factor


def square_root(learning_rate: float, factor: float) -> float:
    """The rate at `factor` times the batch size: with the root."""
    return learning_rate * math.sqrt(factor)


def saturating(maximum: float, noise_scale: float, batch_size: float) -> float:
    """maximum / (1 + noise_scale / batch_size): linear below the noise scale, constant above (McCandlish 2018, 2.2)."""
    return maximum / (1 + noise_scale / batch_size)


def surge(maximum: float, noise_scale: float, batch_size: float) -> float:
    """The best rate of Adam and sign descent: it grows with the root, peaks at the noise scale, then falls.

    Li et al. 2024, equation 4: maximum / [1/2 (sqrt(noise_scale / B) + sqrt(B / noise_scale))].
    """
    root = math.sqrt(noise_scale / batch_size)
    return 2 * maximum / (root + 1 / root)


def adam(
    learning_rate: float, beta1: float, beta2: float, epsilon: float, factor: float
) -> tuple[float, float, float, float]:
    """Rate, beta1, beta2 and epsilon of Adam at `factor` times the batch size (Malladi et al. 2022).

    Raises `InputError` where 1 - beta would pass 1.
    """
    there = MOVES["adam"].move(Plan(1, learning_rate, beta1=beta1, beta2=beta2, epsilon=epsilon), factor)
    assert there.beta1 is not None
    assert there.beta2 is not None
    assert there.epsilon is not None
    return there.learning_rate, there.beta1, there.beta2, there.epsilon


def half_life(beta2: float, factor: float) -> float:
    """Adam's beta2 at `factor` times the batch size, so that it forgets after as many examples (Marek et al. 2025)."""
    return float(beta2**factor)


def temperature(learning_rate: float, batch_size: float, train_examples: float, momentum: float = 0.0) -> float:
    """The noise of SGD, rate / (1 - momentum) x (N / B - 1), which is zero at the full batch (Smith and Le 2018)."""
    return learning_rate / (1 - momentum) * (train_examples / batch_size - 1)


# ----------------------------------------------------------------------------------------------------- judging

Growth = Callable[[Case, Tuned, float], Known | None]
"""The log of the rate at a batch size over that at the base, and the error of that prediction."""


def _power(exponent: float) -> Growth:
    return lambda case, base, size: Known(exponent * math.log(size / base.batch_size), 0.0)


def _saturating(case: Case, base: Tuned, size: float) -> Known | None:
    if case.critical is None:
        return None
    knee = math.exp(case.critical.log)
    slope = knee / (base.batch_size + knee) - knee / (size + knee)  # of the log, in the log of the knee
    value = math.log(saturating(1, knee, size) / saturating(1, knee, base.batch_size))
    return Known(value, abs(slope) * case.critical.error)


def _surge(case: Case, base: Tuned, size: float) -> Known | None:
    if case.critical is None:
        return None
    knee = math.exp(case.critical.log)

    def slope_at(batch_size: float) -> float:
        return -0.5 * math.tanh(0.5 * math.log(knee / batch_size))

    value = math.log(surge(1, knee, size) / surge(1, knee, base.batch_size))
    return Known(value, abs(slope_at(size) - slope_at(base.batch_size)) * case.critical.error)


def _predict(growth: Growth) -> Callable[[Case], tuple[Prediction, ...]]:
    def predict(case: Case) -> tuple[Prediction, ...]:
        base = case.base
        if base is None or base.rate is None:
            return ()
        found = []
        for one in case.evidence.sizes:
            grown = growth(case, base, one.batch_size)
            if grown is not None and one.batch_size != base.batch_size:
                rate = Known(base.rate.log + grown.log, math.hypot(base.rate.error, grown.error))
                found.append(Prediction(f"learning rate at batch size {one.batch_size}", rate.interval(case.freedom)))
        return tuple(found)

    return predict


def _judge(growth: Growth) -> Callable[[Case], Finding | Untold]:
    def judge(case: Case) -> Finding | Untold:
        if case.untuned:
            return case.untuned
        base = case.base
        others = [one for one in case.rated if one is not base]
        if base is None or base.rate is None or len(others) < 2:
            return Untold("fewer than three sizes have a best rate that is not at an edge", case.sweep(case.wide(8)))
        effects = []
        for one in others:
            grown = growth(case, base, one.batch_size)
            if grown is None:
                return Untold("the sizes tried do not bound the critical batch size", case.sweep(case.wide()))
            assert one.rate is not None
            value = base.rate.log + grown.log - one.rate.log
            error = math.sqrt(base.rate.error**2 + grown.error**2 + one.rate.error**2)
            effects.append(
                Effect(
                    f"the rule's rate over the best at {one.batch_size}",
                    value,
                    error,
                    case.freedom,
                    -TOLERANCE,
                    TOLERANCE,
                    batch_size=one.batch_size,
                )
            )
        return Finding(tuple(effects), _reach(base.batch_size, effects))

    return judge


def _reach(base: int, effects: list[Effect]) -> str:
    """How far from its base a rule is right, and by how much it is wrong where it is worst."""
    right = {base: True} | {e.batch_size: e.within for e in effects if e.batch_size is not None}
    sizes = sorted(right)
    low = high = sizes.index(base)
    while low > 0 and right[sizes[low - 1]]:
        low -= 1
    while high + 1 < len(sizes) and right[sizes[high + 1]]:
        high += 1
    text = f"from batch size {base}: right from {sizes[low]} to {sizes[high]}"
    if low == high:
        text = f"from batch size {base}: right at no size beside it"
    wrong = [effect for effect in effects if not effect.within]
    if not wrong:
        return text
    worst = max(wrong, key=lambda effect: abs(effect.value))
    way = "too large" if worst.value > 0 else "too small"
    return f"{text}; {math.exp(abs(worst.value)):.2g}x {way} at {worst.batch_size}"


def adaptive(facts: WorkloadFacts) -> bool:
    """Whether the optimizer divides by the size of the gradient, as Adam does."""
    return facts.optimizer.lower().startswith(ADAPTIVE)


RULES = (
    Rule(
        name="linear",
        family="learning rate",
        statement="Multiply the learning rate by k when the batch size is multiplied by k.",
        sources=(GOYAL, KRIZHEVSKY),
        scope="SGD with momentum, after warm-up, as long as the rate is limited by noise (ImageNet: up to 8,192)",
        tolerance="at every size tried, the predicted rate is within a factor 1.5 of the best one",
        predict=_predict(_power(1.0)),
        judge=_judge(_power(1.0)),
        popular=True,
    ),
    Rule(
        name="square-root",
        family="learning rate",
        statement="Multiply the learning rate by the square root of k when the batch size is multiplied by k.",
        sources=(HOFFER, KRIZHEVSKY),
        scope="SGD with momentum, so that the covariance of an update stays the same",
        tolerance="at every size tried, the predicted rate is within a factor 1.5 of the best one",
        predict=_predict(_power(0.5)),
        judge=_judge(_power(0.5)),
        popular=True,
    ),
    Rule(
        name="adam-square-root",
        family="learning rate",
        statement=(
            "With Adam, multiply the rate by the square root of k, 1 - beta1 and 1 - beta2 by k, and divide epsilon by "
            "the square root of k."
        ),
        sources=(MALLADI,),
        scope="adaptive optimizers where noise dominates the gradient",
        tolerance="at every size tried, the predicted rate is within a factor 1.5 of the best one (betas as they were)",
        predict=_predict(_power(0.5)),
        judge=_judge(_power(0.5)),
        applies=adaptive,
    ),
    Rule(
        name="saturating-rate",
        family="learning rate",
        statement="The best rate is maximum / (1 + B_noise / B): linear below the noise scale, constant above.",
        sources=(replace(MCCANDLISH, at="section 2.2"),),
        scope="SGD; B_noise is taken to be the critical batch size of the steps to the target",
        tolerance="at every size tried, the predicted rate is within a factor 1.5 of the best one",
        predict=_predict(_saturating),
        judge=_judge(_saturating),
        applies=lambda facts: not adaptive(facts),
    ),
    Rule(
        name="surge",
        family="learning rate",
        statement="The best rate of Adam grows with the root of B up to the noise scale, and falls beyond it.",
        sources=(SURGE,),
        scope="sign-like optimizers; B_noise is taken to be the critical batch size of the steps to the target",
        tolerance="at every size tried, the predicted rate is within a factor 1.5 of the best one",
        predict=_predict(_surge),
        judge=_judge(_surge),
        applies=adaptive,
    ),
)
