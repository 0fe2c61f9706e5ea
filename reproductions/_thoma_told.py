"""What `thoma.py` tells: where trainings stop, how good they are then, intervals, notes and the figure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from rightbatch import Interval, Point, Run, StopReason, curves
from rightbatch.means import difference_of_means, mean_of, ratio_of_means
from rightbatch.report import units
from rightbatch.reproduction import Claim, Comparison, Measured, held

Array = NDArray[np.float64]
Training = Mapping[str, Any]
"""`batch_size`, `seed`; by epoch `valid`, the accuracy, and `test`, that of the best epoch until then."""

PUBLISHED: Mapping[int, Mapping[str, float]] = {
    8: {"seconds of an epoch": 118, "seconds": 14_131, "test accuracy": 61.93},
    16: {"seconds of an epoch": 62, "seconds": 8349, "test accuracy": 64.16},
    32: {"seconds of an epoch": 35, "seconds": 5171, "test accuracy": 64.11},
    64: {"seconds of an epoch": 25, "seconds": 2892, "test accuracy": 63.38},
    128: {"seconds of an epoch": 18, "seconds": 3126, "test accuracy": 62.23},
}
"""Table 5.9. Accuracies in percent."""

DRAWS = 1000


# ------------------------------------------------------------------------------------------------------ trainings


def of_runs(runs: Sequence[Run], sizes: Sequence[int], rate: float, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The curves of some ended runs of a study, as plain numbers; the point before training left out."""
    found = []
    for run in runs:
        trial = run.trial
        if run.stop is None or run.stop.reason is StopReason.INTERRUPTED:  # it was run again
            continue
        if trial.batch_size in sizes and trial.seed in seeds and math.isclose(trial.learning_rate, rate, rel_tol=1e-3):
            points = [point for point in run.points if point.step > 0]
            tests = itertools.accumulate((point.test_metric for point in points), lambda a, b: a if b is None else b)
            found.append(
                {
                    "batch_size": trial.batch_size,
                    "seed": trial.seed,
                    "valid": [round(point.valid_metric or 0.0, 5) for point in points],
                    "test": [round(test or 0.0, 5) for test in tests],
                }
            )
    return sorted(found, key=lambda one: one["batch_size"])


def best_valid(trainings: Sequence[Training]) -> float:
    """The mean of their best validation accuracies."""
    return float(np.mean([max(one["valid"]) for one in trainings]))


def stopped(valid: Sequence[float], patience: float) -> int:
    """Epochs until early stopping: that many in all where nothing stopped it."""
    rule = curves.until_patience("valid_metric", "max", patience, "evaluations")
    points = [Point(k + 1, valid_metric=value) for k, value in enumerate(valid)]
    return next((k for k in range(1, len(points) + 1) if rule(points[:k])), len(points))


def accuracies(trainings: Sequence[Training], patience: float) -> list[float]:
    """Test accuracies in percent, of the best epoch before each is stopped."""
    return [100 * one["test"][stopped(one["valid"], patience) - 1] for one in trainings]


def of_size(trainings: Sequence[Training], batch_size: int) -> list[Training]:
    """Those with it."""
    return [one for one in trainings if one["batch_size"] == batch_size]


# ------------------------------------------------------------------------------------------------------- seconds


def furthest(sizes: Array, seconds: Array) -> float:
    """How far the furthest of some sizes is off a + b / m, as a share; least squares of relative errors."""
    rows = np.stack([np.ones_like(sizes), 1 / sizes], axis=1) / seconds[:, None]
    law, *_ = np.linalg.lstsq(rows, np.ones_like(sizes), rcond=None)
    return float(np.abs(rows @ law - 1).max())


def seconds_of(measured: Measured) -> dict[int, float]:
    """The median seconds of an epoch by size."""
    return {int(b): float(np.median(repeats)) for b, repeats in measured["epoch_seconds"].items()}


def over_repeats(measured: Measured, value: Any) -> Interval:
    """A value of (sizes, median seconds) with the 95 % interval over repeats drawn anew."""
    sizes = np.array([float(b) for b in measured["epoch_seconds"]])
    repeats, generator = [np.array(one) for one in measured["epoch_seconds"].values()], np.random.default_rng(0)
    draws = [
        value(sizes, np.array([np.median(generator.choice(one, len(one))) for one in repeats])) for _ in range(DRAWS)
    ]
    found = float(value(sizes, np.array([np.median(one) for one in repeats])))
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(found, float(min(low, found)), float(max(high, found)))


def as_patient(measured: Measured, batch_size: int, unit: str) -> list[float]:
    """Test accuracies with the patience that ten epochs are at 16, in steps or in seconds."""
    patience = patience_of(measured, batch_size, unit)
    long_enough = measured["steady"] + (measured["longer"] if unit == "seconds" else [])
    if patience <= measured["patience"]:
        long_enough = measured["one_rate"]
    return accuracies(of_size(long_enough, batch_size), patience)


def patience_of(measured: Measured, batch_size: int, unit: str) -> float:
    """In epochs."""
    if unit == "steps":
        at_usual, here = (-(-measured["train_examples"] // size) for size in (16, batch_size))
        return math.ceil(measured["patience"] * at_usual / here)
    seconds = seconds_of(measured)
    return math.ceil(measured["patience"] * seconds[16] / seconds[batch_size])


# ------------------------------------------------------------------------------------------------- what came of it


def compare(claims: Sequence[Claim], measured: Measured) -> tuple[Comparison, ...]:
    """With 95 % intervals over trainings, or over repeats of what was timed."""
    runs = claims[-1].compare(float(len(measured["one_rate"])), 0.0)
    if "tuned" not in measured:
        return (runs,)
    return (*held(claims, {**of_one_rate(measured), **of_tuned(measured)}), runs)


def of_one_rate(measured: Measured) -> dict[str, Interval | None]:
    """What is claimed of one rate for all."""
    seconds, patience = seconds_of(measured), measured["patience"]
    runs = {b: of_size(measured["one_rate"], b) for b in seconds}
    epochs = {b: [stopped(one["valid"], patience) for one in of] for b, of in runs.items()}
    right = {b: accuracies(of, patience) for b, of in runs.items()}
    return {
        "law": over_repeats(measured, furthest),
        "seconds": over_repeats(
            measured, lambda sizes, medians: float(medians[sizes == 8][0] / medians[sizes == 128][0])
        ),
        "epochs": ratio_of_means(epochs[128], epochs[8]),
        "time": ratio_of_means([n * seconds[8] for n in epochs[8]], [n * seconds[64] for n in epochs[64]]),
        **{f"16 over {b}": difference_of_means(right[16], right[b]) for b in (8, 128, 512)},
        **{
            f"16 over 128, {unit}": difference_of_means(as_patient(measured, 16, unit), as_patient(measured, 128, unit))
            for unit in ("steps", "seconds")
        },
    }


def of_tuned(measured: Measured) -> dict[str, Interval | None]:
    """What is claimed of tuned rates; nothing of a size whose best rate is the first or the last."""
    of = measured["tuned"]
    right = {b: None if one["at_edge"] else accuracies(one["runs"], measured["patience"]) for b, one in of.items()}
    return {
        f"16 over {b}, tuned": difference_of_means(right["16"], right[b]) if right["16"] and right[b] else None
        for b in ("8", "128", "512")
    }


def rows_of(measured: Measured) -> list[dict[str, Any]]:
    """What table 5.9 has, by size: at one rate, and tuned."""
    seconds, patience = seconds_of(measured), measured["patience"]
    rows = []
    for b in sorted({one["batch_size"] for one in measured["one_rate"]}):
        groups = {"one rate": of_size(measured["one_rate"], b)}
        if "tuned" in measured:
            groups["rate tuned"] = measured["tuned"][str(b)]["runs"]
        for how, trainings in groups.items():
            epochs = mean_of([float(stopped(one["valid"], patience)) for one in trainings])
            right = mean_of(accuracies(trainings, patience))
            assert epochs is not None
            assert right is not None  # there are trainings
            row = {"size": b, "how": how, "epochs": epochs, "test accuracy": right}
            if b in seconds:
                row |= {"seconds of an epoch": seconds[b], "seconds": times(epochs, seconds[b])}
            rows.append(row)
    return rows


def times(interval: Interval, factor: float) -> Interval:
    """Both ends too."""
    if interval.low is None or interval.high is None:
        return Interval(factor * interval.estimate, note=interval.note)
    return Interval(factor * interval.estimate, factor * interval.low, factor * interval.high)


def notes(measured: Measured) -> tuple[str, ...]:
    """The table, the rates, and what differs from the thesis."""
    said = [
        f"{row['size']}, {row['how']}: "
        + (
            f"{units.significant(row['seconds of an epoch'])} s an epoch, {units.interval(row['seconds'])} s in all, "
            if "seconds" in row
            else ""
        )
        + f"{units.interval(row['epochs'])} epochs, test accuracy {units.interval(row['test accuracy'])} %."
        for row in rows_of(measured)
    ]
    if "tuned" in measured:
        said += [
            f"{b}: best rate {one['rate']:.3g}{' (the first or last tried)' if one['at_edge'] else ''}; validation "
            "accuracy " + ", ".join(f"{100 * valid:.1f} % at {rate}" for rate, valid in one["tried"].items()) + "."
            for b, one in measured["tuned"].items()
        ]
        for unit in ("steps", "seconds"):
            said.append(
                f"One rate, patience of as many {unit} as ten epochs are at 16, test accuracy: "
                + ", ".join(
                    f"{units.interval(mean_of(as_patient(measured, b, unit)))} % at {b} "
                    f"({patience_of(measured, b, unit):g} epochs)"
                    for b in (8, 16, 128)
                )
                + "."
            )
        epochs = [len(one["valid"]) for one in measured["steady"]]
        said.append(
            f"Patience of as many steps have {len(epochs)} trainings at 128, with the first seeds of those that judge. "
            f"Five were planned, but these went on for {' and '.join(map(str, epochs))} epochs (600 at most). Patience "
            f"of as many seconds have {len(measured['longer'])} others too."
        )
    said.append(
        "The thesis trains the whole network (1 million weights) on 45,000 images, and once more without shifts and "
        "mirrors; here it has a quarter of the channels, 60 images of each class, and no second stage. Accuracies are "
        "those of 3,000 test images at the epoch of the best validation accuracy, of 1,500 images. Levels are not "
        "comparable, differences between sizes are."
    )
    return tuple(said)


def figure(measured: Measured) -> alt.ConcatChart:
    """The four columns of table 5.9 by batch size; of accuracies, the differences from that at 16 (at smoke, at 32)."""
    order = ["one rate", "rate tuned", "published"]
    rows = points_of(rows_of(measured)) + points_of(published())
    charts = []
    for what, title in PANELS.items():
        base = alt.Chart(alt.Data(values=[row for row in rows if row["what"] == what])).encode(
            x=alt.X("size:Q", scale=alt.Scale(type="log", base=2), title="batch size"),
            color=alt.Color("how:N", sort=order, scale=alt.Scale(domain=order), title=None),
        )
        y = alt.Y("value:Q", scale=alt.Scale(type="linear" if what == "test accuracy" else "log"), title=title)
        charts.append(
            alt.layer(
                base.mark_line(point=True).encode(y=y), base.mark_rule().encode(y=alt.Y("low:Q"), y2="high:Q")
            ).properties(width=230, height=170)
        )
    return alt.concat(*charts, columns=2)


PANELS = {
    "seconds of an epoch": "seconds of an epoch",
    "epochs": "epochs until the stop",
    "seconds": "seconds until the stop",
    "test accuracy": "test accuracy less that at 16, points",
}


def published() -> list[dict[str, Any]]:
    """Rows of table 5.9."""
    return [
        {"size": b, "how": "published"}
        | {what: value if what == "seconds of an epoch" else Interval(value) for what, value in of.items()}
        for b, of in PUBLISHED.items()
    ]


def points_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One for each panel of each row."""
    usual = {
        row["how"]: row["test accuracy"].estimate
        for row in sorted(rows, key=lambda row: abs(math.log2(row["size"] / 16)), reverse=True)
    }
    points = []
    for row in rows:
        for what in PANELS:
            if what not in row:
                continue
            one = row[what] if isinstance(row[what], Interval) else Interval(row[what])
            less = usual[row["how"]] if what == "test accuracy" else 0.0
            low, high = (one.estimate if end is None else end for end in (one.low, one.high))
            points.append(
                {"size": row["size"], "how": row["how"], "what": what, "value": one.estimate - less}
                | {"low": low - less, "high": high - less}
            )
    return points
