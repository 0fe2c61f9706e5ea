"""What `marek.py` tells of what it found: the notes and the figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
from _marek_told import (
    BASE_SIZE,
    JUDGING,
    NEAR,
    WINDOW,
    Cells,
    at_best,
    best_rate_power,
    best_rates,
    beta2_of,
    by_factor,
    costs,
    curves_of,
    named,
    tokens_of,
    widths,
)

from rightbatch.means import mean_of, ratio_of_means
from rightbatch.records import Interval
from rightbatch.report import units
from rightbatch.reproduction import Measured

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
