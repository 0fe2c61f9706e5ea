"""McCandlish et al. 2018: does the gradient noise scale say what the critical batch size is, all along a training?

The critical batch size is read off the steps that every batch size needs to a level of the validation loss or accuracy,
with its rate tuned; the noise scale off the gradients of trainings with batches of 32. Both up to four levels: those
that batches of 32 come to after a quarter, a half, three quarters and all of their steps to the target.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np

import rightbatch
from rightbatch.bundled import WORKLOADS
from rightbatch.fit.quantiles import t_interval
from rightbatch.fit.tradeoff import fit_tradeoff
from rightbatch.loading import as_module
from rightbatch.means import mean_of, out_of_logs
from rightbatch.records import Interval
from rightbatch.replay.table import Table, read_table
from rightbatch.report import units
from rightbatch.reproduction import Claim, Comparison, Measured, Reproduction, Size, Store, held

NETS = Path(__file__).with_name("_mccandlish_nets.py")
TABLES = Path(__file__).parents[1] / "benchmarks" / "tables"
MADE_THERE = as_module(TABLES / "workloads.py", "tables_workloads")

TRAINED = "mnist_mlp"
"""The problem that is trained here; the others are recorded tables of `benchmarks`."""

NAMES: Mapping[Size, tuple[str, ...]] = {
    "smoke": ("char_transformer",),
    "small": (TRAINED, "fashion_logistic", "fashion_mlp", "fashion_cnn", "char_gru", "char_transformer"),
}
JUDGED_AT = 0.2
"""Validation loss on MNIST. Runs go on to 0.15, but only small batches reach that in ten passes over the data."""

SEEDS: Mapping[Size, int] = {"smoke": 2, "small": 3, "paper": 10}
SIZES = tuple(4**k for k in range(1, 7))
RATES = tuple(10 ** (k / 4) for k in range(-6, 4))
USUAL = 32
QUARTERS = 4
ORDER = math.log(10)
"""The paper says that they agree within a factor of ten."""


def claims_of(name: str) -> tuple[Claim, ...]:
    """What is said of one problem."""
    one = partial(
        Claim, known_by="reported by others", tolerance=0.0, from_size="smoke" if name in NAMES["smoke"] else "small"
    )
    return (
        one(
            f"{name}: agree",
            f"{name}: log of the critical batch size over the noise scale, both up to the target (within a factor 10)",
            published=0.0,
            slack=ORDER,
        ),
        one(
            f"{name}: noise grows",
            f"{name}: the noise scale of the last quarter over that of the first",
            published=1.0,
            relation="at least",
        ),
        one(
            f"{name}: critical grows",
            f"{name}: the critical batch size at the target over that at the first level",
            published=1.0,
            relation="at least",
        ),
    )


CLAIMS = tuple(claim for name in NAMES["small"] for claim in claims_of(name))


# ------------------------------------------------------------------------------------------------ what is measured


@cache
def problem(name: str) -> Any:
    """What is trained: a workload, or where it is made."""
    if name == TRAINED:
        return f"{NETS}:{TRAINED}"
    return WORKLOADS["fashion_mnist:mlp"].make() if name == "fashion_mlp" else getattr(MADE_THERE(), f"make_{name}")()


def run(size: Size, store: Store) -> Measured:
    """Every problem: steps to its levels, and the noise of some trainings."""
    return {name: of_problem(name, SEEDS[size], store) for name in NAMES.get(size, NAMES["small"])}


def of_problem(name: str, seeds: int, store: Store) -> dict[str, Any]:
    """Steps to each level by batch size, and noise scales by quarter of each training."""
    if name == TRAINED:
        path = Path(store.unit(f"{name}, trained", partial(train, store.folder)))
        table, target = read_table(store.folder / path), JUDGED_AT
    else:
        table, target = read_table(TABLES / f"{name}.csv.gz"), problem(name).target
    falls = any((run.points[0].valid_metric or 0.0) < 0 for runs in table.runs.values() for run in runs)
    target = -target if falls else target  # tables are higher-is-better
    rate, seconds = table.at_best_rates(target)[USUAL] if USUAL in table.sizes else (math.nan, np.array([math.nan]))
    steps = max(round(float(np.median(seconds)) / table.step_seconds[USUAL]), 4 * QUARTERS)
    levels = [level(table, rate, steps * k // QUARTERS) for k in range(1, QUARTERS)] + [target]
    return {
        "levels": [-one if falls else one for one in levels],
        "steps": [steps_to(table, one) for one in levels],
        "noise": [
            store.unit(f"{name}, noise, seed {seed}", partial(noise, store.folder, name, rate, steps, 1000 + seed))
            for seed in range(seeds)
        ],
    }


def train(folder: Path) -> str:
    """All batch sizes at all rates on MNIST; the name of the table."""
    study, table = folder / "mnist.study.db", "mnist.csv.gz"
    with contextlib.suppress(rightbatch.InsufficientEvidence):  # curves are wanted here, not an answer
        rightbatch.sweep(
            problem(TRAINED), (*SIZES, USUAL), study=study, rates=RATES, seeds=2, until="target", threads=1, workers=2
        )
    rightbatch.export(study, folder / table, whole_curves=True)
    return table


def level(table: Table, rate: float, steps: int) -> float:
    """What runs at the usual size have come to after so many steps: the median of their best until then."""
    found = [
        max(point.valid_metric for point in run.points if point.step <= steps and point.valid_metric is not None)
        for run in table.runs[USUAL, rate]
    ]
    return float(np.median(found))


def steps_to(table: Table, target: float) -> dict[str, float]:
    """By batch size, at its best rate: the geometric mean over seeds."""
    return {
        str(size): float(np.exp(np.log(seconds / table.step_seconds[size]).mean()))
        for size, (_, seconds) in table.at_best_rates(target).items()
    }


def noise(folder: Path, name: str, rate: float, steps: int, seed: int) -> list[float | None]:
    """The noise scale over each quarter of a training with batches of 32; None where it is not bounded."""
    study = folder / f"{name}-{seed}.study.db"
    report = rightbatch.noise(
        problem(name), study=study, batch_size=USUAL, learning_rate=rate, steps=steps, seed=seed, threads=1
    )
    scales = [quarter.scale.estimate for quarter in report.along]
    return [scale if math.isfinite(scale) else None for scale in scales]


# ---------------------------------------------------------------------------------------------- what came of it


def over_seeds(logs: Sequence[float]) -> tuple[float, float]:
    """Mean and its squared standard error."""
    values = np.asarray(logs)
    return float(values.mean()), float(values.var(ddof=1) / len(values))


def critical(of: Mapping[str, Any], k: int) -> tuple[float, float] | None:
    """Log of the critical batch size up to a level and its squared standard error; None where it is not bounded."""
    steps = of["steps"][k]
    if len(steps) < 3:
        return None
    found = fit_tradeoff([int(b) for b in steps], list(steps.values())).critical_batch_size
    if not (found.low and found.high and math.isfinite(found.high)):
        return None
    return math.log(found.estimate), (math.log(found.high / found.low) / (2 * 1.96)) ** 2


def noise_until(of: Mapping[str, Any], k: int) -> tuple[float, float] | None:
    """Log of the mean noise scale over the first quarters up to the k-th, and its squared standard error."""
    if any(scale is None for along in of["noise"] for scale in along[: k + 1]):
        return None
    return over_seeds([math.log(float(np.mean(along[: k + 1]))) for along in of["noise"]])


def interval(upper: tuple[float, float] | None, lower: tuple[float, float] | None, freedom: int) -> Interval | None:
    """Of a difference of logs, 95 %."""
    if upper is None or lower is None:
        return None
    return t_interval(upper[0] - lower[0], math.sqrt(upper[1] + lower[1]), freedom)


def of_claims(of: Mapping[str, Any]) -> dict[str, Interval | None]:
    """What is claimed of a problem. A factor between two levels of the same runs is not more uncertain than this."""
    many, last = 8, QUARTERS - 1
    ends = [(along[0], along[-1]) for along in of["noise"]]
    grows = None
    if all(first and end for first, end in ends):
        grows = mean_of([math.log(end / first) for first, end in ends])
    return {
        "agree": interval(critical(of, last), noise_until(of, last), many),
        "noise grows": out_of_logs(grows),
        "critical grows": out_of_logs(interval(critical(of, last), critical(of, 0), many)),
    }


def compare(measured: Measured) -> tuple[Comparison, ...]:
    """With 95 % intervals: of the fits, and over the seeds of the noise."""
    found = {f"{name}: {what}": one for name, of in measured.items() for what, one in of_claims(of).items()}
    return held(CLAIMS, found)


def notes(measured: Measured) -> tuple[str, ...]:
    """Both, level by level."""
    said = []
    for name, of in measured.items():
        parts = []
        for k, reached in enumerate(of["levels"]):
            fitted, mean = critical(of, k), noise_until(of, k)
            parts.append(
                f"{units.significant(reached)}: {units.significant(math.exp(fitted[0])) if fitted else 'not bounded'}"
                f" and {units.significant(math.exp(mean[0])) if mean else 'not bounded'}"
            )
        said.append(f"{name}, critical batch size and mean noise scale up to " + "; ".join(parts) + ".")
    return (
        *said,
        "The paper's table for MNIST: critical batch size 20 at the start and 200 on average, noise scale 50 and 900; "
        "of a larger network, to levels of the training loss. Here levels are of validation data.",
        "Runs on MNIST go on to a validation loss of 0.15, which only small batches reach in ten passes over the data; "
        f"they are judged up to {JUDGED_AT:g}.",
        "Steps are to levels that are reached at the first of two evaluations; noise is measured at the rate that is "
        "best for batches of 32, and depends on it.",
    )


def figure(measured: Measured) -> alt.FacetChart:
    """Both by level, a panel a problem."""
    rows = []
    for name, of in measured.items():
        for k in range(QUARTERS):
            for what, found in (("critical batch size", critical(of, k)), ("noise scale", noise_until(of, k))):
                if found is not None:
                    half = 1.96 * math.sqrt(found[1])
                    rows.append(
                        {"problem": name, "quarter": k + 1, "what": what, "size": math.exp(found[0])}
                        | {"low": math.exp(found[0] - half), "high": math.exp(found[0] + half)}
                    )
    base = alt.Chart().encode(
        x=alt.X("quarter:O", title="level", axis=alt.Axis(labelAngle=0)),
        color=alt.Color("what:N", title=None),
    )
    layers = alt.layer(
        base.mark_line(point=True).encode(
            y=alt.Y("size:Q", scale=alt.Scale(type="log", zero=False, nice=False), title="examples")
        ),
        base.mark_rule(clip=True).encode(y="low:Q", y2="high:Q"),
    ).properties(width=170, height=150)
    return layers.facet(
        facet=alt.Facet("problem:N", title=None, sort=list(measured)), columns=3, data=alt.Data(values=rows)
    )


REPRODUCTION = Reproduction(
    name="mccandlish",
    title="The noise scale and the critical batch size, along a training",
    source="McCandlish et al. 2018, An empirical model of large-batch training (arXiv:1812.06162), equation 2.11, "
    "figure 4 and table 1",
    claims=CLAIMS,
    budget_seconds={"smoke": 60, "small": 2 * 3600, "paper": 12 * 3600},
    smallest_effect=0.3,
    smallest_effect_reason="A critical batch size is read off six to eleven sizes with two to six seeds: it is known "
    "to a factor of 1.3 and worse, which its interval says.",
    run=run,
    compare=compare,
    figure=figure,
    caption="Critical batch size and mean noise scale up to four levels along a training (what batches of 32 come to "
    "after a quarter, a half, three quarters and all of their steps to the target), with 95 % intervals.",
    notes=notes,
    seed=0,
)
