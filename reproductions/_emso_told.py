"""What `emso.py` tells: its claims, the costs of a stated model, the figure, and what is worth knowing beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from rightbatch.means import mean_of, ratio_of_means
from rightbatch.records import Interval
from rightbatch.report import units
from rightbatch.reproduction import Claim, Comparison, Measured, held

CHEAP, DEAR = "gradient evaluations", "dear batches"
OVERHEADS = (0.0, 1e3, 1e4, 1e5, 1e6)
"""What a batch costs by itself (a message, a seek), in gradients of one example."""

READING = (0.0, 100.0)
"""What an example costs to be read, in its gradients."""

INNER = {"SGD": 1, "EMSO, 5 steps": 5, "EMSO, 20 steps": 20}


def slopes(examples: Sequence[int], above: Sequence[Sequence[float]]) -> list[float]:
    """Of each seed: by which power of the examples it comes nearer to the least loss."""
    logs = np.log(np.asarray(above))
    return [float(np.polyfit(np.log(examples), logs[:, seed], 1)[0]) for seed in range(logs.shape[1])]


def values(of: Mapping[str, Any], method: str, size: int, objective: str = "examples") -> list[float]:
    """The numbers of the seeds; none where one of them diverged, missed, or nothing could be tuned."""
    found = of["methods"][method][str(size)]["measured"].get(objective, [])
    return [] if None in found else list(found)


def ratio(upper: Sequence[float], lower: Sequence[float]) -> Interval | None:
    """Of means over seeds; None where one of them has no number."""
    return ratio_of_means(upper, lower) if upper and lower else None


# ------------------------------------------------------------------------------------------------------- the costs


def cost(method: str, size: float, steps: float, overhead: float, reading: float) -> float:
    """In gradients of one example: so many steps, each of a batch that is read once and looked at several times."""
    return steps * (overhead + size * (reading + INNER[method]))


def cheapest(of: Mapping[str, Any], methods: Sequence[str], overhead: float, reading: float) -> tuple[str, int] | None:
    """Method and batch size of the least cost to the target, by the seeds that everything was tuned on."""
    tried = {
        (method, int(size)): cost(method, int(size), one["tuned"]["target"]["score"], overhead, reading)
        for method in methods
        for size, one in of["methods"][method].items()
        if "target" in one["tuned"] and values(of, method, int(size), "target")
    }
    return min(tried, key=lambda one: tried[one]) if tried else None


def costs(of: Mapping[str, Any], overhead: float, reading: float) -> tuple[Interval, tuple[str, int], int] | None:
    """Cost to the target, EMSO over SGD, each at its best; and where that is."""
    emso = cheapest(of, [method for method in INNER if method != "SGD"], overhead, reading)
    sgd = cheapest(of, ["SGD"], overhead, reading)
    if emso is None or sgd is None:
        return None
    upper, lower = (
        [cost(*one, steps, overhead, reading) for steps in values(of, *one, "target")] for one in (emso, sgd)
    )
    return ratio_of_means(upper, lower), emso, sgd[1]


# ------------------------------------------------------------------------------------------------- what came of it


def compare(claims: Sequence[Claim], measured: Measured) -> tuple[Comparison, ...]:
    """Every claim that was measured, with its 95 % interval over seeds."""
    found: dict[str, Interval | None] = {}
    for name, by_size in measured["slopes"].items():
        ends = [slopes(measured["examples"], by_size[size]) for size in (min(by_size, key=int), max(by_size, key=int))]
        # The same examples in the same order, cut into batches: seed by seed.
        found[name] = mean_of([large - small for small, large in zip(*ends, strict=True)])
    for data, of in measured["data"].items():
        solved = of["solved"]["above"]
        found[f"{data}: level"] = ratio(solved["4096"], solved["16"])
        found[f"{data}: SGD"] = ratio(values(of, "SGD", 4096), values(of, "SGD", 16))
        found[f"{data}: proximal term"] = ratio(
            values(of, "20 steps, no proximal term", 16), values(of, "EMSO, 20 steps", 16)
        )
        found[f"{data}: workers"] = ratio(values(of, "four workers", 1024), values(of, "EMSO, 20 steps", 4096))
        found[f"{data}: equal evaluations"] = ratio(
            values(of, "EMSO, 20 steps", 4096), values(of, "SGD", 4096, "evaluations")
        )
        for name, overhead in ((CHEAP, 0.0), (DEAR, 1e6)):
            told = costs(of, overhead, 0.0)
            found[f"{data}: {name}"] = told[0] if told else None
    return held(claims, found)


def notes(measured: Measured) -> tuple[str, ...]:
    """Levels of all methods, what a batch may cost, and what was tuned."""
    said = [
        f"{name}: slope "
        + ", ".join(
            f"{units.interval(mean_of(slopes(measured['examples'], above)))} at {size}"
            for size, above in by_size.items()
        )
        + "."
        for name, by_size in measured["slopes"].items()
    ]
    for data, of in measured["data"].items():
        said += [*levels(data, of), *priced(data, of), *chosen(data, of)]
    return tuple(said)


def levels(data: str, of: Mapping[str, Any]) -> list[str]:
    """Above the least loss after equal examples, a line a method."""
    rows = {"EMSO solved": {size: list(above) for size, above in of["solved"]["above"].items()}} | {
        method: {size: values(of, method, int(size)) for size in by_size} for method, by_size in of["methods"].items()
    }
    return [
        f"{data}, {method}, loss above the least one: "
        + ", ".join(
            f"{units.interval(mean_of(above)) if above else 'diverged'} at {size}" for size, above in by_size.items()
        )
        + "."
        for method, by_size in rows.items()
    ]


def priced(data: str, of: Mapping[str, Any]) -> list[str]:
    """The verdict by what a batch costs: where EMSO wins, and where it does not."""
    said = []
    for reading in READING:
        parts = []
        for overhead in OVERHEADS:
            told = costs(of, overhead, reading)
            if told is None:
                parts.append(f"{overhead:,.0f}: not reached")
                continue
            found, (method, size), other = told
            parts.append(f"{overhead:,.0f}: {units.interval(found)} ({method}, {size}; SGD {other})")
        said.append(
            f"{data}, cost to the target, EMSO over SGD, reading an example costs {reading:g} gradients, a batch by "
            f"itself costs " + "; ".join(parts) + "."
        )
    even = breaks_even(of)
    said.append(
        f"{data}: a gradient of one example took {units.significant(1e9 * of['gradient_seconds'])} ns here. "
        + (
            f"EMSO is ahead for sure once a batch by itself costs more than {even:,.0f} of them, "
            f"{units.significant(1e3 * even * of['gradient_seconds'])} ms."
            if even is not None
            else "At no cost of a batch up to ten million of them EMSO is ahead for sure."
        )
    )
    return said


def breaks_even(of: Mapping[str, Any]) -> float | None:
    """From which cost of a batch on the whole interval of the ratio is below 1."""
    found = None
    for overhead in (10 ** (k / 4) for k in range(28, -1, -1)):
        told = costs(of, overhead, 0.0)
        if told is None or told[0].high is None or told[0].high >= 1:
            return found
        found = overhead
    return found


def chosen(data: str, of: Mapping[str, Any]) -> list[str]:
    """The proximal weight that is best at each size, and what was tuned to the edge of what was tried."""
    edges = [
        f"{method} at {size}"
        for method, by_size in of["methods"].items()
        for size, one in by_size.items()
        if one["tuned"].get("examples", {}).get("at_edge")
    ]
    bold = {size: one["tuned"]["examples"]["boldness"] for size, one in of["methods"]["EMSO, 20 steps"].items()}
    said = [
        f"{data}, EMSO with 20 steps, best smoothness over gamma: "
        + ", ".join(f"{value:g} at {size}" for size, value in bold.items())
        + "; the published schedule is in proportion to the batch size."
    ]
    if edges:
        said.append(f"{data}, best at the edge of what was tried: {', '.join(edges)}.")
    return said


def figure(measured: Measured) -> alt.Chart | alt.FacetChart:
    """Loss above the least one by batch size, a panel a data set; for smoke the slopes."""
    if not measured["data"]:
        rows = [
            {"size": int(size), "slope": slope, "what": name}
            for name, by_size in measured["slopes"].items()
            for size, above in by_size.items()
            for slope in slopes(measured["examples"], above)
        ]
        return (
            alt.Chart(alt.Data(values=rows))
            .mark_point()
            .encode(
                x=alt.X("size:Q", scale=alt.Scale(type="log"), title="batch size"),
                y=alt.Y("slope:Q", title="slope of the loss in examples"),
                color=alt.Color("what:N", title=None),
            )
            .properties(width=480, height=240)
        )
    rows = []
    for data, of in measured["data"].items():
        drawn = {"EMSO solved": {size: list(above) for size, above in of["solved"]["above"].items()}} | {
            method: {size: values(of, method, int(size)) for size in of["methods"][method]}
            for method in ("SGD", "EMSO, 5 steps", "EMSO, 20 steps", "20 steps, no proximal term")
        }
        for method, by_size in drawn.items():
            for size, above in by_size.items():
                if (found := mean_of(above)) is not None:
                    rows.append(
                        {"data": data, "method": method, "size": int(size), "above": found.estimate}
                        | {"low": max(found.low or 0, found.estimate / 10), "high": found.high}
                    )
    base = alt.Chart().encode(
        x=alt.X("size:Q", scale=alt.Scale(type="log"), title="batch size"),
        color=alt.Color(
            "method:N", title=None, scale=alt.Scale(range=["#0072b2", "#56b4e9", "#009e73", "#d55e00", "#cc79a7"])
        ),
    )
    above = alt.Y("above:Q", scale=alt.Scale(type="log"), title="loss above the least one", axis=alt.Axis(format=".0e"))
    layers = alt.layer(
        base.mark_line().encode(y=above),
        base.mark_point(filled=True, size=50).encode(y=above, shape=alt.Shape("method:N", title=None)),
        base.mark_rule().encode(y=alt.Y("low:Q"), y2="high:Q"),
    ).properties(width=560, height=200)
    return layers.facet(row=alt.Row("data:N", title=None, sort=list(measured["data"])), data=alt.Data(values=rows))
