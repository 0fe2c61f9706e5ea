"""Keskar et al. 2017: large batches end in sharp minima and generalise worse; and the controls that they did not run.

F1 on MNIST as in the paper (Adam, 256 against a tenth of the data, five starts), then F1 on 15,000 images with the rate
tuned at the large batch, with equal steps, and with ghost batch normalisation; C3 at a quarter of its width on 15,000
images of CIFAR-100; the large batch begun from a small one; sharpness along training; what the metric leaves open.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import altair as alt

import rightbatch
from rightbatch.generalization import difference_of_means, mean_of, ratio_of_means
from rightbatch.records import Interval
from rightbatch.report import units
from rightbatch.reproduction import Claim, Comparison, Measured, Reproduction, Size, Store

NETS = Path(__file__).with_name("_keskar_nets.py")
WORKERS = 2
RATE = 0.001
TUNED = (0.00178, 0.00316, 0.00562)
"""Rates that the large batch is tried at beside its own."""

STEPS_OF_SMALL = 58 * 40
"""Steps of batch size 256 in 40 passes over 15,000 images."""

Row = Mapping[str, Any]
"""One run: its batch size, rate and seed, and all that was measured of its weights."""

PLANS: Mapping[Size, Mapping[str, Any]] = {
    "smoke": {"net": "f1_smoke", "sizes": (32, 300), "seeds": 2, "examples": 300, "workers": 1},
    "small": {"net": "f1", "sizes": (256, 6000), "seeds": 5, "examples": 10_000},
    "paper": {"net": "f1", "sizes": (256, 6000), "seeds": 5, "examples": None},
}
"""F1 by size. `examples`: of how many training examples the loss is taken."""

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "as usual": {},
    "batch statistics": {"statistics": "batch"},
    "recomputed statistics": {"statistics": "recomputed"},
    "random start": {"start": "random"},
    "best of three starts": {"restarts": 3},
    "30 iterations": {"iterations": 30},
    "signed ascent": {"solver": "signed-ascent"},
    "all 60,000 images": {"examples": None},
}
DIRECTIONS: Mapping[str, Mapping[str, Any]] = {
    "normal columns": {},
    "uniform columns": {"law": "uniform"},
    "normal columns of length 1": {"law": "unit-normal"},
    "uniform columns of length 1": {"law": "unit-uniform"},
    "other columns": {"seed": 1},
}
"""What the paper leaves open: in the whole space, and in the subspace."""


# ------------------------------------------------------------------------------------------------- what is claimed


def ratio_claim(identifier: str, where: str, published: float) -> Claim:
    """Sharper by at least an order of magnitude: "one to two" are claimed."""
    return Claim(
        identifier=identifier,
        sentence=f"F1, {where}: sharpness of the large batch over that of the small one, at least 10",
        published=published,
        tolerance=1 - 10 / published,
        known_by="read in the paper",
        relation="at least",
        from_size="smoke" if identifier == "full 1e-3" else "small",
    )


CLAIMS = (
    ratio_claim("full 1e-3", "whole space, epsilon 1e-3", 205.14 / 1.23),
    ratio_claim("full 5e-4", "whole space, epsilon 5e-4", 42.90 / 0.61),
    ratio_claim("subspace 1e-3", "100 random directions, epsilon 1e-3", 9.22 / 0.11),
    ratio_claim("subspace 5e-4", "100 random directions, epsilon 5e-4", 9.17 / 0.05),
    Claim(
        identifier="small accuracy",
        sentence="F1, batch size 256: accuracy on the test images, in percent",
        published=98.03,
        tolerance=0.0,
        slack=1.0,
        known_by="read in the paper",
        from_size="small",
    ),
    Claim(
        identifier="large accuracy",
        sentence="F1, batch size 6,000: accuracy on the test images, in percent",
        published=97.81,
        tolerance=0.0,
        slack=1.0,
        known_by="read in the paper",
        from_size="small",
    ),
    Claim(
        identifier="gap",
        sentence="F1: by how many points the small batch is more accurate, at least half of what they found",
        published=98.03 - 97.81,
        tolerance=0.5,
        relation="at least",
        known_by="read in the paper",
        from_size="small",
    ),
    Claim(
        identifier="distance",
        sentence="F1: how many times as far from its start the small batch ends (3 to 10 for all their networks)",
        published=3.0,
        tolerance=0.0,
        relation="at least",
        known_by="read in the paper",
        from_size="small",
    ),
    Claim(
        identifier="C3 gap",
        sentence="C3, a quarter as wide, 15,000 images: points of accuracy, at least half of what they found",
        published=49.58 - 46.45,
        tolerance=0.5,
        relation="at least",
        known_by="read in the paper",
        from_size="small",
    ),
    Claim(
        identifier="C3 ratio",
        sentence="C3, a quarter as wide, 15,000 images: sharpness of the large batch over that of the small one",
        published=258.75 / 29.85,
        tolerance=0.5,
        relation="at least",
        known_by="read in the paper",
        from_size="small",
    ),
)


# ------------------------------------------------------------------------------------------------ what is measured


def run(size: Size, store: Store) -> Measured:
    """F1, then (but for smoke) the open choices, the controls, C3, training along and warm starts."""
    plan = PLANS[size]
    of_f1 = partial(of_paper_runs, store, plan)
    if size == "smoke":
        store.unit("training", partial(of_f1, ()))
        return {"rows": store.unit("box", partial(of_f1, ("box",))), "sizes": list(plan["sizes"])}
    parts = {
        "box": store.unit("box", partial(of_f1, ("box", "sam"))),
        "box 5e-4": store.unit("box, 5e-4", partial(of_f1, ("box",), epsilon=5e-4)),
        "others": store.unit("adaptive, eigenvalue", partial(of_f1, ("adaptive", "eigenvalue"))),
        "subspace": store.unit("subspace", partial(of_f1, ("subspace",))),
        "subspace 5e-4": store.unit("subspace, 5e-4", partial(of_f1, ("subspace",), epsilon=5e-4)),
    }
    rows = joined(parts)
    measured: dict[str, Any] = {"rows": rows, "sizes": list(plan["sizes"])}
    measured["open"] = store.unit("open choices", partial(open_choices, store, plan, rows))
    measured["path"] = store.unit("path", partial(path, store, plan, rows))
    measured["controls"] = store.unit("controls", partial(controls, store))
    measured["C3"] = store.unit("C3", partial(convolutional, store, size))
    measured["along"] = store.unit("along training", partial(along, store))
    measured["warm"] = store.unit("warm starts", partial(warm, store))
    return measured


def trained(store: Store, net: str, name: str, sizes: Sequence[int], **how: Any) -> Path:
    """The study of a network, trained at its sizes; what was trained before is not trained again."""
    study = store.folder / f"{name}.study.db"
    how = {"seeds": 3, "rates": (RATE,), "workers": WORKERS, "threads": 1, **how}
    with contextlib.suppress(rightbatch.InsufficientEvidence):  # weights are wanted here, not a target
        rightbatch.sweep(f"{NETS}:{net}", sizes, study=study, keep_models="last", objective="examples", **how)
    return study


def measured_of(study: Path, net: str, measures: Sequence[str], *, threads: int = WORKERS, **choices: Any) -> list[Row]:
    """A row for each run of the study."""
    found = rightbatch.sharpness(study, f"{NETS}:{net}", measures=measures, threads=threads, **choices)
    return [
        {
            "run": end.run,
            "batch_size": end.trial.batch_size,
            "learning_rate": end.trial.learning_rate,
            "seed": end.trial.seed,
            "examples": end.trial.planned_examples,
            "evaluations": dict(end.evaluations),
            **end.values,
        }
        for end in found.ends
    ]


def of_paper_runs(store: Store, plan: Mapping[str, Any], measures: Sequence[str], **choices: Any) -> list[Row]:
    """Some measures of F1 at both sizes."""
    workers = plan.get("workers", WORKERS)
    study = trained(store, plan["net"], "F1", plan["sizes"], seeds=plan["seeds"], workers=workers)
    return measured_of(study, plan["net"], measures, examples=plan["examples"], threads=workers, **choices)


def joined(parts: Mapping[str, Sequence[Row]]) -> list[Row]:
    """One row for each run, from rows of several measures; those by the finer epsilon under names of their own."""
    rows: dict[int, dict[str, Any]] = {}
    for name, part in parts.items():
        for row in part:
            own = rows.setdefault(row["run"], {"evaluations": {}})
            if name.endswith(" 5e-4"):
                own[name] = row[name.removesuffix(" 5e-4")]
            else:
                own |= {**row, "evaluations": own["evaluations"] | row["evaluations"]}
    return list(rows.values())


def first_of(rows: Sequence[Row], batch_size: int) -> Row:
    """The run of the first seed."""
    return min((row for row in rows if row["batch_size"] == batch_size), key=lambda row: row["seed"])


def open_choices(store: Store, plan: Mapping[str, Any], rows: Sequence[Row]) -> list[Row]:
    """The metric of one model of each size by every choice that the paper leaves open."""
    study, pair = store.folder / "F1.study.db", [first_of(rows, size) for size in plan["sizes"]]
    found = []
    for measure, variants in (("box", VARIANTS), ("subspace", DIRECTIONS)):
        for name, choices in variants.items():
            how = {"examples": plan["examples"], **choices}
            values = {
                row["batch_size"]: row[measure]
                for row in measured_of(study, plan["net"], (measure,), runs=[row["run"] for row in pair], **how)
                if measure in row
            }
            small, large = (values[size] for size in plan["sizes"])
            found.append({"measure": measure, "choice": name, "small": small, "large": large})
    return found


def path(store: Store, plan: Mapping[str, Any], rows: Sequence[Row]) -> list[Row]:
    """Loss and accuracy from the small batch's minimum (0) to the large one's (1)."""
    small, large = (first_of(rows, size)["run"] for size in plan["sizes"])
    found = rightbatch.sharpness(
        store.folder / "F1.study.db", f"{NETS}:{plan['net']}", measures=(), path=(small, large),
        examples=plan["examples"], threads=WORKERS,
    )  # fmt: skip
    return [vars(point) for point in found.path]


def controls(store: Store) -> dict[str, list[Row]]:
    """F1 on 15,000 images: both sizes as in the paper, and the large one under each control."""
    study = trained(store, "f1_few", "few", (256,))
    study = trained(store, "f1_few", "few", (1500,), rates=(RATE, *TUNED))
    wanted = partial(measured_of, measures=("box", "sam", "adaptive"), examples=5000)
    rows = wanted(study, "f1_few")
    by_rate: dict[float, list[Row]] = {}
    for row in (row for row in rows if row["batch_size"] == 1500):
        by_rate.setdefault(row["learning_rate"], []).append(row)
    steps = trained(store, "f1_few", "steps", (1500,), planned_examples=1500 * STEPS_OF_SMALL)
    ghost = trained(store, "f1_ghost", "ghost", (1500,))
    return {
        "small": [row for row in rows if row["batch_size"] == 256],
        "as in the paper": by_rate[min(by_rate)],
        "rate tuned": max(by_rate.values(), key=lambda group: sum(row["valid_metric"] for row in group)),
        "equal steps": wanted(steps, "f1_few"),
        "ghost batches": wanted(ghost, "f1_ghost"),
    }


def convolutional(store: Store, size: Size) -> list[Row]:
    """C3 at both sizes: a quarter as wide in 40 passes, or whole in 100."""
    net = "c3" if size == "small" else "c3_whole"
    study = trained(store, net, net, (256, 1500 if size == "small" else 5000))
    return measured_of(study, net, ("box", "sam"), examples=5000)


def along(store: Store) -> list[Row]:
    """Sharpness against the loss: runs of both sizes that end after few and many passes."""
    rows = []
    for passes in (1, 2, 5, 10, 20):
        study = trained(store, "f1_few", f"along-{passes}", (256, 1500), seeds=1, epochs=passes)
        rows += [{"passes": passes, **row} for row in measured_of(study, "f1_few", ("box",), examples=5000)]
    return rows


def warm(store: Store) -> list[Row]:
    """The large batch for 40 passes, begun from the small one's weights after few and many."""
    rows = []
    for passes in (1, 5, 20):
        source = store.folder / f"along-{passes}.study.db"
        small = first_of(measured_of(source, "f1_few", (), examples=5000), 256)["run"]
        weights = source.with_name(f"along-{passes}.models") / f"run-{small}.pt"
        study = trained(store, "f1_few", f"warm-{passes}", (1500,), seeds=1, start_from=weights)
        found = measured_of(study, "f1_few", ("box",), examples=5000, start_from=weights)
        rows += [{"passes": passes, **row} for row in found]
    return rows


# --------------------------------------------------------------------------------------------- what came of it


def values(rows: Sequence[Row], batch_size: int, name: str) -> list[float]:
    """What was measured of the runs of a size."""
    return [row[name] for row in rows if row["batch_size"] == batch_size]


def compare(measured: Measured) -> tuple[Comparison, ...]:
    """Every claim with the 95 % interval of what was measured."""
    rows, (small, large) = measured["rows"], measured["sizes"]

    def both(of: Sequence[Row], name: str, sizes: Sequence[int]) -> tuple[list[float], list[float]]:
        return values(of, sizes[1], name), values(of, sizes[0], name)

    found: dict[str, Interval | None] = {"full 1e-3": ratio_of_means(*both(rows, "box", (small, large)))}
    if "C3" in measured:
        c3 = measured["C3"]
        sizes = sorted({row["batch_size"] for row in c3})
        found |= {
            "full 5e-4": ratio_of_means(*both(rows, "box 5e-4", (small, large))),
            "subspace 1e-3": ratio_of_means(*both(rows, "subspace", (small, large))),
            "subspace 5e-4": ratio_of_means(*both(rows, "subspace 5e-4", (small, large))),
            "small accuracy": percent(mean_of(values(rows, small, "valid_metric"))),
            "large accuracy": percent(mean_of(values(rows, large, "valid_metric"))),
            "gap": percent(difference_of_means(*both(rows, "valid_metric", (large, small)))),
            "distance": ratio_of_means(*both(rows, "distance", (large, small))),
            "C3 gap": percent(difference_of_means(*both(c3, "valid_metric", sizes[::-1]))),
            "C3 ratio": ratio_of_means(*both(c3, "box", sizes)),
        }
    claims = {claim.identifier: claim for claim in CLAIMS}
    return tuple(claims[name].judge(interval) for name, interval in found.items() if interval is not None)


def percent(value: Interval | None) -> Interval | None:
    """A share in percent."""
    if value is None or value.low is None or value.high is None:
        return value
    return Interval(100 * value.estimate, 100 * value.low, 100 * value.high, value.level)


def control_rows(measured: Measured) -> list[dict[str, Any]]:
    """For each way to train the large batch: how much sharper than the small one, and how much less accurate."""
    small = measured["controls"]["small"]
    found = []
    for name, rows in measured["controls"].items():
        if name == "small":
            continue
        gap = percent(difference_of_means([r["valid_metric"] for r in small], [r["valid_metric"] for r in rows]))
        ratio = ratio_of_means([r["box"] for r in rows], [r["box"] for r in small])
        adaptive = ratio_of_means([r["adaptive"] for r in rows], [r["adaptive"] for r in small])
        found.append(
            {"control": name, "gap": gap, "ratio": ratio, "adaptive": adaptive, "rate": rows[0]["learning_rate"]}
        )
    return found


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
        f"{units.interval(one['ratio'], units.times)} (adaptive: {units.interval(one['adaptive'], units.times)}), less "
        f"accurate by {units.interval(one['gap'])} points."
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
        for key, name in (("ratio", "times as sharp"), ("gap", "points less accurate"))
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
        beside("times as sharp", alt.Scale(type="log")), beside("points less accurate", alt.Scale(zero=True))
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


REPRODUCTION = Reproduction(
    name="keskar",
    title="Large batches, sharp minima and the generalization gap",
    source="Keskar et al. 2017, On Large-Batch Training for Deep Learning: Generalization Gap and Sharp Minima "
    "(ICLR 2017, arXiv:1609.04836): tables 2, 3 and 4, figures 3, 5 and 6; controls after Hoffer et al. 2017 "
    "(arXiv:1705.08741) and Shallue et al. 2019 (JMLR 20(112))",
    claims=CLAIMS,
    budget_seconds={"smoke": 120, "small": 6 * 3600, "paper": 400 * 3600},
    smallest_effect=0.3,
    smallest_effect_reason="Each claim is judged by the 95 % interval over starts (5; 3 for the controls): with seeds "
    "that differ by a factor 1.3, five of each side tell ratios apart that differ by about a third.",
    run=run,
    compare=compare,
    figure=figure,
    caption="Top: every run of F1. Middle: F1 on 15,000 images, the large batch (1,500) against the small one (256) as "
    "in the paper and under three controls; bars are 95 % intervals over three starts. Bottom: loss along the straight "
    "and the curved line between the minima of both sizes, batch normalisation by the statistics of each pass.",
    notes=notes,
    seed=0,
)
