"""Goodput: is the batch size sqrt(alpha phi / beta) as fast as the fastest of an exhaustive table? (Pollux, 2021)

A step of B examples takes alpha + beta B seconds, and by the noise scale phi a training takes 1 + phi / B times as many
steps as one without noise. The product is least at B = sqrt(alpha phi / beta): between the size at which the hardware
is half used and that at which an example is half lost. Seven tables of recorded runs say how fast every size is at its
best rate. phi is measured as someone would who knows nothing yet: along trainings with batches of 32, to the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np

import rightbatch
from rightbatch.bundled import WORKLOADS
from rightbatch.fit.step_time import fit_step_time
from rightbatch.fit.tradeoff import fit_tradeoff
from rightbatch.loading import as_module
from rightbatch.records import Interval, StepTime
from rightbatch.replay.table import read_table
from rightbatch.reproduction import Claim, Comparison, Measured, Reproduction, Size, Store, held
from rightbatch.rules.size_laws import goodput

TABLES = Path(__file__).parents[1] / "benchmarks" / "tables"
MADE_HERE = as_module(TABLES / "workloads.py", "tables_workloads")
NAMES: Mapping[Size, tuple[str, ...]] = {
    "smoke": ("letter",),
    "small": (
        "letter",
        "fashion_mlp",
        "fashion_cnn",
        "fashion_logistic",
        "char_gru",
        "char_transformer",
        "protein_regression",
    ),
}
SEEDS: Mapping[Size, int] = {"smoke": 2, "small": 5, "paper": 20}
USUAL = 32
"""The batch size that noise is measured at."""

DRAWS = 2000


def claim(name: str) -> Claim:
    """What is claimed of a table."""
    return Claim(
        name,
        f"{name}: seconds to the target at sqrt(alpha phi / beta) over those at the fastest size (at most 1.3)",
        published=1.3,
        tolerance=0.0,
        known_by="derived",
        relation="at most",
        from_size="smoke" if name in NAMES["smoke"] else "small",
    )


CLAIMS = tuple(claim(name) for name in NAMES["small"])


# ------------------------------------------------------------------------------------------------ what is measured


@cache
def problem(name: str) -> Any:
    """The workload of a table."""
    bundled = {"letter": "letter", "fashion_mlp": "fashion_mnist:mlp"}
    return (WORKLOADS[bundled[name]].make if name in bundled else getattr(MADE_HERE(), f"make_{name}"))()


def run(size: Size, store: Store) -> Measured:
    """Every table: its times, and the noise along some trainings."""
    return {name: of_table(name, SEEDS[size], store) for name in NAMES.get(size, NAMES["small"])}


def of_table(name: str, seeds: int, store: Store) -> dict[str, Any]:
    """Seconds to the target of every seed at each size's best rate; the law of step times; the noise scales."""
    table, target = read_table(TABLES / f"{name}.csv.gz"), problem(name).target
    falls = problem(name).direction == "min"  # tables are higher-is-better: what falls is negated there
    times = table.at_best_rates(-target if falls else target)
    law = fit_step_time([StepTime(size, (seconds,), (0.0,)) for size, seconds in table.step_seconds.items()])
    rate, seconds = times[USUAL]
    steps = round(float(np.median(seconds)) / table.step_seconds[USUAL])
    return {
        "target": target,
        "seconds": {str(size): [float(one) for one in found] for size, (_, found) in times.items()},
        "rates": {str(size): rate for size, (rate, _) in times.items()},
        "step_seconds": {str(size): seconds for size, seconds in table.step_seconds.items()},
        "alpha": law.alpha_seconds.estimate,
        "beta": law.beta_seconds.estimate,
        "noise": [
            store.unit(
                f"{name}, noise, seed {seed}", partial(noise, store.folder, name, rate, max(steps, 16), 1000 + seed)
            )
            for seed in range(seeds)
        ],
    }


def noise(folder: Path, name: str, rate: float, steps: int, seed: int) -> dict[str, Any]:
    """The noise scale over each quarter of a training with batches of 32; None where it is not bounded."""
    study = folder / f"{name}-{seed}.study.db"
    report = rightbatch.noise(
        problem(name), study=study, batch_size=USUAL, learning_rate=rate, steps=steps, seed=seed, threads=1
    )
    scales = [quarter.scale.estimate for quarter in report.along]
    return {"along": [scale if math.isfinite(scale) else None for scale in scales], "steps": steps}


# --------------------------------------------------------------------------------------------------- what it gives


def middle(values: Sequence[float]) -> float:
    """The geometric mean."""
    return float(np.exp(np.mean(np.log(values))))


def over_progress(along: Sequence[float | None]) -> float | None:
    """The mean of phi over what was learnt: a step of B examples is worth 1 / (1 + phi / B) of one without noise.

    A whole training takes the integral of (alpha + beta B) (1 + phi / B) over that, so that this mean decides.
    """
    scales = np.array([scale for scale in along if scale is not None])
    if len(scales) < len(along):
        return None
    worth = 1 / (1 + scales / USUAL)
    return float(np.sum(worth * scales) / np.sum(worth))


def scales_of(of: Mapping[str, Any]) -> list[float]:
    """A noise scale a training; none where one of them is not bounded."""
    found = [over_progress(one["along"]) for one in of["noise"]]
    known = [scale for scale in found if scale is not None]
    return known if len(known) == len(found) else []


def seconds_of(of: Mapping[str, Any]) -> dict[int, float]:
    """Of each size, the geometric mean over seeds."""
    return {int(size): middle(found) for size, found in of["seconds"].items()}


def at(size: float, seconds: Mapping[int, float]) -> float:
    """Between sizes a line in logarithms; beyond them what the last one takes, which one would be left with."""
    sizes = sorted(seconds)
    return float(np.exp(np.interp(math.log(size), np.log(sizes), np.log([seconds[b] for b in sizes]))))


def slower(of: Mapping[str, Any], size: float) -> float:
    """Seconds at a size over the least."""
    seconds = seconds_of(of)
    return at(size, seconds) / min(seconds.values())


def ruled(of: Mapping[str, Any], scale: float) -> float:
    """What the rule says."""
    return goodput(of["alpha"], of["beta"], scale)


def regret(of: Mapping[str, Any]) -> Interval | None:
    """How much slower, with the 95 % interval over seeds of the runs and of the noise; the fastest size stays it."""
    scales, generator = scales_of(of), np.random.default_rng(0)
    if not scales:
        return None
    seconds = seconds_of(of)
    fastest = min(seconds, key=lambda size: seconds[size])
    drawn = []
    for _ in range(DRAWS):
        one = {int(size): middle(generator.choice(found, len(found))) for size, found in of["seconds"].items()}
        drawn.append(at(ruled(of, middle(generator.choice(scales, len(scales)))), one) / one[fastest])
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(slower(of, ruled(of, middle(scales))), float(low), float(high))


def critical(of: Mapping[str, Any]) -> float:
    """What stands for phi in the steps themselves: the critical batch size of the law of two terms."""
    steps = {size: seconds / of["step_seconds"][str(size)] for size, seconds in seconds_of(of).items()}
    return fit_tradeoff(list(steps), list(steps.values())).critical_batch_size.estimate


# ---------------------------------------------------------------------------------------------- what came of it


def compare(measured: Measured) -> tuple[Comparison, ...]:
    """Each table with its interval."""
    return held(CLAIMS, {name: regret(of) for name, of in measured.items()})


def notes(measured: Measured) -> tuple[str, ...]:
    """Every table, and what other rules would have cost."""
    others: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
        "sqrt(alpha phi / beta)": lambda of: ruled(of, middle(scales_of(of))),
        "the same with the critical batch size of the runs, which nobody knows before": lambda of: ruled(
            of, critical(of)
        ),
        "the noise scale itself": lambda of: middle(scales_of(of)),
        "half of the hardware, alpha / beta": lambda of: of["alpha"] / of["beta"],
        str(USUAL): lambda of: USUAL,
        "the largest that reached the target": lambda of: max(seconds_of(of)),
    }
    tables = [of for of in measured.values() if scales_of(of)]
    said = []
    for rule, size in others.items():
        times = [slower(of, size(of)) for of in tables]
        said.append(f"{rule} {middle(times):.2f} (worst {max(times):.2f})")
    return (
        *(line(name, of) for name, of in measured.items()),
        "Seconds over those of the fastest size, geometric mean over the tables: " + "; ".join(said) + ".",
        "Seconds are those of the tables: one thread of one machine, every size at its best rate of a grid, which has "
        f"to be known. Noise is measured with batches of {USUAL} at their best rate. Pollux adapts the size while it "
        "trains; here one has to do for all of a training.",
    )


def line(name: str, of: Mapping[str, Any]) -> str:
    """One table: what the rule was told, what it says, and which part of it was off."""
    seconds, scales = seconds_of(of), scales_of(of)
    fastest = min(seconds, key=lambda size: seconds[size])
    begun = f"{name}: fastest is {fastest:,}, half of the hardware is used at {of['alpha'] / of['beta']:,.0f}"
    size = critical(of)
    known = f"the critical batch size of the runs is {size:,.0f}, which in place of phi gives {ruled(of, size):,.0f} "
    known += f"and {slower(of, ruled(of, size)):.2f} times the least seconds."
    if not scales:
        return f"{begun}, phi is not bounded in a part of some training; {known}"
    scale = middle(scales)
    return (
        f"{begun}, phi is {scale:,.0f} ({min(scales):,.0f} to {max(scales):,.0f} by seed), so {ruled(of, scale):,.0f}: "
        f"{slower(of, ruled(of, scale)):.2f} times the least seconds; {known}"
    )


def figure(measured: Measured) -> alt.FacetChart:
    """Seconds over the least by batch size, a panel a table; where the rule points."""
    rows = [
        {"table": name, "size": size, "slower": seconds / min(seconds_of(of).values())}
        for name, of in measured.items()
        for size, seconds in seconds_of(of).items()
    ]
    rows += [
        {"table": name, "ruled": ruled(of, scale), "cost": slower(of, ruled(of, scale))}
        for name, of in measured.items()
        for scale in scales_of(of)
    ]
    size = alt.Scale(type="log")
    curve = (
        alt.Chart()
        .mark_line(point=True)
        .encode(
            x=alt.X("size:Q", scale=size, title="batch size"),
            y=alt.Y(
                "slower:Q", scale=alt.Scale(type="log", domain=[0.9, 12], nice=False), title="seconds over the least"
            ),
        )
    )
    points = (
        alt.Chart()
        .mark_point(color="#d55e00", filled=True, size=60, shape="diamond")
        .encode(x=alt.X("ruled:Q", scale=size), y="cost:Q")
    )
    allowed = alt.Chart().mark_rule(strokeDash=[4, 4]).encode(y=alt.datum(1.3))
    return (
        alt.layer(curve, points, allowed)
        .properties(width=210, height=150)
        .facet(facet=alt.Facet("table:N", title=None, sort=list(measured)), columns=3, data=alt.Data(values=rows))
    )


REPRODUCTION = Reproduction(
    name="goodput",
    title="Goodput: one batch size from the hardware and the noise, against brute force",
    source="Qiao et al. 2021 (Pollux, OSDI): goodput is throughput times statistical efficiency, "
    "(phi + m0) / (phi + m); its maximum for one device, sqrt(alpha phi / beta), is derived",
    claims=CLAIMS,
    budget_seconds={"smoke": 60, "small": 3600, "paper": 4 * 3600},
    smallest_effect=0.1,
    smallest_effect_reason="Two to six seeds of a size scatter by about 10 %, the noise scale by less than 30 %, which "
    "moves the size by 15 % and the seconds by less than 5 %.",
    run=run,
    compare=compare,
    figure=figure,
    caption="Seconds to the target over those of the fastest size, each size at its best rate; diamonds: where "
    "sqrt(alpha phi / beta) points, one for each training that the noise was measured on. Dashed: 30 % more.",
    notes=notes,
    seed=0,
)
