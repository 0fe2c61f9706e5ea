"""Rules for optimizers that are made for large batches."""

from __future__ import annotations

import math

from rightbatch.records import WorkloadFacts
from rightbatch.rules.case import Case
from rightbatch.rules.effects import Effect, Finding, Untold
from rightbatch.rules.rule import Rule, no_prediction
from rightbatch.rules.size_laws import ORDER
from rightbatch.rules.sources import EMSO, WANG

INNER_STEPS = "inner_steps"
"""The setting that says how often a batch is used."""

CHEAPER = math.log(1.5)
"""Larger batches are more useful where they cost so much less."""

WASTE = math.log(1.25)
"""No more than a quarter of the examples is wasted where the batch does not matter."""


def is_emso(facts: WorkloadFacts) -> bool:
    """Whether the optimizer solves a subproblem on every batch."""
    return facts.optimizer.lower().startswith("emso")


def _judge_emso(case: Case) -> Finding | Untold:
    if case.untuned:
        return case.untuned
    first = case.tuned[0]
    effects = tuple(
        Effect(
            f"examples at {one.batch_size} over those at {first.batch_size}",
            one.examples.log - first.examples.log,
            math.hypot(one.examples.error, first.examples.error),
            case.freedom,
            high=WASTE,
            batch_size=one.batch_size,
        )
        for one in case.tuned[1:]
    )
    worst = max(effects, key=lambda effect: effect.value)
    return Finding(effects, f"{worst.name}: {math.exp(worst.value):.2f}x")


def _judge_larger(case: Case) -> Finding | Untold:
    """What the largest size needs in examples over the smallest: with the most inner steps over with the fewest."""
    values = [value for value in case.settings_of(INNER_STEPS) if isinstance(value, int | float)]
    if len(values) < 2:
        if INNER_STEPS not in case.evidence.facts.settings:
            return Untold(f"how often a batch is used is not a setting of this workload (`{INNER_STEPS}`)")
        value = 1 if case.evidence.facts.settings[INNER_STEPS] != 1 else 5
        return Untold("inner steps were not varied", case.sweep(more=f"--set {INNER_STEPS}={value}"))
    cases = {value: case.with_setting(INNER_STEPS, value) for value in (values[0], values[-1])}
    untuned = next((one.untuned for one in cases.values() if one.untuned), None)
    if untuned:
        return untuned
    few, many = values[0], values[-1]
    one = {tuned.batch_size: tuned for tuned in cases[few].tuned}
    other = {tuned.batch_size: tuned for tuned in cases[many].tuned}
    both = sorted(set(one) & set(other))
    if len(both) < 2:
        return Untold("not two sizes reached the target with few inner steps and with many", case.sweep(case.wide(8)))
    small, large = both[0], both[-1]
    known = [found[size].steps for found in (one, other) for size in (small, large)]
    effect = Effect(
        f"examples at {large} over those at {small}: with {many:g} inner steps over with {few:g}",
        (known[3].log - known[2].log) - (known[1].log - known[0].log),
        math.hypot(*(each.error for each in known)),
        min(each.freedom for each in cases.values()),
        high=-CHEAPER,
    )
    least = ", ".join(
        f"{min(found.values(), key=lambda tuned: tuned.cost.log).batch_size} with {value:g}"
        for value, found in ((few, one), (many, other))
    )
    objective = case.evidence.question.objective.value
    return Finding((effect,), f"{math.exp(effect.value):.2f}x; least {objective} at batch size {least} inner steps")


def _judge_limit(case: Case) -> Finding | Untold:
    """The critical size over the steps there, 2 S_min: at most of the same order."""
    if case.untuned:
        return case.untuned
    if case.critical is None or case.tradeoff is None:
        return Untold("the sizes tried do not bound the critical batch size", case.sweep(case.wide()))
    steps = 2 * case.tradeoff.minimum_steps.estimate
    effect = Effect(
        "critical batch size over the steps there",
        case.critical.log - math.log(steps),
        # From one fit, where S_min falls as B_crit grows: their product, the fewest examples, is known better.
        2 * case.critical.error,
        case.tradeoff.hyperbola.freedom,
        high=ORDER,
    )
    return Finding((effect,), f"critical batch size {math.exp(case.critical.log):.3g}, {steps:.3g} steps there")


RULES = (
    Rule(
        name="emso-any-batch",
        family="optimizer",
        statement="With EMSO, the examples to a target do not depend on the batch size.",
        sources=(EMSO,),
        scope="convex problems, each batch solved with a proximal term; Wang et al. prove it for exact solutions",
        tolerance="no size needs more than 1.25 times the examples of the smallest",
        predict=no_prediction,
        judge=_judge_emso,
        applies=is_emso,
    ),
    Rule(
        name="emso-larger-batches",
        family="optimizer",
        statement="More inner steps on each batch (EMSO) make larger batches useful.",
        sources=(EMSO,),
        scope="convex problems; rate tuned at every size and number of inner steps",
        tolerance="what the largest size needs in examples over the smallest falls by at least a factor 1.5",
        predict=no_prediction,
        judge=_judge_larger,
        applies=is_emso,
    ),
    Rule(
        name="batch-below-steps",
        family="optimizer",
        statement="A batch is useful up to about as many examples as there are steps: for EMSO no more than for SGD.",
        sources=(WANG,),
        scope="smooth convex problems; b = O(T) without a constant, read as a factor ten",
        tolerance="the critical batch size is at most ten times the steps to the target there",
        predict=no_prediction,
        judge=_judge_limit,
    ),
)
