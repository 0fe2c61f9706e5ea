"""What is said of a batch that grows while training."""

from __future__ import annotations

from rightbatch.growth import Growth, plan_text
from rightbatch.report import units
from rightbatch.wording import counted


def growth_text(growth: Growth) -> str:
    """The verdict in a sentence or two."""
    if not growth.seeds:
        return _unjudged(growth)
    plan = plan_text(growth.batch_size, growth.learning_rate, growth.schedule)
    told = (
        "a batch that grows is faster"
        if growth.recommended
        else "that a batch that grows is faster is not beyond doubt"
        if growth.times_the_fixed.estimate < 1
        else "no growing batch that was tried is faster"
    )
    spread = (
        f", varying by {100 * growth.spread:.0f} % between seeds instead of {100 * growth.fixed_spread:.0f} %"
        if growth.spread is not None and growth.fixed_spread is not None
        else ""
    )
    return (
        f"{told[0].upper()}{told[1:]}: {plan} costs {units.interval(growth.times_the_fixed)} times the fixed batch "
        f"size, by {growth.seeds} fresh seeds{spread}.{_parts(growth)}"
    )


def _unjudged(growth: Growth) -> str:
    """Where no plan was worth fresh seeds."""
    if all(row.times_the_fixed is None for row in growth.tried):
        return (
            f"No growing batch is known to be faster: {counted(len(growth.tried), 'plan')} tried, each given up as "
            f"soon as it had cost as much as the fixed batch size."
        )
    plan = plan_text(growth.batch_size, growth.learning_rate, growth.schedule)
    return (
        f"No growing batch is known to be faster: of {counted(len(growth.tried), 'plan')} tried the cheapest, "
        f"{plan}, costs {units.significant(growth.times_the_fixed.estimate)} times the fixed batch size, and was not "
        f"run with fresh seeds."
    )


def _parts(growth: Growth) -> str:
    """What is left of it without each of its phases."""
    said = [
        f"{plan_text(part.batch_size, part.learning_rate, part.schedule)} "
        + ("misses the target" if part.times_the_fixed is None else f"costs {units.times(part.times_the_fixed)}")
        for part in growth.parts
        if part.seeds
    ]
    return f" Without a part of it: {'; '.join(said)}." if said else ""
