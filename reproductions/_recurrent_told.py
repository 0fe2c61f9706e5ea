"""What `recurrent.py` tells: ratios of speeds, tokens and times with their intervals, the notes and the figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import altair as alt
import numpy as np

from rightbatch.fit.quantiles import t_interval
from rightbatch.fit.step_time import powers_of_two, saturation
from rightbatch.means import difference_of_means, mean_of, out_of_logs, ratio_of_means
from rightbatch.records import Interval, StepTime
from rightbatch.report import units
from rightbatch.reproduction import Measured

PAIRS_OF_QUALITY: Mapping[str, tuple[int, int]] = {"LSTM": (8, 128), "GRU": (8, 128)}
"""The sizes whose quality is compared."""

WINDOWS: Mapping[str, int] = {"GRU, recorded": 32, "GRU": 64, "LSTM": 64, "words": 35}
"""Tokens in an example."""

Blocks = Sequence[Mapping[str, float]]
"""In each block, median seconds per step by batch size."""

Cells = Mapping[str, Mapping[str, Any]]
"""By batch size: the rate, whether it is the first or last one tried, and windows to the target of each seed."""


# ------------------------------------------------------------------------------------------------- tokens per second


def log_speed(block: Mapping[str, float], size: int | str) -> float:
    """Log of examples per second."""
    return math.log(int(size) / block[str(size)])


def speed_ratio(blocks: Blocks, upper: int, lower: int, level: float = 0.95) -> Interval | None:
    """Examples per second at one size over those at another: a t interval over blocks, of the mean of the logs."""
    logs = mean_of([log_speed(block, upper) - log_speed(block, lower) for block in blocks], level)
    return out_of_logs(logs)


def worst_step(blocks: Blocks) -> Interval | None:
    """The least ratio of the speeds of a size and the next smaller one.

    Every ratio has an interval so wide that all of them hold at once in 95 of 100 measurements (Bonferroni): whichever
    of them is the least, it lies between the least of their low ends and the least of their high ends.
    """
    found = [(ratio.estimate, ratio.low, ratio.high) for _, ratio in steps_up(blocks)]
    if not found:
        return None
    estimate, low, high = (min(of) for of in zip(*found, strict=True))
    return Interval(estimate, low, high)


def steps_up(blocks: Blocks) -> list[tuple[tuple[int, int], Interval]]:
    """Of neighbouring sizes the ratio of speeds, larger over smaller, with intervals that hold all at once.

    None are known from one block.
    """
    pairs = list(pairwise(sorted(int(size) for size in blocks[0])))
    level = 1 - 0.05 / len(pairs)
    return [
        ((lower, upper), ratio)
        for lower, upper in pairs
        if (ratio := speed_ratio(blocks, upper, lower, level)) is not None and ratio.low is not None
    ]


def records_of(blocks: Blocks) -> list[StepTime]:
    """Blocks as repeats."""
    sizes = sorted(int(size) for size in blocks[0])
    return [StepTime(size, tuple(block[str(size)] for block in blocks), ()) for size in sizes]


# ------------------------------------------------------------------------------------------------ tokens and times


def judged(cell: Mapping[str, Any]) -> list[float] | None:
    """Windows to the target of the seeds that judge.

    None where fewer than two do, one missed the target, or the rate is the first or the last one tried.
    """
    values = cell["judging"]
    return None if cell["at_edge"] or len(values) < 2 or None in values else list(values)


def at_sizes(cells: Cells) -> list[str]:
    """The sizes that can be judged, in order."""
    return [size for size in sorted(cells, key=int) if judged(cells[size]) is not None]


def token_ratio(cells: Cells, upper: Sequence[str], lower: Sequence[str]) -> Interval | None:
    """Tokens to the target at one size over those at another: Welch's interval of the geometric means."""
    if not upper or not lower or upper == lower:
        return None
    above, below = judged(cells[upper[0]]), judged(cells[lower[0]])
    return None if above is None or below is None else ratio_of_means(above, below)


def best_size(cells: Cells, blocks: Blocks) -> str | None:
    """The size of the least time by the seeds that chose the rate: those that judge have no part in it."""
    sizes = [size for size in at_sizes(cells) if None not in cells[size]["tuning"]]

    def log_time(size: str) -> float:
        speed = float(np.mean([log_speed(block, size) for block in blocks]))
        return float(np.log(cells[size]["tuning"]).mean()) - speed

    return min(sizes, key=log_time, default=None)


def time_ratio(cells: Cells, blocks: Blocks, upper: str, lower: str) -> Interval | None:
    """Seconds to the target at one size over those at another, an interval of the geometric means.

    Seeds and blocks of step times are independent: their variances add up (Welch). Speeds of two sizes are compared
    within a block. Speeds that were recorded once have no variance.
    """
    above, below = judged(cells[upper]), judged(cells[lower])
    if above is None or below is None:
        return None
    slower = [log_speed(block, lower) - log_speed(block, upper) for block in blocks]
    tokens = np.log(above).mean() - np.log(below).mean()
    samples = [sample for sample in (np.log(above), np.log(below), np.array(slower)) if len(sample) > 1]
    parts = [(float(sample.var(ddof=1)) / len(sample), len(sample) - 1) for sample in samples]
    centre, squared = float(tokens + np.mean(slower)), sum(part for part, _ in parts)
    if squared == 0:
        return out_of_logs(Interval(centre, centre, centre))
    freedom = squared**2 / sum(part**2 / own for part, own in parts)
    return out_of_logs(t_interval(centre, math.sqrt(squared), freedom))


def time_ratio_to_best(cells: Cells, blocks: Blocks, end: int) -> Interval | None:
    """Seconds at the smallest (0) or largest (-1) size over those at the best; None where it is the best itself."""
    best, sizes = best_size(cells, blocks), at_sizes(cells)
    return None if best is None or sizes[end] == best else time_ratio(cells, blocks, sizes[end], best)


def seconds_to(cells: Cells, blocks: Blocks, size: str) -> float | None:
    """Geometric mean."""
    windows = judged(cells[size])
    if windows is None:
        return None
    return math.exp(float(np.log(windows).mean()) - float(np.mean([log_speed(block, size) for block in blocks])))


def quality_difference(cells: Cells, small: int, large: int) -> Interval | None:
    """By how much the loss at the end is higher at the large size: Welch's interval over the seeds that judge."""
    above, below = judged(cells[str(large)]), judged(cells[str(small)])
    return None if above is None or below is None else difference_of_means(above, below)


# -------------------------------------------------------------------------------------------------------- in words


def notes(measured: Measured) -> tuple[str, ...]:
    """What was not identified, the numbers by size, and in what this differs from the sources."""
    said = [
        "The study of recurrent networks that the question names was not identified: its link is not kept anywhere "
        "that was searched. The note of Elsen is the one document found that says what the question's answers "
        "summarise; that it is the one that was meant is not shown."
    ]
    for name, cells in measured["tokens"].items():
        said += notes_on_tokens(name, cells, measured["speed"].get(name))
    if "cut" in measured:
        for name, blocks in measured["speed"].items():
            said += [] if len(blocks) < 2 else notes_on_speed(name, blocks)
        said += notes_on_cutting(measured)
        for name, cells in measured["quality"].items():
            said += notes_on_quality(name, cells)
    return (
        *said,
        "Of the note's numbers none is comparable: it measures matrix products of wide layers on GPUs (14 times as "
        "fast at 32 as at 1 with cuBLAS, about 30 with kernels of Nervana, less at 9 than at 8), and its point beyond "
        "which larger batches no longer pay, at least 512, is of a speech recogniser on many GPUs. Here small networks "
        "run on one core, so that the direction is judged and not the size. It compares no rates; here every size has "
        "its own.",
        "Of Breuel's report only the abstract was read: batching has no significant effect on what LSTM networks come "
        "to, on handwritten digits and printed text. What difference would have been significant there is not known; "
        "within what two sizes count as alike is chosen here.",
        "An example is a window of 64 characters, of 32 in the recorded table and of 35 words. The recorded GRU has 64 "
        "units, rates half a decade apart and seconds per step that were recorded once for each size. Words are the "
        "1,000 most frequent of 400,000 words of WikiText-2; the state goes from window to window, for characters it "
        "begins anew. Words are not read by a GRU here. Targets are early ones: 2.1 nats a character, a perplexity of "
        "50 (most rare words being <unk>, it is not one of the whole vocabulary); later ones are expected to favour "
        "larger batches. For the size smoke, the LSTM goes to 3 nats only, with two seeds.",
        "Rates are chosen by two seeds (words: three) on the lattice 10^(k/4), judged by others. That one seed is too "
        "few for words was seen in a first run of this, which was stopped: at batch size 8 its choice was luck. A "
        "second one was stopped as well: at rates far too high the numbers of a recurrent network become denormal, "
        "and its steps up to 60 times slower. They are flushed to zero since.",
        "Step times were taken in blocks between the trainings, in some of them beside other work on the machine: "
        "what is judged are ratios within a block.",
        "Each claim has an interval of 95 % of its own: of so many, one or two may be missed by luck.",
    )


def notes_on_tokens(name: str, cells: Cells, blocks: Blocks | None) -> list[str]:
    """Tokens, rates and times by size, and which sizes are left out."""
    window, sizes = WINDOWS[name], at_sizes(cells)
    parts = [
        f"{units.interval(mean_tokens(cells[size], window))} at {size} (rate {units.rate(cells[size]['rate'])})"
        for size in sizes
    ]
    said = [f"{name}, thousands of tokens to the target by batch size: {', '.join(parts)}."]
    if len(sizes) < len(cells):
        left = ", ".join(size for size in cells if size not in sizes)
        said.append(
            f"{name}: batch size {left} left out: a seed missed the target, its rate is the first or the last one, or "
            "fewer than two seeds judge it."
        )
    if blocks:
        times = ", ".join(f"{units.seconds(seconds_to(cells, blocks, size))} at {size}" for size in sizes)
        best = best_size(cells, blocks)
        said.append(f"{name}, seconds to the target: {times}. Best by the seeds that chose the rates: {best}.")
        within = [
            f"{units.interval(ratio)} at {size}"
            for size in sizes
            if best is not None and size != best and (ratio := time_ratio(cells, blocks, size, best)) is not None
        ]
        said.append(f"{name}, time over that at {best}: {', '.join(within)}.")
    return said


def mean_tokens(cell: Mapping[str, Any], window: int) -> Interval | None:
    """Thousands of tokens: the geometric mean of the seeds that judge."""
    return ratio_of_means([value * window / 1000 for value in cell["judging"]], [1.0] * len(cell["judging"]))


def notes_on_speed(name: str, blocks: Blocks) -> list[str]:
    """Tokens per second by size; where they drop; powers of two."""
    window = WINDOWS[name]
    sizes = sorted(int(size) for size in blocks[0])
    parts = [
        f"{units.interval(mean_of([size * window / block[str(size)] / 1000 for block in blocks]))} at {size}"
        for size in sizes
        if size in (1, 4, 8, 9, 16, 32, 64, 128, 256, 512)
    ]
    enough = saturation(records_of(blocks))
    drops = [
        f"{lower} to {upper} ({units.interval(ratio)})"
        for (lower, upper), ratio in steps_up(blocks)
        if ratio.high is not None and ratio.high < 1
    ]
    powers = [f"{one.batch_size} ({units.interval(one.ratio)})" for one in powers_of_two(records_of(blocks))]
    return [
        f"{name}, thousands of tokens per second: {', '.join(parts)}. 90 % of the most is reached at "
        f"{enough.batch_size}; the most is at {enough.peak_batch_size}.",
        f"{name}, steps up in size at which tokens per second drop, all intervals holding at once: "
        f"{', '.join(drops) or 'none that could be told'}. Time of a power of two over its neighbours': "
        f"{', '.join(powers)}.",
    ]


def notes_on_cutting(measured: Measured) -> list[str]:
    """Tokens in eight streams."""
    parts = [
        f"{units.interval(mean_tokens(cell, WINDOWS['words']))} at {size} (rate {units.rate(cell['rate'])})"
        for size, cell in measured["cut"].items()
        if judged(cell) is not None
    ]
    cells = {**{f"{size} few": cell for size, cell in measured["cut"].items()}, **measured["tokens"]["words"]}
    grows = [
        f"{units.interval(ratio)} from 8 to {size}"
        for size in measured["cut"]
        if (ratio := token_ratio(cells, (f"{size} few",), ("8",))) is not None
    ]
    return [
        f"Words in 8 streams at every batch size, thousands of tokens to the target: {', '.join(parts) or 'not told'}. "
        f"So tokens grow with batch size, the text cut in the same way: {', '.join(grows) or 'not told'}.",
        "Gradients go back through one window in both; a batch of 64 in 8 streams is 8 windows of each, read one after "
        "another with the weights of before the step.",
    ]


def notes_on_quality(name: str, cells: Cells) -> list[str]:
    """Losses at the end, best losses along the runs, and when they were reached."""
    parts = [
        f"{units.interval(mean_of(cell['judging']), four)} at {size} (rate {units.rate(cell['rate'])}; best along the "
        f"run {units.interval(mean_of(cell['best']), four)}, after {100 * float(np.mean(cell['best_at'])):.0f} % of it)"
        for size, cell in cells.items()
        if judged(cell) is not None
    ]
    return [f"{name}, loss after a dozen passes over 64,000 characters, by batch size: {', '.join(parts)}."]


def four(value: float) -> str:
    """A loss."""
    return units.significant(value, 4)


# ------------------------------------------------------------------------------------------------------ the figure

COLOURS = {
    "GRU": "#0072b2",
    "GRU, recorded": "#56b4e9",
    "LSTM": "#d55e00",
    "words": "#009e73",
    "words, 8 streams": "#cc79a7",
    "cuBLAS (published)": "#777777",
}
PUBLISHED = {1: 1.0, 32: 14.0}
"""A matrix product with cuBLAS, as a multiple of its speed at 1."""


def figure(measured: Measured) -> Any:
    """Speed, tokens, time and quality by size."""
    tokens = [
        row
        for name, cells in measured["tokens"].items()
        for size in at_sizes(cells)
        for row in rows_of(size, mean_tokens(cells[size], WINDOWS.get(name, 64)), name)
    ]
    tokens += [
        row
        for size, cell in measured.get("cut", {}).items()
        if judged(cell) is not None
        for row in rows_of(size, mean_tokens(cell, WINDOWS["words"]), "words, 8 streams")
    ]
    times = [
        row
        for name, cells in measured["tokens"].items()
        if (blocks := measured["speed"].get(name)) and (best := best_size(cells, blocks)) is not None
        for size in at_sizes(cells)
        for row in rows_of(size, time_ratio(cells, blocks, size, best) if size != best else Interval(1, 1, 1), name)
    ]
    panels = [panel(tokens, "thousands of tokens to the target"), panel(times, "seconds to the target, over the best")]
    if "cut" not in measured:
        return alt.hconcat(*panels).resolve_scale(color="independent")
    speed = [
        row
        for name, blocks in measured["speed"].items()
        if len(blocks) > 1
        for size in sorted(int(size) for size in blocks[0])
        for row in rows_of(size, speed_ratio(blocks, size, 1) if size > 1 else Interval(1, 1, 1), name)
    ]
    speed += [
        row
        for size, times in PUBLISHED.items()
        for row in rows_of(size, Interval(times, times, times), "cuBLAS (published)")
    ]
    ends = [
        row
        for name, cells in measured["quality"].items()
        for size, cell in cells.items()
        if judged(cell) is not None
        for row in rows_of(size, mean_of(cell["judging"]), name)
    ]
    return alt.vconcat(
        alt.hconcat(panel(speed, "tokens per second, over those at 1"), panels[0]).resolve_scale(color="independent"),
        alt.hconcat(panels[1], panel(ends, "loss after 12,000 windows, nats", log=False)).resolve_scale(
            color="independent"
        ),
    ).resolve_scale(color="independent")


def rows_of(size: int | str, interval: Interval | None, name: str) -> list[dict[str, Any]]:
    """A row for a chart, if there is an interval."""
    if interval is None or interval.low is None or interval.high is None:
        return []
    return [{"size": int(size), "y": interval.estimate, "low": interval.low, "high": interval.high, "what": name}]


def panel(rows: Sequence[Mapping[str, Any]], title: str, *, log: bool = True) -> Any:
    """Lines with 95 % intervals, the same colours in every panel."""
    scale = alt.Scale(type="log", nice=False, padding=8) if log else alt.Scale(zero=False)
    shown = [name for name in COLOURS if any(row["what"] == name for row in rows)]
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X("size:Q", title="batch size", scale=alt.Scale(type="log", base=2, nice=False, padding=8)),
        color=alt.Color("what:N", title=None, scale=alt.Scale(domain=shown, range=[COLOURS[name] for name in shown])),
    )
    return alt.layer(
        base.mark_line(point=True).encode(y=alt.Y("y:Q", title=title, scale=scale)),
        base.mark_rule().encode(y=alt.Y("low:Q", scale=scale), y2="high:Q"),
    ).properties(width=280, height=220)
