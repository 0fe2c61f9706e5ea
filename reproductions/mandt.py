"""Mandt, Hoffman and Blei 2017: constant SGD as approximate Bayesian inference, Table 1 and the averages of iterates.

Chains of SGD at the optimal rate, with the optimal diagonal and full preconditioner, and of Langevin dynamics at a
constant step, on real batches of three data sets: how far from the posterior they end. The synthetic experiment of
averages over a pass. What momentum and batch size mean together. How features were scaled the paper leaves open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import altair as alt
import numpy as np
from _mandt_chains import METHODS, averages, divergence, off, predicted, simulated, way
from _mandt_problems import SCALINGS, Regression, protein, skin, synthetic, wine

from rightbatch.errors import InputError
from rightbatch.fit.posterior import ConstantSGD
from rightbatch.means import mean_of, ratio_of_means
from rightbatch.records import Interval
from rightbatch.report import units
from rightbatch.reproduction import Claim, Comparison, Measured, Reproduction, Size, Store


@dataclass(frozen=True)
class DataSet:
    """A row of Table 1: who makes it, batch size, step of Langevin dynamics, the scaling that fits, the paper's KL."""

    make: Callable[[str], Regression]
    batch_size: int
    langevin_step: float
    scaling: str
    published: Mapping[str, float]


DATA: Mapping[str, DataSet] = {
    "wine": DataSet(
        wine, 100, 1e-3, "centred columns of length 1", {"SGD": 18.7, "SGD-d": 14.0, "SGD-f": 0.7, "SGLD": 2.9}
    ),
    "skin": DataSet(
        skin, 10_000, 1e-6, "columns of variance 1", {"SGD": 0.471, "SGD-d": 0.921, "SGD-f": 0.005, "SGLD": 0.905}
    ),
    "protein": DataSet(
        protein, 100, 1e-5, "centred columns of length 1", {"SGD": 1000.9, "SGD-d": 678.4, "SGD-f": 1.8, "SGLD": 4.5}
    ),
}
TIMES = 2.0
"""Pairs of methods that the paper separates by less are not compared."""

PLANS: Mapping[Size, Mapping[str, Any]] = {
    "smoke": {"groups": 2, "wine": (32, 2000), "iterations": 20_000, "examples": 1000},
    "small": {
        "groups": 4,
        "wine": (256, 40_000),
        "skin": (32, 4000),
        "protein": (128, 60_000),
        "iterations": 3 * 10**6,
        "examples": 10_000,
    },
    "paper": {
        "groups": 8,
        "wine": (256, 100_000),
        "skin": (64, 10_000),
        "protein": (256, 400_000),
        "iterations": 10**7,
        "examples": 10_000,
    },
}
"""Groups of chains; chains and steps of each data set; length of the synthetic experiment."""

WAYS: Mapping[str, Mapping[str, Any]] = {
    "one tenth of the rate, momentum 0.9": {"rate": 0.1, "momentum": 0.9},
    "twice the rate, twice the batch": {"rate": 2.0, "size": 2},
}
"""What should have the distribution of plain SGD: only rate / ((1 - momentum) x batch size) counts."""

AVERAGES: Mapping[str, Mapping[str, Any]] = {
    "as in the paper": {"rate": 0.005},
    "twice the rate": {"rate": 0.01},
    "four times the rate": {"rate": 0.02},
    "preconditioned": {"rate": 0.005, "scale": [0.5 + 0.2 * k for k in range(10)]},
    "batches of 10": {"rate": 0.05, "size": 10},
}
"""The synthetic experiment (rate 0.005, single examples), and what should not change the averages."""


# ------------------------------------------------------------------------------------------------- what is claimed


def pairs(published: Mapping[str, float]) -> list[tuple[str, str]]:
    """Methods that the paper separates: (the worse, the better)."""
    return [(a, b) for a in METHODS for b in METHODS if published[a] > TIMES * published[b]]


def order_claim(name: str, worse: str, better: str) -> Claim:
    """That the order is theirs, by whatever factor."""
    published = DATA[name].published[worse] / DATA[name].published[better]
    return Claim(
        identifier=f"{name}: {worse} / {better}",
        sentence=f"{name}: {worse} is further from the posterior than {better} (KL divided by KL, above 1)",
        published=published,
        tolerance=1 - 1 / published,
        relation="at least",
        known_by="read in the paper",
        from_size="smoke" if name == "wine" and better == "SGD-f" and worse != "SGLD" else "small",
    )


derived = partial(Claim, known_by="derived", from_size="small")

CLAIMS = (
    *(order_claim(name, worse, better) for name, one in DATA.items() for worse, better in pairs(one.published)),
    *(
        derived(
            f"covariance {method}",
            f"wine, {method}: by how much the covariance is off the predicted one (relative Frobenius norm)",
            published=0.0,
            tolerance=0.0,
            slack=0.1,
        )
        for method in METHODS
    ),
    *(
        derived(
            f"invariance {name}",
            f"wine, {name}: by how much the covariance is off that of plain SGD",
            published=0.0,
            tolerance=0.0,
            slack=0.1,
        )
        for name in WAYS
    ),
    derived(
        "iterates",
        "synthetic: variance of the iterates over the posterior's, N rate / (2 S)",
        published=25.0,
        tolerance=0.1,
    ),
    *(
        derived(
            f"averages {name}",
            f"synthetic, {name}: variance of averages over a pass over the posterior's (equation 34)",
            published=0.98 if how["rate"] == 0.005 else 1.0,
            tolerance=0.2,
        )
        for name, how in AVERAGES.items()
    ),
)


# ------------------------------------------------------------------------------------------------ what is measured


@cache
def problem(name: str) -> Regression:
    """A data set in the scaling that fits."""
    return DATA[name].make(DATA[name].scaling)


def run(size: Size, store: Store) -> Measured:
    """Table 1, then (but for smoke) invariances and averages; every group of chains by itself."""
    plan = PLANS[size]
    table = {
        name: {
            method: [
                store.unit(f"{name}, {method}, {group}", partial(of_table, plan, name, method, group))
                for group in range(plan["groups"])
            ]
            for method in METHODS
        }
        for name in DATA
        if name in plan
    }
    measured: dict[str, Any] = {"table": table}
    if size == "smoke":
        return measured
    measured["ways"] = {
        name: [
            store.unit(f"wine, {name}, {group}", partial(of_way, plan, name, group)) for group in range(plan["groups"])
        ]
        for name in WAYS
    }
    measured["averages"] = {
        name: store.unit(f"averages, {name}", partial(of_averages, plan, name)) for name in AVERAGES
    }
    measured["readings"] = {name: store.unit(f"readings, {name}", partial(readings, name)) for name in DATA}
    return measured


def of_table(plan: Mapping[str, Any], name: str, method: str, group: int) -> dict[str, Any]:
    """KL, the predicted KL, and how far the covariance is off, of one group of chains."""
    one, (chains, steps) = DATA[name], plan[name]
    sgd = way(problem(name), method, one.batch_size, one.langevin_step)
    noise = one.langevin_step if method == "SGLD" else 0.0
    moments = simulated(problem(name), sgd, steps=steps, chains=chains, seed=group, langevin_step=noise)
    truth = predicted(problem(name), method, sgd, one.langevin_step)
    return {
        "kl": divergence(problem(name), moments),
        "predicted": divergence(problem(name), truth),
        "off": off(moments, truth),
        "moments": moments.tolist(),
    }


def of_way(plan: Mapping[str, Any], name: str, group: int) -> list[list[float]]:
    """The covariance of SGD at another rate, batch size and momentum."""
    how, (chains, steps), one = WAYS[name], plan["wine"], DATA["wine"]
    plain = way(problem("wine"), "SGD", one.batch_size, one.langevin_step)
    other = ConstantSGD(
        plain.learning_rate * how["rate"], plain.batch_size * how.get("size", 1), how.get("momentum", 0.0)
    )
    found: list[list[float]] = simulated(problem("wine"), other, steps=steps, chains=chains, seed=100 + group).tolist()
    return found


def of_averages(plan: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One chain of the synthetic experiment, means over N / S steps."""
    how, examples = AVERAGES[name], plan["examples"]
    size = how.get("size", 1)
    return averages(
        synthetic(examples),
        rate=how["rate"],
        batch_size=size,
        window=examples // size,
        steps=plan["iterations"] // size,
        seed=0,
        scale=np.array(how["scale"]) if "scale" in how else None,
    )


def readings(name: str) -> dict[str, dict[str, float | None]]:
    """The predicted KL of each method by every reading of the scaling; none where the steps are not stable."""
    found: dict[str, dict[str, float | None]] = {}
    for scaling in SCALINGS:
        one = DATA[name]
        made, found[scaling] = one.make(scaling), {}
        for method in METHODS:
            try:
                sgd = way(made, method, one.batch_size, one.langevin_step)
                found[scaling][method] = divergence(made, predicted(made, method, sgd, one.langevin_step))
            except InputError:
                found[scaling][method] = None
    return found


# --------------------------------------------------------------------------------------------- what came of it


def compare(measured: Measured) -> tuple[Comparison, ...]:
    """Every claim with the 95 % interval over groups of chains, or over means."""
    table = measured["table"]

    def kl(name: str, method: str) -> list[float]:
        return [one["kl"] for one in table[name][method]]

    found: dict[str, Interval | None] = {
        f"{name}: {worse} / {better}": ratio_of_means(kl(name, worse), kl(name, better))
        for name in table
        for worse, better in pairs(DATA[name].published)
    }
    if "ways" in measured:
        plain = np.array([one["moments"] for one in table["wine"]["SGD"]])
        found |= {f"covariance {method}": mean_of([one["off"] for one in table["wine"][method]]) for method in METHODS}
        found |= {
            f"invariance {name}": mean_of([off(np.array(a), b) for a, b in zip(others, plain, strict=True)])
            for name, others in measured["ways"].items()
        }
        found["iterates"] = same(measured["averages"]["as in the paper"]["iterates"])
        found |= {f"averages {name}": mean_of(one["means"]) for name, one in measured["averages"].items()}
    claims = {claim.identifier: claim for claim in CLAIMS}
    return tuple(
        claims[name].judge(interval)
        for name, interval in found.items()
        if interval is not None and ("ways" in measured or claims[name].from_size == "smoke")
    )


def same(value: float) -> Interval:
    """A mean over so many iterates that its interval is as good as none."""
    return Interval(value, value, value, 0.95)


def notes(measured: Measured) -> tuple[str, ...]:
    """Table 1 side by side, and by every reading of the scaling."""
    said = [
        f"{name}, {method}: KL {units.interval(mean_of([one['kl'] for one in of_method]))}, predicted "
        f"{units.significant(of_method[0]['predicted'])}; the paper {DATA[name].published[method]:g}."
        for name, methods in measured["table"].items()
        for method, of_method in methods.items()
    ]
    if "averages" in measured:
        said.append(
            "synthetic: iterates make noise of their own, which the theory leaves out. With d normal features and "
            "single examples their variance is s = rate / (2 - rate (d + 2)) and the noise 1 + (d + 1) s times: "
            + ", ".join(f"{own_noise(rate):.3f} at rate {rate:g}" for rate in (0.005, 0.01, 0.02))
            + "."
        )
    for name, by_scaling in measured.get("readings", {}).items():
        one = DATA[name]
        for scaling, kl in by_scaling.items():
            values = ", ".join(
                f"{method} {'not stable' if value is None else units.significant(value)}"
                for method, value in kl.items()
            )
            held = sum(
                kl[worse] is not None and kl[better] is not None and kl[worse] > kl[better]  # type: ignore[operator]
                for worse, better in pairs(one.published)
            )
            taken = " (taken)" if scaling == one.scaling else ""
            said.append(
                f"{name}, {scaling}{taken}: predicted {values}; {held} of {len(pairs(one.published))} pairs in the "
                f"paper's order."
            )
    return tuple(said)


def own_noise(rate: float, size: int = 10) -> float:
    """By how much the iterates of the synthetic experiment increase the noise: S = 1, features normal."""
    return 1 + (size + 1) * rate / (2 - rate * (size + 2))


def figure(measured: Measured) -> alt.FacetChart:
    """KL of every method: the paper's and ours."""
    rows = [
        {"data": name, "method": method, "KL": value, "of": of}
        for name, methods in measured["table"].items()
        for method, groups in methods.items()
        for of, value in (
            ("measured here", sum(one["kl"] for one in groups) / len(groups)),
            ("predicted here", groups[0]["predicted"]),
            ("published", DATA[name].published[method]),
        )
    ]
    points = (
        alt.Chart()
        .mark_point(size=80, strokeWidth=2)
        .encode(
            x=alt.X("KL:Q", scale=alt.Scale(type="log"), title="KL divergence to the posterior, nats"),
            y=alt.Y("method:N", sort=list(METHODS), title=None),
            color=alt.Color("of:N", title=None, scale=alt.Scale(range=["#0072b2", "#56b4e9", "#d55e00"])),
            shape=alt.Shape("of:N", title=None),
        )
        .properties(width=560, height=110)
    )
    return points.facet(row=alt.Row("data:N", title=None), data=alt.Data(values=rows))


REPRODUCTION = Reproduction(
    name="mandt",
    title="Constant SGD as approximate Bayesian inference",
    source="Mandt, Hoffman and Blei 2017, Stochastic Gradient Descent as Approximate Bayesian Inference (JMLR 18(134), "
    "arXiv:1704.04289): table 1, figure 5, equations 15, 17, 25 and 34",
    claims=CLAIMS,
    budget_seconds={"smoke": 120, "small": 3 * 3600, "paper": 48 * 3600},
    smallest_effect=0.1,
    smallest_effect_reason="Covariances are of some thousand independent draws a group: they scatter by 5 % and less, "
    "and their KL by as much as 0.05 nats.",
    run=run,
    compare=compare,
    figure=figure,
    caption="How far the iterates of each method end from the posterior; chains on real batches, begun at draws of the "
    "posterior.",
    notes=notes,
    seed=0,
)
