"""What `shallue.py` tells: published curves, notes and the figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from _shallue_laws import (
    OPTIMIZERS,
    PROBLEMS,
    TURN,
    Curve,
    around,
    chosen_rates,
    curve_of,
    curves_of,
    extended,
    noise_of,
    powers,
    told,
)

from rightbatch.fit.tradeoff import TradeoffFit, fit_tradeoff
from rightbatch.report import units
from rightbatch.reproduction import Measured
from rightbatch.rules.shape import NONE, PERFECT, regimes

PUBLISHED: Mapping[str, Mapping[str, Mapping[int, float]]] = {
    "mnist": {
        "sgd": {
            1: 45782.2, 2: 23180.1, 4: 13348.6, 8: 6983.8, 16: 3591.8, 32: 1794.4, 64: 1198.0, 128: 598.5, 256: 519.0,
            512: 399.6, 1024: 359.6, 2048: 299.3, 4096: 269.9, 8192: 249.5, 16384: 339.5, 32768: 299.6, 55000: 259.7,
        },
        "nesterov": {
            1: 67607.7, 2: 31357.0, 8: 8963.2, 32: 2299.0, 128: 698.9, 512: 300.1, 2048: 180.2, 8192: 200.0,
            32768: 160.4, 55000: 140.4,
        },
    },
    "fashion": {
        "nesterov": {
            2: 22988.1, 8: 5990.7, 32: 1744.3, 128: 500.5, 512: 299.6, 2048: 160.0, 8192: 150.4, 32768: 160.0,
            55000: 150.4,
        },
    },
}  # fmt: skip
"""Steps of the paper's simple CNN to an error of 1 % (MNIST) and 10 % (Fashion-MNIST): digitised, figures 1 and 4."""

PUBLISHED_RATES: Mapping[int, float] = {
    1: 0.00609, 2: 0.0170, 8: 0.122, 32: 0.217, 128: 0.745, 512: 1.86, 2048: 2.28, 8192: 5.41,
}  # fmt: skip
"""Its best effective rates on MNIST with Nesterov momentum: digitised, figure 8; of larger batches they scatter."""

SETUP = (
    "Trained is on 14 by 14 images (means over squares of four of the 28 by 28), 196-100-10, to errors of 5 % (MNIST) "
    "and 16 % (Fashion-MNIST), where the paper has a CNN and 1 % and 10 %: ratios and shapes can be "
    "compared, levels cannot. 55,000 images train and 5,000 others judge, as in the paper.",
    "The paper has 100 trials a cell and takes the fewest steps of any. Here are two searches, whose means (of logs) "
    "are told: 16 trials in a wide box, 8 in one of half its width about the best of them, for SGD as for momentum. A "
    "trial is stopped once it cannot be among the best two of its search any more, two seeds choose between these, and "
    "the median of five fresh ones judges the choice: the fewest of many noisy runs is less than what a choice of rate "
    "and momentum needs. One dimension is searched for SGD and two for momentum, so that momentum has the harder "
    "search, as in the paper.",
    "Momentum is drawn from 0 to 0.99, evenly in log(1 - momentum), the effective rate evenly in its log over a factor "
    "of 63 about the same middle for both optimizers. Where the best trial is at an edge of all that was searched, 8 "
    "more are drawn about it, twice at most.",
    "Errors to be reached and the middles of the boxes were chosen by pilot runs. The second, narrower box was added "
    "after a first whole result, in which momentum took 186 steps at 8,192 where a pilot had taken 124: one box of 16 "
    "trials was too coarse for two dimensions. Claims, tolerances and goals stayed as they were.",
    "The two digitised files of the paper's curve on Fashion-MNIST disagree at batch size 2 (80,000 and 22,988 steps, "
    "critical sizes of 876 and 315): the second is used, for the figure and the note alone.",
)
"""Of the size `small`."""


# ---------------------------------------------------------------------------------------------------------- notes


def notes(measured: Measured) -> tuple[str, ...]:
    """Curves, laws beside the published ones, how much searches differ, and how the set-up differs."""
    all_curves = curves_of(measured)
    said = [note_of(problem, optimizer, curve) for (problem, optimizer), curve in all_curves.items()]
    said += [
        f"The paper's simple CNN, {PROBLEMS[problem]}, {OPTIMIZERS[optimizer]} (digitised): "
        f"{law_of(fit_tradeoff(list(steps), list(steps.values())))}."
        for problem, of in PUBLISHED.items()
        for optimizer, steps in of.items()
    ]
    published = {name: fit_tradeoff(list(of), list(of.values())) for name, of in PUBLISHED["mnist"].items()}
    said.append(
        "There momentum extends perfect scaling on MNIST by a factor of "
        f"{units.interval(extended(published['sgd'], published['nesterov']))}."
    )
    if (of_rates := powers(list(chosen_rates(measured)))) is not None:
        said.append(
            f"The best effective rate grows with batch size to the power {units.interval(of_rates['small'])} below "
            f"{TURN} and {units.interval(of_rates['large'])} from there on."
        )
    said.append(searches_in_words(measured))
    for optimizer, name in OPTIMIZERS.items():
        noise, freedom = noise_of(
            [cell for of in measured["cells"].values() for cell in of.get(optimizer, {}).values()]
        )
        if freedom:
            said.append(
                f"{name}: searches of a cell have a standard deviation of {units.significant(noise, 2)} in the log of "
                f"steps ({freedom} degrees of freedom), tuning and seeds together; all intervals rest on it but "
                "those of critical sizes and of rates, which rest on what is left about the law."
            )
    return (*said, *(SETUP if measured["net"] == "small" else ()))


def note_of(problem: str, optimizer: str, curve: Curve) -> str:
    """Steps by size, where regimes end, and the law."""
    steps = ", ".join(
        f"{size:.0f}: {units.significant(math.exp(log))} (rate {rate:.2g}"
        + (f", momentum {momentum:.2g})" if optimizer == "nesterov" else ")")
        for size, log, rate, momentum in zip(curve.sizes, curve.logs, curve.rates, curve.momenta, strict=True)
    )
    text = f"{PROBLEMS[problem]}, {OPTIMIZERS[optimizer]}, steps by batch size (best effective rate): {steps}"
    if curve.fit is None:
        return text + "."
    ends = regimes(curve.sizes.tolist(), np.exp(curve.logs).tolist())
    by_slopes = ", ".join(
        f"{words} {units.significant(end) if end else 'not seen'}"
        for words, end in (("perfect scaling until", ends.perfect_until), ("no help from", ends.no_help_from))
    )
    return f"{text}; {law_of(curve.fit)}; by slopes of {PERFECT} and {NONE}: {by_slopes}."


def law_of(fit: TradeoffFit) -> str:
    """A law in words."""
    return (
        f"critical batch size {units.interval(fit.critical_batch_size)}, fewest steps "
        f"{units.interval(fit.minimum_steps)}"
    )


def searches_in_words(measured: Measured) -> str:
    """How many were gone on with, how many searches told nothing, how many judging runs did not reach the goal."""
    searches = [
        one for of in measured["cells"].values() for sizes in of.values() for cell in sizes.values() for one in cell
    ]
    missed = sum(steps is None for one in searches for steps in one["steps"])
    return (
        f"Of {len(searches)} searches {sum(one['boxes'] > 2 for one in searches)} were gone on with, since the best "
        f"trial was at an edge; {sum(one['at_edge'] for one in searches)} stayed at an edge, or never reached the "
        f"goal, and are left out. Of {sum(len(one['steps']) for one in searches)} runs that judge, {missed} did not "
        "reach the goal in time: medians count them as slower than all others."
    )


# --------------------------------------------------------------------------------------------------------- figure


def figure(measured: Measured) -> alt.VConcatChart:
    """Steps by batch size, and best rates below; a column for each problem."""
    columns = [column(measured, problem) for problem in measured["cells"]]
    return alt.vconcat(
        alt.hconcat(*[steps for steps, _ in columns]), alt.hconcat(*[rates for _, rates in columns])
    ).resolve_scale(color="shared")


def column(measured: Measured, problem: str) -> tuple[alt.LayerChart, alt.LayerChart]:
    """Of one problem."""
    points, lines, rates = [], [], []
    for optimizer in measured["cells"][problem]:
        curve, who = curve_of(measured, problem, optimizer), OPTIMIZERS[optimizer]
        for size, log, error in zip(curve.sizes, curve.logs, curve.errors, strict=True):
            known = around(float(log), float(error), curve.freedom)
            low, high = (known.estimate if end is None else end for end in (known.low, known.high))
            points.append({"who": who, "size": size, "y": math.exp(log), "low": math.exp(low), "high": math.exp(high)})
        if curve.fit is not None:
            grid = np.geomspace(curve.sizes.min(), curve.sizes.max(), 60)
            lines += [{"who": who, "size": size, "y": curve.fit.steps(size)} for size in grid.tolist()]
        for size, searches in measured["cells"][problem][optimizer].items():
            rates += [{"who": who, "size": int(size), "y": one["chosen"]["rate"]} for one in searches if told(one)]
    published = [
        {"who": f"{OPTIMIZERS[optimizer]}, published", "size": size, "y": steps}
        for optimizer, of in PUBLISHED[problem].items()
        for size, steps in of.items()
    ]
    published_rates = [
        {"who": f"{OPTIMIZERS['nesterov']}, published", "size": size, "y": rate}
        for size, rate in (PUBLISHED_RATES.items() if problem == "mnist" else ())
    ]
    names = [who + kind for who in sorted(OPTIMIZERS.values()) for kind in ("", ", published")]
    scale = alt.Scale(domain=names, range=["#4c78a8", "#9ecae9", "#e45756", "#ffb5b0"])
    color = alt.Color("who:N", title=None, scale=scale, legend=alt.Legend(labelLimit=250))

    def chart(values: Sequence[Mapping[str, Any]], title: str) -> alt.Chart:
        return alt.Chart(alt.Data(values=values)).encode(
            x=alt.X("size:Q", scale=alt.Scale(type="log"), title="batch size", axis=alt.Axis(grid=False)),
            y=alt.Y("y:Q", scale=alt.Scale(type="log"), title=title, axis=alt.Axis(grid=False)),
            color=color,
        )

    words = "steps to the goal"
    steps = alt.layer(
        chart(published, words).mark_line(strokeDash=[4, 3], point=alt.OverlayMarkDef(size=15)),
        chart(lines, words).mark_line(strokeWidth=1),
        chart(points, words).mark_rule().encode(y=alt.Y("low:Q", title=words), y2="high:Q"),
        chart(points, words).mark_point(filled=True, size=35),
    ).properties(width=300, height=260, title=PROBLEMS[problem])
    words = "best rate / (1 - momentum)"
    below = alt.layer(
        chart(published_rates, words).mark_line(strokeDash=[4, 3], point=alt.OverlayMarkDef(size=15)),
        chart(rates, words).mark_point(filled=True, size=35),
    ).properties(width=300, height=200)
    return steps, below
