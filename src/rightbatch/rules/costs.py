"""What a rule that names a batch size costs: the size beside all others that were tuned."""

from __future__ import annotations

import math

from rightbatch.nearness import apart, nearest
from rightbatch.rules.case import AS_CHEAP, NEAR, Case
from rightbatch.rules.effects import Effect, Finding, Untold

CHEAP = "the tuned size nearest to it costs at most 1.25 times what any other one does"
"""The tolerance of every rule that names a size."""


def judge_size(case: Case, batch_size: float) -> Finding | Untold:
    """Whether the size nearest to one that a rule names costs at most a quarter more than any other."""
    if case.unpriced:
        return case.unpriced
    own = case.near(batch_size)
    if own is None:
        return _missed(case, batch_size)
    effects = case.costs_little(own)
    worst = max(effects, key=lambda effect: effect.value)
    text = f"{own} costs {math.exp(max(0.0, worst.value)):.2f}x the best"
    if case.expected:  # the best of a forecast may be a size that was not trained, and not the answer
        text = f"{own} costs {math.exp(worst.value):.2f}x what {worst.batch_size} does, by the forecast of the search"
    if own != round(batch_size):
        text = f"{batch_size:.0f}: {text}"
    tried = {size.batch_size for size in case.evidence.sizes}
    more = "" if own in tried else case.sweep(",".join(map(str, sorted(tried | {own}))), seeds=2 * max(1, case.seeds))
    return Finding(effects, text, command=more)


def _missed(case: Case, batch_size: float) -> Finding | Untold:
    """What is known of a size with no cost of its own: that no rate got it there, or nothing."""
    tried = [size.batch_size for size in case.evidence.sizes]
    near = nearest(tried, batch_size) if tried else None
    best = min(case.costs, key=lambda size: case.costs[size].log)
    close = near is not None and apart(near, batch_size) <= math.log(NEAR)
    least = case.least_cost(near) if near is not None and close else None
    if near is None or least is None:
        return Untold(f"no size near {batch_size:.0f} was brought to the target", case.sweep(f"{batch_size:.0f}"))
    value = math.log(least) - case.costs[best].log
    effect = Effect(
        f"least cost at {near} over that at {best}",
        value,
        case.costs[best].error,
        case.freedom,
        high=AS_CHEAP,
        batch_size=best,
    )
    missed = Untold(f"{near} did not reach the target", case.sweep(str(near), more=case.longer()))
    text = f"no rate brought {near} to the target: at least {math.exp(value):.2f}x the best"
    return Finding((effect,), text) if not effect.within else missed
