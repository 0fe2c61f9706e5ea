"""What `keskar.py` says beside its claims: sentences, and the figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from rightbatch.means import difference_of_means, mean_of, ratio_of_means
from rightbatch.records import Interval
from rightbatch.report import units
from rightbatch.reproduction import Measured

Row = Mapping[str, Any]
"""One run: its batch size, rate and seed, and all that was measured of its weights."""


def values(rows: Sequence[Row], batch_size: int, name: str) -> list[float]:
    """What was measured of the runs of a size."""
    return [row[name] for row in rows if row["batch_size"] == batch_size]


def percent(value: Interval | None) -> Interval | None:
    """A share in percent."""
    if value is None or value.low is None or value.high is None:
        return value
    return Interval(100 * value.estimate, 100 * value.low, 100 * value.high, value.level)


def control_rows(measured: Measured) -> list[dict[str, Any]]:
    """For each way to train the large batch: how much sharper than the small one, and how much less accurate."""
    small = measured["controls"]["small"]
    return [
        {
            "control": name,
            "rate": rows[0]["learning_rate"],
            "gap": percent(difference_of_means([r["valid_metric"] for r in small], [r["valid_metric"] for r in rows])),
            "ratio": ratio_of_means([r["box"] for r in rows], [r["box"] for r in small]),
            "ascent": ratio_of_means([r["ascent"] for r in rows], [r["ascent"] for r in small]),
            "adaptive": ratio_of_means([r["adaptive"] for r in rows], [r["adaptive"] for r in small]),
        }
        for name, rows in measured["controls"].items()
        if name != "small"
    ]


def notes(measured: Measured) -> tuple[str, ...]:
    """What a measurement costs and what was measured beside the claims, a sentence for each."""
    cost = mean_of([row["evaluations"]["box"] / 10 for row in measured["rows"]])
    said = [f"An iteration of L-BFGS-B on F1 takes {units.interval(cost)} passes over the data, forward and backward."]
    if "controls" in measured:
        said += [*notes_on_minima(measured), *notes_on_choices(measured), *notes_on_controls(measured)]
    return tuple(said)


def notes_on_minima(measured: Measured) -> list[str]:
    """Both sizes in numbers, and the measures of today."""
    rows, (small, large) = measured["rows"], measured["sizes"]
    said = []
    for size in (small, large):
        of = {name: mean_of(values(rows, size, name)) for name in ("box", "subspace", "train_loss", "distance")}
        accuracy = percent(mean_of(values(rows, size, "train_metric")))
        said.append(
            f"Batch size {size:,}: sharpness {units.interval(of['box'])} in the whole space and "
            f"{units.interval(of['subspace'])} in the subspace, training loss {units.interval(of['train_loss'])}, "
            f"training accuracy {units.interval(accuracy)} %, distance from the start {units.interval(of['distance'])}."
        )
    for name, title in (
        ("adaptive", "Adaptive sharpness, which rescaling does not change"),
        ("sam", "SAM's sharpness"),
        ("eigenvalue", "Largest eigenvalue of the Hessian (2,000 images)"),
    ):
        times = ratio_of_means(values(rows, large, name), values(rows, small, name))
        said.append(f"{title}, large over small: {units.interval(times)}.")
    return said


def notes_on_choices(measured: Measured) -> list[str]:
    """The metric by every choice that the paper leaves open."""
    space = {"box": "Whole space", "subspace": "Subspace"}
    return [
        f"{space[row['measure']]}, {row['choice']}: {units.significant(row['small'])} and "
        f"{units.significant(row['large'])}, ratio {units.significant(ratio(row))}."
        for row in measured["open"]
    ]


def notes_on_controls(measured: Measured) -> list[str]:
    """What each control leaves of ratio and gap; the metric along training and after warm starts."""
    said = [
        f"15,000 images, large batch, {one['control']} (rate {units.rate(one['rate'])}): sharper by "
        f"{units.interval(one['ratio'], units.times)} (signed ascent: "
        f"{units.interval(one['ascent'], units.times)}; adaptive: {units.interval(one['adaptive'], units.times)}), "
        f"less accurate by {units.interval(one['gap'])} points."
        for one in control_rows(measured)
    ]
    said += [
        f"After {row['passes']} passes at batch size {row['batch_size']:,}: training loss "
        f"{units.significant(row['train_loss'])}, sharpness {units.significant(row['box'])} (one start)."
        for row in measured["along"]
    ]
    return said + [
        f"Large batch begun after {row['passes']} passes of the small one: accuracy "
        f"{units.significant(100 * row['valid_metric'], 4)} %, sharpness {units.significant(row['box'])} (one start)."
        for row in measured["warm"]
    ]


def ratio(row: Row) -> float | None:
    """Large over small."""
    return row["large"] / row["small"] if row["small"] > 0 else None


def figure(measured: Measured) -> alt.VConcatChart | alt.Chart:
    """Sharpness of every run against its accuracy; the controls; the lines between two minima."""
    rows = [
        {"batch size": f"{row['batch_size']:,}", "sharpness": row["box"], "accuracy": 100 * row["valid_metric"]}
        for row in measured["rows"]
    ]
    colour = alt.Color("batch size:N", scale=alt.Scale(range=["#0072b2", "#d55e00"]))
    runs = (
        alt.Chart(alt.Data(values=rows))
        .mark_point(size=70, strokeWidth=2)
        .encode(
            x=alt.X("sharpness:Q", title="sharpness (epsilon 1e-3, whole space)", scale=alt.Scale(type="log")),
            y=alt.Y("accuracy:Q", title="validation accuracy, %", scale=alt.Scale(zero=False)),
            color=colour,
        )
        .properties(width=620, height=220)
    )
    if "controls" not in measured:
        return runs
    return alt.vconcat(runs, controls_chart(measured), path_chart(measured)).resolve_scale(color="independent")


def controls_chart(measured: Measured) -> alt.HConcatChart:
    """How much of ratio and gap survives each control, with 95 % intervals."""
    found = [
        {"control": one["control"], "of": name, "value": one[key].estimate, "low": one[key].low, "high": one[key].high}
        for one in control_rows(measured)
        for key, name in (("ascent", "times as sharp, by signed ascent"), ("gap", "points less accurate"))
    ]

    def beside(name: str, scale: alt.Scale) -> alt.LayerChart:
        base = alt.Chart(alt.Data(values=[row for row in found if row["of"] == name])).encode(
            y=alt.Y("control:N", title=None, sort=None)
        )
        bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=name, scale=scale), x2="high:Q")
        return alt.layer(bars, base.mark_point(filled=True, size=70).encode(x=alt.X("value:Q", title=name))).properties(
            width=230, height=120
        )

    return alt.hconcat(
        beside("times as sharp, by signed ascent", alt.Scale(type="log")),
        beside("points less accurate", alt.Scale(zero=True)),
    )


def path_chart(measured: Measured) -> alt.LayerChart:
    """Training and validation loss along the straight and the curved line."""
    found = [
        {"at": row["at"], "loss": max(row[f"{part}_loss"], 1e-6), "line": f"{row['kind']}, {part}"}
        for row in measured["path"]
        for part in ("train", "valid")
    ]
    lines = alt.Chart(alt.Data(values=found)).encode(
        x=alt.X("at:Q", title="0: small batch's minimum, 1: large batch's"),
        y=alt.Y("loss:Q", title="loss", scale=alt.Scale(type="log")),
        color=alt.Color("line:N", scale=alt.Scale(range=["#56b4e9", "#0072b2", "#e69f00", "#d55e00"])),
    )
    return (lines.mark_line() + lines.mark_point(size=15, filled=True)).properties(width=620, height=240)
