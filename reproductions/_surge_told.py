"""What `surge.py` tells: best rates from what was drawn and run, their intervals, the notes and the figure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from _surge_model import quadratic
from numpy.typing import NDArray

from rightbatch.records import Interval
from rightbatch.report import units
from rightbatch.reproduction import Claim, Comparison, Measured
from rightbatch.rules.learning_rate import surge as law

Array = NDArray[np.float64]

BOOTSTRAPS = 1000
TOLD = 1e-8
"""Least rate: a size at which drawn signs do not help for sure has none that could be told."""

ROOT = (4, 64)
"""Between these sizes the best rate should grow with the root of the batch size: noise rules the signs."""


# ------------------------------------------------------------------------------------------------- the quadratic


def of_quadratic(exact: Mapping[str, Any], drawn: Mapping[str, float]) -> dict[str, float]:
    """What is claimed of it: nothing but numbers."""
    sizes, coupled, scale = np.array(exact["sizes"]), np.array(exact["coupled"]), exact["noise_scale"]
    coupling = quadratic(exact["coupling"])
    within = sizes <= 4 * scale
    return {
        "formula": furthest([rate / coupling.best_rate(float(b)) for b, rate in drawn.items()]),
        "peak": peak(sizes, coupled) / scale,
        "law": furthest(
            [rate / law(coupled.max(), scale, b) for b, rate in zip(sizes[within], coupled[within], strict=True)]
        ),
        "falls": float(coupled[-1] / coupled.max()),
        "saturates": float(coupled[-1] / exact["without_noise"]),
        "diagonal": least_growth(exact["diagonal"]),
        "SGD": least_growth(exact["SGD"]),
    }


def furthest(ratios: Sequence[float]) -> float:
    """The ratio that is furthest from 1."""
    return float(max(ratios, key=lambda ratio: abs(math.log(ratio))))


def peak(sizes: Array, rates: Array) -> float:
    """The size of the largest rate: the top of a parabola in logarithms."""
    k = int(np.clip(np.argmax(rates), 1, len(rates) - 2))
    a, b, c = np.log(rates[k - 1 : k + 2])
    return float(sizes[k] * (sizes[1] / sizes[0]) ** (0.5 * (a - c) / (a - 2 * b + c)))


def least_growth(rates: Sequence[float]) -> float:
    """From one size to the next."""
    return min(after / before for before, after in itertools.pairwise(rates))


# --------------------------------------------------------------------------------------------------- the network


def resampled(values: Array, generator: np.random.Generator, draw: int) -> Array:
    """Along the first axis as they are for draw 0, else drawn anew."""
    return values if draw == 0 else values[generator.integers(len(values), size=len(values))]


def of_parabolas(drawn: Mapping[str, Mapping[str, Sequence[float]]]) -> Array:
    """Best rates of one step, `[draws, sizes]`, from s'mu and s'Hs: the first row of them as they were drawn."""
    generator = np.random.default_rng(1)
    arrays = [(np.array(one["helps"]), np.array(one["bends"])) for one in drawn.values()]
    return np.array(
        [
            [
                max(resampled(helps, generator, draw).mean(), 1e-12) / resampled(bends, generator, draw).mean()
                for helps, bends in arrays
            ]
            for draw in range(BOOTSTRAPS + 1)
        ]
    )


def of_losses(lowered: Mapping[str, Sequence[Sequence[float]]], rates: Sequence[float]) -> Array:
    """Best rates, `[draws, sizes]`, from how much lower losses were, `[trainings, rates]` for each size."""
    generator = np.random.default_rng(0)
    arrays = [np.array(one) for one in lowered.values()]
    return np.array(
        [[top(resampled(one, generator, draw).mean(axis=0), rates) for one in arrays] for draw in range(BOOTSTRAPS + 1)]
    )


def top(lowered: Array, rates: Sequence[float]) -> float:
    """The rate that lowers most: the top of a parabola through three rates, in the logarithm."""
    k = int(np.clip(np.argmax(lowered), 1, len(rates) - 2))
    a, b, c = lowered[k - 1 : k + 2]
    shift = 0.5 * (a - c) / (a - 2 * b + c) if a - 2 * b + c < 0 else 0.0
    return float(rates[k] * (rates[1] / rates[0]) ** np.clip(shift, -1, 1))


def interval(values: Array) -> Interval:
    """The first, and 95 % of the others."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Interval(float(values[0]), float(min(low, values[0])), float(max(high, values[0])))


def of_network(measured: Measured) -> dict[str, Interval]:
    """What is claimed of it, with 95 % intervals over what was drawn."""
    parabolas = of_parabolas(measured["second order"])
    sizes = np.array([int(b) for b in measured["second order"]])
    predicted = np.array([measured["predicted"]["rates"][str(b)] for b in sizes])
    small, told = (sizes >= ROOT[0]) & (sizes <= ROOT[1]), np.percentile(parabolas, 2.5, axis=0) > TOLD
    one, ten = (of_losses(measured[steps], measured["rates"]) for steps in ("one step", "ten steps"))
    stepped = [list(measured["second order"]).index(b) for b in measured["one step"]]
    return {
        "root": interval(np.polyfit(np.log(sizes[small]), np.log(parabolas[:, small]).T, 1)[0]),
        "surge": interval(parabolas.max(axis=1) / parabolas[:, -1]),
        "surge, ten steps": interval(ten.max(axis=1) / ten[:, -1]),
        "independent": interval(np.exp(np.log(parabolas / predicted)[:, told].mean(axis=1))),
        "parabola": interval(np.exp(np.log(one / parabolas[:, stepped]).mean(axis=1))),
    }


# -------------------------------------------------------------------------------------------------- all of it


def compare(claims: Sequence[Claim], measured: Measured) -> tuple[Comparison, ...]:
    """The quadratic by its numbers, the network with intervals."""
    numbers = of_quadratic(measured["exact"], measured["drawn"])
    intervals = of_network(measured) if "predicted" in measured else {}
    return tuple(
        claim.compare(numbers[claim.identifier], 0.0)
        if claim.identifier in numbers
        else claim.judge(intervals[claim.identifier])
        for claim in claims
        if claim.identifier in {*numbers, *intervals}
    )


def notes(measured: Measured) -> tuple[str, ...]:
    """The numbers, and what explains them."""
    exact = measured["exact"]
    said = [
        f"Quadratic: B_noise by equation 14 is {units.significant(exact['noise_scale'])}, the best rate is largest at "
        f"{units.significant(peak(np.array(exact['sizes']), np.array(exact['coupled'])))}."
    ]
    if "predicted" not in measured:
        return tuple(said)
    of, second = measured["predicted"], measured["second order"]
    where = f"would be at {units.significant(of['noise_scale'])}" if of["noise_scale"] else "would not be"
    bends = ", ".join(f"{units.significant(float(np.mean(one['bends'])))} at {b}" for b, one in second.items())
    rows = {
        "one step on a parabola": dict(zip(second, map(interval, of_parabolas(second).T), strict=True)),
        "one step by the loss": losses_of(measured, "one step"),
        "ten steps by the loss": losses_of(measured, "ten steps"),
    }
    return (
        *said,
        f"Network: with independent entries the peak {where}, and s'Hs would be between the trace of the Hessian, "
        f"{units.significant(of['trace'])}, and {units.significant(of['bends_without_noise'])} without noise. "
        f"Drawn, it is {bends}. Entries of a gradient of this network go together, along directions in which the loss "
        "bends most: what noise adds to the curvature of a step is not small, as the theory has it.",
        *(
            f"Network, {what}, best rate: "
            + ", ".join(
                f"{units.interval(one) if (one.low or 0) > TOLD else 'not told'} at {b}" for b, one in row.items()
            )
            + "."
            for what, row in rows.items()
        ),
        "Network, with independent entries, best rate: "
        + ", ".join(f"{units.significant(rate)} at {b}" for b, rate in of["rates"].items())
        + ".",
        "The paper steps with Adam, whose averages of earlier gradients go on; here a step has the signs of its own "
        "batch alone, which is what the theory is of. Its network is another, and its batches are of 1 to 12 and of 64 "
        "to 1164.",
    )


def losses_of(measured: Measured, steps: str) -> dict[str, Interval]:
    """Best rates by size."""
    found = of_losses(measured[steps], measured["rates"])
    return dict(zip(measured[steps], map(interval, found.T), strict=True))


def figure(measured: Measured) -> alt.HConcatChart | alt.LayerChart:
    """Best rates by batch size: on the quadratic, and on the network."""
    exact = measured["exact"]
    names = {"coupled": "sign descent, coupled", "diagonal": "sign descent, diagonal", "SGD": "SGD, coupled"}
    lines = [
        {"size": b, "rate": rate, "what": what}
        for name, what in names.items()
        for b, rate in zip(exact["sizes"], exact[name], strict=True)
    ]
    points = [{"size": int(b), "rate": rate} for b, rate in measured["drawn"].items()]
    x = alt.X("size:Q", scale=alt.Scale(type="log"), title="batch size", axis=alt.Axis(format="~s"))
    y = alt.Y("rate:Q", scale=alt.Scale(type="log"), title="best rate", axis=alt.Axis(format="~e"))
    left = alt.layer(
        alt.Chart(alt.Data(values=lines)).mark_line().encode(x=x, y=y, color=alt.Color("what:N", title="quadratic")),
        alt.Chart(alt.Data(values=points)).mark_point(color="black").encode(x=x, y=y),
    ).properties(width=240, height=240)
    if "predicted" not in measured:
        return left
    second = measured["second order"]
    found = {
        "one step, parabola": dict(zip(second, map(interval, of_parabolas(second).T), strict=True)),
        "one step": losses_of(measured, "one step"),
        "ten steps": losses_of(measured, "ten steps"),
        "one step, independent": {b: Interval(rate, rate, rate) for b, rate in measured["predicted"]["rates"].items()},
    }
    rows = [
        {"size": int(b), "rate": one.estimate, "low": one.low, "high": one.high, "what": what}
        for what, by_size in found.items()
        for b, one in by_size.items()
        if (one.low or 0) > TOLD
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, color=alt.Color("what:N", title="network", sort=list(found)))
    right = alt.layer(
        base.mark_line(point=True).encode(y=y), base.mark_rule().encode(y=alt.Y("low:Q"), y2="high:Q")
    ).properties(width=240, height=240)
    return alt.hconcat(left, right).resolve_scale(color="independent")
