"""Rules for how the critical batch size changes: along a training, with the data, with the model."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np

from rightbatch.question import Objective
from rightbatch.rules.case import Case
from rightbatch.rules.effects import Effect, Finding, Unit, Untold
from rightbatch.rules.known import Known
from rightbatch.rules.rule import Rule, no_prediction
from rightbatch.rules.sources import KAPLAN, MCCANDLISH, POWER_LINES, ZHANG

EASY = 0.7
"""The easier target: this share of the gain to the target that was asked for."""

GROWS = math.log(1.5)
"""What grows does so by at least this much; what stays is within it."""

DATA_EXPONENT, DATA_ERROR = 0.47, 0.2
MODEL_SETTINGS = ("width", "hidden", "hidden_units", "layers", "depth", "model_size", "parameters")
"""Settings of a workload that say how large its model is."""


def _critical(case: Case) -> tuple[Known, int] | None:
    if case.critical is None or case.tradeoff is None:
        return None
    return case.critical, case.tradeoff.hyperbola.freedom


def _judge_grows(case: Case) -> Finding | Untold:
    """The critical size at the target over that at 70 % of the gain; both from the same runs, as if independent."""
    if case.untuned:
        return case.untuned
    target = case.evidence.question.target
    starts = [value for run in case.evidence.relevant if (value := _at_start(run.points, target.quantity)) is not None]
    if not starts:
        return Untold("the curves do not say where runs start from", case.sweep())
    start = float(np.median(starts))
    easy, hard = _critical(case.at_target(start + EASY * (target.value - start))), _critical(case)
    if easy is None or hard is None:
        return Untold("the sizes tried do not bound the critical batch size at both targets", case.sweep(case.wide()))
    effect = Effect(
        "critical size at the target over that at 70 % of the gain",
        hard[0].log - easy[0].log,
        math.hypot(hard[0].error, easy[0].error),
        min(hard[1], easy[1]),
        low=GROWS,
    )
    text = f"{math.exp(easy[0].log):.3g} at 70 % of the gain, {math.exp(hard[0].log):.3g} at the target"
    return Finding((effect,), text)


def _at_start(points: tuple[object, ...], quantity: str) -> float | None:
    return getattr(points[0], quantity) if points else None


def _judge_data(case: Case) -> Finding | Untold:
    """The exponent of the critical size in the number of training examples, between the smallest and the largest."""
    found = _by_setting(case, "train_examples")
    if len(found) < 2:
        return _not_varied(case, "train_examples", "the number of training examples")
    (low, (first, freedom)), *_, (high, (last, other)) = sorted(found.items())
    span = math.log(high / low)
    effect = Effect(
        f"exponent of the critical size from {low:g} to {high:g} examples",
        (last.log - first.log) / span,
        math.hypot(first.error, last.error) / span,
        min(freedom, other),
        DATA_EXPONENT - DATA_ERROR,
        DATA_EXPONENT + DATA_ERROR,
        Unit.NUMBER,
    )
    return Finding((effect,), f"the critical size grows as the number of examples to the power {effect.value:.2f}")


def _judge_model(case: Case) -> Finding | Untold:
    name = next((n for n in MODEL_SETTINGS if len(case.settings_of(n)) > 1), None)
    found = _by_setting(case, name) if name else {}
    if len(found) < 2:
        own = next((n for n in MODEL_SETTINGS if n in case.evidence.facts.settings), "width")
        return _not_varied(case, own, "the size of the model")
    effects = tuple(
        Effect(
            f"critical size at {name} {b:g} over that at {a:g}",
            large.log - small.log,
            math.hypot(small.error, large.error),
            min(freedom, other),
            -GROWS,
            GROWS,
        )
        for (a, (small, freedom)), (b, (large, other)) in itertools.combinations(sorted(found.items()), 2)
    )
    most = max(effects, key=lambda effect: abs(effect.value))
    return Finding(effects, f"{most.name}: {math.exp(most.value):.2f}x")


def _not_varied(case: Case, name: str, what: str) -> Untold:
    own = case.evidence.facts.settings.get(name)
    if not isinstance(own, int | float):
        return Untold(f"{what} is not a setting of this workload (`{name}`)")
    return Untold(f"{what} was not varied", case.sweep(more=f"--set {name}={own / 4:g}"))


def _by_setting(case: Case, name: str) -> dict[float, tuple[Known, int]]:
    """The critical size by the value of a setting, where it is bounded; by examples, which are the same for all."""
    question = replace(case.evidence.question, objective=Objective.STEPS, at_seconds=None, at_examples=None)
    case = replace(case, evidence=replace(case.evidence, question=question))
    values = [value for value in case.settings_of(name) if isinstance(value, int | float)]
    found = {float(value): _critical(case.with_setting(name, value)) for value in values}
    return {value: known for value, known in found.items() if known is not None}


RULES = (
    Rule(
        name="critical-size-grows",
        family="size",
        statement="The critical batch size grows as the loss falls.",
        sources=(replace(MCCANDLISH, at="section 3"), KAPLAN),
        scope="any training; for language models as loss to the power -1 / 0.21 (Kaplan et al.)",
        tolerance="at the target it is at least 1.5 times what it is at 70 % of the gain",
        predict=no_prediction,
        judge=_judge_grows,
    ),
    Rule(
        name="critical-size-and-data",
        family="size",
        statement="The critical batch size grows with the amount of data to the power of about 0.47.",
        sources=(ZHANG, POWER_LINES),
        scope="language models, 85M to 3.3B parameters (0.47 and 0.46 in tokens)",
        tolerance="the exponent between the least and the most training examples is 0.27 to 0.67",
        predict=no_prediction,
        judge=_judge_data,
    ),
    Rule(
        name="critical-size-and-model",
        family="size",
        statement="The critical batch size does not depend on the size of the model.",
        sources=(ZHANG,),
        scope="language models at a fixed amount of data (exponent 0.09)",
        tolerance="between any two model sizes it differs by less than a factor 1.5",
        predict=no_prediction,
        judge=_judge_model,
    ),
)
