"""What `marek.py` finds: losses, best rates, widths and half-lives of its runs, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rightbatch.errors import InputError
from rightbatch.fit.learning_rate import fit_rate_parabola
from rightbatch.means import mean_of, ratio_of_means
from rightbatch.records import Interval
from rightbatch.report import units
from rightbatch.rules.learning_rate import half_life

BASE, BASE_SIZE = 0.95, 64
"""Where beta2 is as is usual for language models; the rule says what it is elsewhere."""

TUNING, JUDGING = 2, 4
"""Seeds by which rates are chosen: the first ones; and seeds by which all is judged: the next ones."""

NEAR = 0.03
"""Losses so near to each other, in nats a character, are as good: a little more than what seeds differ by."""

WINDOW = 64
"""Tokens in an example."""

Losses = Mapping[str, float | None]
"""By seed; None where the run diverged."""

Cells = Mapping[str, Mapping[str, Any]]
"""By name: batch size, the rate that was chosen, whether that is the first or last, and losses by rate and seed."""

Cell = tuple[str, int, float]


def beta2_of(size: int, factor: float = 1.0) -> float:
    """The beta2 at a batch size whose half-life in tokens is so many times that of the rule."""
    return half_life(BASE, size / (BASE_SIZE * factor))


def tokens_of(factor: float) -> float:
    """That half-life in tokens: B T ln 2 / ln(1 / beta2)."""
    return factor * BASE_SIZE * WINDOW * math.log(2) / math.log(1 / BASE)


def named(optimizer: str, size: int, factor: float) -> str:
    """A cell in words."""
    if optimizer == "sgd":
        return f"SGD, batch size {size}"
    return f"Adam, batch size {size}, {units.significant(factor)} x the half-life"


# ------------------------------------------------------------------------------------------ losses of the judges


def judging(losses: Losses) -> list[float]:
    """Those of the seeds that judge; a run that diverged is infinitely bad."""
    kept = sorted((int(seed), loss) for seed, loss in losses.items() if int(seed) >= TUNING)
    return [math.inf if loss is None else loss for _, loss in kept]


def at_best(cells: Cells, cell: Cell) -> list[float] | None:
    """Losses at the rate that was chosen; None where that is the first or the last of those tried, or diverges."""
    found = cells.get(named(*cell))
    if found is None or found["at_edge"]:
        return None
    losses = judging(found["losses"][f"{found['chosen']:g}"])
    return losses if all(map(math.isfinite, losses)) else None


def costs(cells: Cells, cell: Cell, other: Cell) -> Interval | None:
    """By how much the loss of one is above that of the other, from seed to seed: the same start, the same order."""
    above, below = at_best(cells, cell), at_best(cells, other)
    return None if above is None or below is None else mean_of([a - b for a, b in zip(above, below, strict=True)])


def gap_shrinks(cells: Cells, small: int, large: int) -> Interval | None:
    """By how much more SGD is behind Adam at the large size."""
    of = [at_best(cells, (o, b, f)) for b in (large, small) for o, f in (("sgd", 0.0), ("adam", 1.0))]
    if any(one is None for one in of):
        return None
    return mean_of([(a - b) - (c - d) for a, b, c, d in zip(*of, strict=True)])


# ------------------------------------------------------------------------------------------------ rates and widths


def curves_of(cells: Cells, size: int) -> list[dict[float, float]]:
    """Of each seed that judges, its losses by rate with the rule's beta2, at the rates that all of them ran."""
    found = cells[named("adam", size, 1.0)]["losses"]
    ran = {float(rate): judging(losses) for rate, losses in found.items() if judging(losses)}
    return [dict(zip(ran, row, strict=True)) for row in zip(*ran.values(), strict=True)]


def best_rate(curve: Mapping[float, float]) -> float | None:
    """The lowest point of a parabola through the losses within half a decade of the best; None where it has none."""
    best = min(curve, key=lambda rate: curve[rate])
    near = [rate for rate in curve if abs(math.log10(rate / best)) < 0.6 and math.isfinite(curve[rate])]
    try:
        fitted = fit_rate_parabola(near, [curve[rate] for rate in near], [1] * len(near), None, 0)
    except InputError:
        return None
    best = fitted.best_rate.estimate
    inside = 1.001 * min(near) < best < max(near) / 1.001  # at the ends it is held there
    return best if inside else None


def best_rates(cells: Cells, size: int) -> list[float] | None:
    """Of each seed that judges."""
    found = [best_rate(curve) for curve in curves_of(cells, size)]
    return None if None in found else [rate for rate in found if rate is not None]


def best_rate_power(cells: Cells, sizes: Sequence[int]) -> Interval | None:
    """By which power of the batch size the best rate grows: of each seed a line in logarithms."""
    return power_of(sizes, [best_rates(cells, size) for size in sizes])


def power_of(sizes: Sequence[int], values: Sequence[Sequence[float] | None]) -> Interval | None:
    """By which power of the size something grows, from what it is for each seed at each size."""
    if any(one is None for one in values):
        return None
    logs = np.log(np.array(values, float))
    return mean_of(np.polyfit(np.log(sizes), logs, 1)[0].tolist())


def width(curve: Mapping[float, float], near: float = NEAR) -> tuple[float, bool]:
    """Decades of rates within so much of the best loss, in straight lines between rates; whether it is cut off.

    It is cut off where the first or the last rate is within it: then it is at least so wide.
    """
    rates = sorted(curve)
    logs, losses = [math.log10(rate) for rate in rates], [curve[rate] for rate in rates]
    best = min(range(len(rates)), key=lambda k: losses[k])
    limit, decades, cut = losses[best] + near, 0.0, False
    for step, last in ((-1, 0), (1, len(rates) - 1)):
        k = best
        while k != last and losses[k + step] <= limit:
            k += step
        decades += abs(logs[k] - logs[best])
        if k == last:
            cut = True
        else:  # a run that diverged is infinitely bad: nothing of the way to it counts
            share = (limit - losses[k]) / (losses[k + step] - losses[k])
            decades += share * abs(logs[k + step] - logs[k])
    return decades, cut


def widths(cells: Cells, size: int, near: float = NEAR) -> list[float] | None:
    """Of each seed that judges; None where one is cut off."""
    found = [width(curve, near) for curve in curves_of(cells, size)]
    return None if any(cut for _, cut in found) else [decades for decades, _ in found]


def width_ratio(cells: Cells, small: int, large: int, near: float = NEAR) -> Interval | None:
    """How many times as wide it is at the small size."""
    upper, lower = widths(cells, small, near), widths(cells, large, near)
    return None if upper is None or lower is None else ratio_of_means(upper, lower)


# --------------------------------------------------------------------------------------------------- half-lives


def by_factor(cells: Cells, size: int) -> dict[float, list[float]]:
    """Losses of the seeds that judge by half-life, as a multiple of the rule's: what is tried at every size."""
    found = {4.0**k: at_best(cells, ("adam", size, 4.0**k)) for k in range(-2, 3)}
    return {factor: losses for factor, losses in found.items() if losses is not None}


def best_factors(losses: Mapping[float, Sequence[float]]) -> list[float] | None:
    """Of each seed the lowest point of a parabola through the best half-life (of the mean) and those beside it.

    None where the best is the first or the last. A seed whose losses do not bend has the best of the three.
    """
    factors = sorted(losses)
    if len(factors) < 3:
        return None
    best = min(range(len(factors)), key=lambda k: float(np.mean(losses[factors[k]])))
    if best in (0, len(factors) - 1):
        return None
    three = factors[best - 1 : best + 2]
    found = []
    for seed in range(len(losses[three[0]])):
        values = [losses[factor][seed] for factor in three]
        try:
            found.append(fit_rate_parabola(three, values, [1, 1, 1], None, 0).best_rate.estimate)
        except InputError:
            found.append(three[int(np.argmin(values))])
    return found


def best_half_life_power(cells: Cells, sizes: Sequence[int]) -> Interval | None:
    """By which power of the batch size the best half-life in tokens grows."""
    return power_of(sizes, [best_factors(by_factor(cells, size)) for size in sizes])
