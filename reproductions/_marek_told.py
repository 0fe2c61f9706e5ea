"""What `marek.py` tells: losses, best rates, widths and half-lives with their intervals, the notes and the figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from rightbatch.errors import InputError
from rightbatch.fit.learning_rate import fit_rate_parabola
from rightbatch.generalization import mean_of, ratio_of_means
from rightbatch.records import Interval
from rightbatch.report import units
from rightbatch.reproduction import Measured
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


# ---------------------------------------------------------------------------------------------------- in words


WAYS: Mapping[str, Any] = {
    "half-life kept": lambda size: ("adam", size, 1.0),
    "beta2 kept at 0.95": lambda size: ("adam", size, size / BASE_SIZE),
    "beta2 kept at 0.9992": lambda size: ("adam", size, float(size)),
    "SGD": lambda size: ("sgd", size, 0.0),
}


def sizes_of(cells: Cells) -> list[int]:
    """Every size, in order."""
    return sorted({one["batch_size"] for one in cells.values()})


def notes(measured: Measured) -> tuple[str, ...]:
    """Losses and rates, and in what this differs from the paper."""
    cells, examples = measured["cells"], measured["examples"]
    sizes = sizes_of(cells)
    said = []
    for way, cell in WAYS.items():
        parts = [
            f"{units.interval(mean_of(losses))} at {size} (rate {units.rate(cells[named(*cell(size))]['chosen'])})"
            for size in sizes
            if (losses := at_best(cells, cell(size))) is not None
        ]
        said += [f"{way[0].upper()}{way[1:]}, loss by batch size: {', '.join(parts)}."] if parts else []
    edges = [name for name, one in cells.items() if one["at_edge"]]
    said += [f"The best rate was the first or the last tried, and is left out: {'; '.join(edges)}."] if edges else []
    if named("sgd", 1, 0.0) in cells:
        said += [*notes_on_rates(cells, sizes), *notes_on_half_lives(cells)]
    said.append(
        f"A run sees {examples:,} windows of {WINDOW} characters, less than a pass: {examples:,} steps of batch size 1 "
        f"and {examples // sizes[-1]:,} of {sizes[-1]}. There is no weight decay, at any size; beta1 is 0.9; the rate "
        "rises over a tenth of a run and then falls to 0."
    )
    return (
        *said,
        "What the paper found is known from summaries and the authors' notes on their code, not from the paper itself. "
        "Of its numbers only the growth of the best rate, about three times from 1 to 1,024, is comparable; its losses "
        "are of models of 30 million to 1.3 billion parameters on words. That a loss is as good, wide or nearer is "
        f"said in words there: what that is in numbers ({NEAR:g} nats a character) is chosen here.",
        "With as many tokens for all and so few of them, larger sizes are behind for their few steps as well, whatever "
        "beta2 is: that batch size 1 is as good as 64 says less than that it is as good as 16. The paper trains for "
        "many more tokens, so that its larger sizes have steps enough.",
        f"Losses are of the same 200 validation windows for every run. Intervals are over {JUDGING} seeds, the same at "
        "every size and beta2; they do not say what other windows would do.",
    )


def notes_on_rates(cells: Cells, sizes: Sequence[int]) -> list[str]:
    """Best rates and widths by size."""
    said = []
    tops = {size: best_rates(cells, size) for size in sizes}
    told = ", ".join(
        f"{units.interval(ratio_of_means(rates, [1.0] * len(rates)))} at {size}" if rates else f"not told at {size}"
        for size, rates in tops.items()
    )
    said.append(f"Half-life kept, best rate off a parabola: {told}.")
    all_sizes = best_rate_power(cells, sizes)
    if all_sizes is not None:
        said.append(f"Up to {sizes[-1]} it grows with the power {units.interval(all_sizes)} of the batch size.")
    for near in (NEAR, NEAR / 2):
        parts = [
            f"{units.interval(mean_of(found))} at {size}"
            if (found := widths(cells, size, near))
            else f"cut off at {size}"
            for size in sizes
        ]
        said.append(f"Decades of rates within {near:g} of the best: {', '.join(parts)}.")
    return said


def notes_on_half_lives(cells: Cells) -> list[str]:
    """What another half-life costs."""
    said = []
    for size in (1, 16, 64):
        parts = [
            f"{units.significant(tokens_of(factor))} tokens (beta2 {beta2_of(size, factor):.4g}) {units.interval(cost)}"
            for factor in by_factor(cells, size)
            if factor != 1 and (cost := costs(cells, ("adam", size, factor), ("adam", size, 1.0))) is not None
        ]
        said.append(
            f"Batch size {size}, loss at another half-life less that at the rule's "
            f"{units.significant(tokens_of(1))} tokens: {'; '.join(parts)}."
        )
    return said


# ----------------------------------------------------------------------------------------------------- the figure


COLOURS = ["#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7"]


def interval_rows(x: float, interval: Interval | None, **more: Any) -> list[dict[str, Any]]:
    """A row for a chart, if there is an interval."""
    if interval is None or interval.low is None or interval.high is None:
        return []
    return [{"x": x, "y": interval.estimate, "low": interval.low, "high": interval.high, **more}]


def panel(rows: Sequence[Mapping[str, Any]], x: alt.X, y: str, color: alt.Color, *, log_y: bool = False) -> Any:
    """Lines with 95 % intervals."""
    base = alt.Chart(alt.Data(values=list(rows))).encode(x=x, color=color)
    scale = alt.Scale(type="log") if log_y else alt.Scale(zero=False)
    upright = alt.Y("y:Q", title=y, scale=scale)
    return alt.layer(
        base.mark_line(point=True).encode(y=upright),
        base.mark_rule().encode(y=alt.Y("low:Q", scale=scale), y2="high:Q"),
    ).properties(width=270, height=210)


def colour_of(title: str, order: Sequence[str]) -> alt.Color:
    """A legend in this order."""
    return alt.Color("what:N", title=title, sort=list(order), scale=alt.Scale(domain=list(order), range=COLOURS))


def log_x(title: str) -> alt.X:
    """A logarithmic axis."""
    return alt.X("x:Q", title=title, scale=alt.Scale(type="log"))


def figure(measured: Measured) -> Any:
    """Loss by size and by rate; best rates beside the published growth; loss by half-life."""
    cells = measured["cells"]
    sizes = sizes_of(cells)
    losses = [
        row
        for way, cell in WAYS.items()
        for size in sizes
        if (found := at_best(cells, cell(size))) is not None
        for row in interval_rows(size, mean_of(found), what=way)
    ]
    by_size = panel(losses, log_x("batch size, windows"), "loss at the best rate", colour_of("", list(WAYS)))
    if named("sgd", 1, 0.0) not in cells:
        return by_size
    order = [str(size) for size in sizes]
    by_rate = [
        row
        for size in sizes
        for rate in curves_of(cells, size)[0]
        if all(math.isfinite(curve[rate]) for curve in curves_of(cells, size))
        for row in interval_rows(rate, mean_of([curve[rate] for curve in curves_of(cells, size)]), what=str(size))
    ]
    lives = [
        row
        for size in (1, 16, 64)
        for factor in by_factor(cells, size)
        for row in interval_rows(
            tokens_of(factor), costs(cells, ("adam", size, factor), ("adam", size, 1.0)), what=str(size)
        )
    ]
    return alt.vconcat(
        alt.hconcat(
            by_size,
            panel(by_rate, log_x("rate"), "loss, half-life kept", colour_of("batch size", order)),
        ).resolve_scale(color="independent"),
        alt.hconcat(
            rates_panel(cells, sizes),
            panel(
                lives, log_x("half-life, tokens"), "loss less the rule's", colour_of("batch size", ["1", "16", "64"])
            ),
        ).resolve_scale(color="independent"),
    ).resolve_scale(color="independent")


def rates_panel(cells: Cells, sizes: Sequence[int]) -> Any:
    """Best rates by size, and from that at 1 the published growth and the root."""
    found = {size: rates for size in sizes if (rates := best_rates(cells, size)) is not None}
    ways = ["measured", "published: x 3 to 1,024", "square root"]
    rows = [
        row
        for size, rates in found.items()
        for row in interval_rows(size, ratio_of_means(rates, [1.0] * len(rates)), what=ways[0])
    ]
    if rows:
        first = rows[0]
        rows += [
            {"x": size, "y": rate, "low": rate, "high": rate, "what": way}
            for way, power in zip(ways[1:], (math.log(3) / math.log(1024), 0.5), strict=True)
            for size in found
            for rate in [first["y"] * (size / first["x"]) ** power]
        ]
    return panel(rows, log_x("batch size, windows"), "best rate", colour_of("", ways), log_y=True)
