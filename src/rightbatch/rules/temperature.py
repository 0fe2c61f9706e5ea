"""Rules that keep the noise of an update the same: Adam's memory in examples, and rate over size."""

from __future__ import annotations

import math

from rightbatch.records import Interval
from rightbatch.rules.case import AS_CHEAP, Case
from rightbatch.rules.effects import Effect, Finding, Unit, Untold
from rightbatch.rules.learning_rate import adaptive, half_life
from rightbatch.rules.protocols import Budget, cell_qualities
from rightbatch.rules.quality import SAME_QUALITY
from rightbatch.rules.rule import Prediction, Rule, no_prediction
from rightbatch.rules.sources import MANDT, MAREK, SMITH_LE
from rightbatch.rules.surface import LEAST_QUALITY, drift


def _predict_beta2(case: Case) -> tuple[Prediction, ...]:
    beta2, present = case.evidence.facts.settings.get("beta2"), case.evidence.facts.present
    if not isinstance(beta2, float) or present is None:
        return ()
    sizes = [size.batch_size for size in case.evidence.sizes if size.batch_size != present[0]]
    return tuple(Prediction(f"beta2 at batch size {n}", Interval(half_life(beta2, n / present[0]))) for n in sizes)


def _judge_beta2(case: Case) -> Finding | Untold:
    """At every other size: what the beta2 nearest to the rule's costs, over each other one that was tried."""
    facts = case.evidence.facts
    own, tried = facts.settings.get("beta2"), case.settings_of("beta2")
    if not isinstance(own, float) or facts.present is None or len(tried) < 2:
        if not isinstance(own, float) or facts.present is None:
            return Untold("beta2 is not a setting of this workload")
        return Untold("beta2 was not varied", case.sweep(more=f"--set beta2={half_life(own, 4):.4g}"))
    by_value = {float(value): case.with_setting("beta2", value) for value in tried}
    effects: list[Effect] = []
    for size in sorted({one.batch_size for one in case.tuned} - {facts.present[0]}):
        wanted = half_life(own, size / facts.present[0])
        costs = {value: one for value, c in by_value.items() for one in c.tuned if one.batch_size == size}
        if len(costs) < 2:
            continue
        near = min(costs, key=lambda value: abs(math.log(math.log(value) / math.log(wanted))))
        if abs(math.log(math.log(near) / math.log(wanted))) > math.log(2):  # no beta2 near the rule's was tried
            continue
        effects += [
            Effect(
                f"cost at batch size {size} with beta2 {near:g} over that with {value:g}",
                costs[near].cost.log - other.cost.log,
                math.hypot(costs[near].cost.error, other.cost.error),
                min(by_value[near].freedom, by_value[value].freedom),
                high=AS_CHEAP,
                batch_size=size,
            )
            for value, other in costs.items()
            if value != near
        ]
    if not effects:
        return Untold("no size was trained with a beta2 near the rule's and with another", case.sweep())
    worst = max(effects, key=lambda effect: effect.value)
    return Finding(tuple(effects), f"{worst.name}: {math.exp(worst.value):.2f}x")


def _judge_temperature(case: Case) -> Finding | Untold:
    cells = cell_qualities(case.evidence, Budget.EPOCHS)
    found = drift(cells or {})
    if found is None:
        return Untold(
            f"fewer than eight pairs of size and rate with at least {100 * LEAST_QUALITY:.0f} % of the gain",
            case.sweep(seeds=3, more="--rates 0.01,0.03162,0.1,0.3162"),
        )
    name = f"change of quality from batch size {found.smallest} to {found.largest} at the same rate / size"
    effect = Effect(name, found.value, found.error, found.freedom, -SAME_QUALITY, SAME_QUALITY, Unit.SHARE)
    return Finding((effect,), f"at the same rate / size, quality changes by {100 * found.value:+.1f} % of the gain")


RULES = (
    Rule(
        name="beta2-half-life",
        family="learning rate",
        statement="Raise Adam's beta2 to the power k when the batch size is multiplied by k: it forgets by examples.",
        sources=(MAREK,),
        scope="Adam on language models, batches down to one sequence",
        tolerance="at every size tried, the beta2 of the rule costs at most 1.25 times what any other one does",
        predict=_predict_beta2,
        judge=_judge_beta2,
        applies=adaptive,
    ),
    Rule(
        name="temperature",
        family="learning rate",
        statement="Rate and batch size matter for quality only as their ratio, the temperature of the noise.",
        sources=(MANDT, SMITH_LE),
        scope="SGD near a minimum, batches much smaller than the data",
        tolerance="at the same ratio, quality from the smallest to the largest size changes by at most 1 % of the gain",
        predict=no_prediction,
        judge=_judge_temperature,
        applies=lambda facts: not adaptive(facts),
    ),
)
