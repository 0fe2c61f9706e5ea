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

from _keskar_told import Row, figure, notes, percent, values

import rightbatch
from rightbatch.means import difference_of_means, mean_of, ratio_of_means
from rightbatch.records import Interval
from rightbatch.reproduction import Claim, Comparison, Measured, Reproduction, Size, Store

NETS = Path(__file__).with_name("_keskar_nets.py")
WORKERS = 2
RATE = 0.001
TUNED = (0.00178, 0.00316, 0.00562)
"""Rates that the large batch is tried at beside its own."""

STEPS_OF_SMALL = 58 * 40
"""Steps of batch size 256 in 40 passes over 15,000 images."""

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


read = partial(Claim, known_by="read in the paper", from_size="small")


def ratio_claim(
    identifier: str, words: str, published: float, *, least: float = 10, from_size: Size = "small"
) -> Claim:
    """Sharper by at least an order of magnitude, where they found so much: "one to two" are claimed."""
    sentence = f"{words}: sharpness of the large batch over that of the small one, at least {least:g}"
    tolerance = 1 - least / published
    return read(identifier, sentence, published, tolerance, relation="at least", from_size=from_size)


def gap_claim(identifier: str, words: str, small: float, large: float, from_size: Size = "small") -> Claim:
    """Half of the gap between the accuracies that they found with both sizes, in percent."""
    sentence = f"{words}: by how many points the small batch is more accurate, at least half of what they found"
    return read(identifier, sentence, small - large, 0.5, relation="at least", from_size=from_size)


QUARTER = "C3 (a quarter as wide, 15,000 images)"
CLAIMS = (
    ratio_claim("full 1e-3", "F1, whole space, epsilon 1e-3", 205.14 / 1.23, from_size="smoke"),
    ratio_claim("full 5e-4", "F1, whole space, epsilon 5e-4", 42.90 / 0.61),
    ratio_claim("subspace 1e-3", "F1, 100 random directions, epsilon 1e-3", 9.22 / 0.11),
    ratio_claim("subspace 5e-4", "F1, 100 random directions, epsilon 5e-4", 9.17 / 0.05),
    read("small accuracy", "F1, batch size 256: accuracy on the test images, in percent", 98.03, 0.0, slack=1.0),
    read("large accuracy", "F1, batch size 6,000: accuracy on the test images, in percent", 97.81, 0.0, slack=1.0),
    gap_claim("gap", "F1", 98.03, 97.81),
    read(
        "distance",
        "F1: how many times as far from its start the small batch ends (3 to 10 for all their networks)",
        published=3.0,
        tolerance=0.0,
        relation="at least",
    ),
    gap_claim("C3 gap", QUARTER, 49.58, 46.45),
    ratio_claim("C3 ratio", QUARTER, 258.75 / 29.85, least=4),
    gap_claim("C1 gap", "C1", 80.04, 77.26, "paper"),
    ratio_claim("C1 ratio", "C1, whole space, epsilon 1e-3", 707.23 / 28.58, from_size="paper"),
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
    plainly = store.unit("controls", partial(controls, store, ("box", "sam", "adaptive")))
    by_ascent = store.unit("controls, signed ascent", partial(controls, store, ("box",), solver="signed-ascent"))
    measured["controls"] = {
        name: [row | {"ascent": other["box"]} for row, other in zip(rows, by_ascent[name], strict=True)]
        for name, rows in plainly.items()
    }
    nets = {"C3": "c3"} if size == "small" else {"C3": "c3_whole", "C1": "c1_whole"}
    for name, net in nets.items():
        measured[name] = store.unit(name, partial(convolutional, store, net))
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


def controls(store: Store, measures: Sequence[str], **choices: Any) -> dict[str, list[Row]]:
    """Some measures of F1 on 15,000 images: both sizes as in the paper, and the large one under each control."""
    study = trained(store, "f1_few", "few", (256,))
    study = trained(store, "f1_few", "few", (1500,), rates=(RATE, *TUNED))
    wanted = partial(measured_of, measures=measures, examples=5000, **choices)
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


def convolutional(store: Store, net: str) -> list[Row]:
    """A network on colour images at both sizes: C3 a quarter as wide on a part of them, or C3 or C1 as in the paper."""
    study = trained(store, net, net, (256, 1500 if net == "c3" else 5000))
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
        # The target is one that these weights do not reach already: nothing is judged by it.
        study = trained(store, "f1_few", f"warm-{passes}", (1500,), seeds=1, start_from=weights, target=1.0)
        found = measured_of(study, "f1_few", ("box",), examples=5000, start_from=weights)
        rows += [{"passes": passes, **row} for row in found]
    return rows


# --------------------------------------------------------------------------------------------- what came of it


def compare(measured: Measured) -> tuple[Comparison, ...]:
    """Every claim with the 95 % interval of what was measured."""
    rows, (small, large) = measured["rows"], measured["sizes"]

    def both(of: Sequence[Row], name: str, sizes: Sequence[int]) -> tuple[list[float], list[float]]:
        return values(of, sizes[1], name), values(of, sizes[0], name)

    found: dict[str, Interval | None] = {"full 1e-3": ratio_of_means(*both(rows, "box", (small, large)))}
    if "controls" in measured:
        found |= {
            "full 5e-4": ratio_of_means(*both(rows, "box 5e-4", (small, large))),
            "subspace 1e-3": ratio_of_means(*both(rows, "subspace", (small, large))),
            "subspace 5e-4": ratio_of_means(*both(rows, "subspace 5e-4", (small, large))),
            "small accuracy": percent(mean_of(values(rows, small, "valid_metric"))),
            "large accuracy": percent(mean_of(values(rows, large, "valid_metric"))),
            "gap": percent(difference_of_means(*both(rows, "valid_metric", (large, small)))),
            "distance": ratio_of_means(*both(rows, "distance", (large, small))),
        }
    for net in (net for net in ("C3", "C1") if net in measured):
        of_net = measured[net]
        sizes = sorted({row["batch_size"] for row in of_net})
        found[f"{net} gap"] = percent(difference_of_means(*both(of_net, "valid_metric", sizes[::-1])))
        found[f"{net} ratio"] = ratio_of_means(*both(of_net, "box", sizes))
    claims = {claim.identifier: claim for claim in CLAIMS}
    return tuple(claims[name].judge(interval) for name, interval in found.items() if interval is not None)


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
