"""MLPerf's reference convergence points: does the law of two terms predict the largest batch from the smaller ones?

Of every distinct curve all but the largest batch is fitted, and the largest predicted, with an interval. How wide that
is the curve's own smaller sizes say, predicted one after the other, and those of the other benchmarks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import altair as alt
import numpy as np
import scipy
from _mlperf_curves import Curve, distinct, families, read
from _mlperf_files import files

from rightbatch.fit.larger_batch import FEWEST, errors_ahead, fit_line, pool, predict_larger
from rightbatch.report import units
from rightbatch.reproduction import Claim, Comparison, Measured, Reproduction, Size, Store

LEVEL = 0.9
MANY, NEAR = 4, 2.0
"""The 90th percentile is of curves with so many earlier sizes, predicted at most so many times as far."""

derived = partial(Claim, known_by="derived", tolerance=0.0)
CLAIMS = (
    derived(
        "median error",
        "The largest batch of each distinct curve, predicted from the smaller ones: median relative error of examples",
        published=0.05,
        relation="at most",
    ),
    derived(
        "90th percentile",
        f"The 90th percentile of it, where {MANY} or more sizes are known and the largest is at most {NEAR:g} times "
        "the one before",
        published=0.12,
        relation="at most",
    ),
    derived(
        "coverage",
        f"The {LEVEL:.0%} intervals hold the largest batch as often as they say: exact binomial p-value",
        published=0.05,
        relation="at least",
    ),
)


def run(size: Size, store: Store) -> Measured:
    """The same at each size: everything there is."""
    everything = read(files())
    curves = distinct(everything)
    numbers = families(curves)
    of_curves = [
        store.unit(f"{curve.benchmark}, {curve.round}, {curve.sizes[-1]}", partial(predict, curves, numbers, i))
        for i, curve in enumerate(curves)
    ]
    return {"read": len(everything), "curves": of_curves}


def predict(curves: Sequence[Curve], numbers: Sequence[int], chosen: int) -> dict[str, Any]:
    """One curve: what is known, and its largest batch as predicted. The misfit is that of other benchmarks."""
    curve = curves[chosen]
    sizes, means = curve.sizes, curve.means
    found: dict[str, Any] = {
        "benchmark": curve.benchmark,
        "round": curve.round,
        "sizes": sizes,
        "means": means,
        "runs": [len(runs) for runs in curve.runs.values()],
        "left_out": curve.left_out,
    }
    if len(sizes) <= FEWEST:
        return found
    others = [c for c, number in zip(curves, numbers, strict=True) if number != numbers[chosen]]
    misfit = pool(errors_ahead(other.sizes, other.means) for other in others)
    line, interval = fit_line(sizes[:-1], means[:-1]), predict_larger(sizes[:-1], means[:-1], sizes[-1], misfit, LEVEL)
    critical = line.minimum_examples / line.minimum_steps if line.minimum_steps else None
    return found | {
        "predicted": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "critical_batch_size": critical,
        "misfit": [misfit.deviation, misfit.freedom],
    }


# --------------------------------------------------------------------------------------------- what came of it


def predicted(measured: Measured) -> list[dict[str, Any]]:
    """The curves that could be."""
    return [one for one in measured["curves"] if "predicted" in one]


def error(one: dict[str, Any], predicted: float | None = None) -> float:
    """Relative, of what was predicted."""
    return float((one["predicted"] if predicted is None else predicted) / one["means"][-1] - 1)


def close(one: dict[str, Any]) -> bool:
    """Whether enough is known, and it is not far."""
    sizes = one["sizes"]
    return len(sizes) > MANY and sizes[-1] <= NEAR * sizes[-2]


def held(one: dict[str, Any]) -> bool:
    """Whether the interval has the largest batch."""
    return bool(one["low"] <= one["means"][-1] <= one["high"])


def compare(measured: Measured) -> tuple[Comparison, ...]:
    """Statements of these curves, which are all that there are."""
    curves = predicted(measured)
    off = [abs(error(one)) for one in curves]
    holding = sum(map(held, curves))
    values = {
        "median error": float(np.median(off)),
        "90th percentile": float(np.percentile([abs(error(one)) for one in curves if close(one)], 90)),
        "coverage": float(scipy.stats.binomtest(holding, len(curves), LEVEL).pvalue),
    }
    return tuple(claim.compare(values[claim.identifier], 0.0) for claim in CLAIMS)


def notes(measured: Measured) -> tuple[str, ...]:
    """How sure that is, what simpler predictions give, and every curve."""
    curves = predicted(measured)
    off = np.array([abs(error(one)) for one in curves])
    drawn = np.random.default_rng(0).choice(off, (10_000, len(off)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    widths = [math.sqrt(one["high"] / one["low"]) - 1 for one in curves]
    return (
        f"{measured['read']} curves were read, {len(measured['curves'])} of them distinct; {len(curves)} have a batch "
        f"size to predict and {FEWEST} or more before it. Left out because more than three times off the median "
        f"of their batch size: {sum(one['left_out'] for one in curves)} of {sum(sum(one['runs']) for one in curves)} "
        "runs.",
        f"Drawing curves anew, the median error is between {low:.1%} and {high:.1%}.",
        f"{sum(map(held, curves))} of {len(curves)} intervals hold the largest batch; half of them are narrower than "
        f"{np.median(widths):.0%} either way.",
        f"Simpler predictions, median error: as many examples as at the size before {simpler(curves, 1):.1%}, "
        f"the line through the two sizes before {simpler(curves, 2):.1%}.",
        *(said(one) for one in measured["curves"]),
    )


def simpler(curves: Sequence[dict[str, Any]], sizes: int) -> float:
    """The median error of what the last `sizes` sizes, one or two, say by themselves."""
    off = []
    for one in curves:
        b, examples = one["sizes"][-1 - sizes : -1], one["means"][-1 - sizes : -1]
        slope = (examples[-1] - examples[0]) / (b[-1] - b[0]) if sizes == 2 else 0.0
        off.append(abs(error(one, examples[-1] + slope * (one["sizes"][-1] - b[-1]))))
    return float(np.median(off))


def said(one: dict[str, Any]) -> str:
    """One curve in a line."""
    name = f"{one['benchmark']} ({one['round']}), {len(one['sizes'])} sizes up to {one['sizes'][-1]:,}"
    if "predicted" not in one:
        return f"{name}: cannot predict, fewer than {FEWEST} sizes are known before the largest."
    predicted, low, high = (units.significant(one[key]) for key in ("predicted", "low", "high"))
    return (
        f"{name}: {predicted} ({low} to {high}) predicted, {units.significant(one['means'][-1])} measured, "
        f"{error(one):+.1%}."
    )


def figure(measured: Measured) -> alt.LayerChart:
    """Predicted over measured, with the interval, by curve."""
    rows = [
        {
            "curve": f"{one['benchmark']} {one['round'].removeprefix('training_')} at {one['sizes'][-1]:,}",
            **{key: one[key] / one["means"][-1] for key in ("predicted", "low", "high")},
            "known": str(min(len(one["sizes"]) - 1, MANY)) + (" or more" if len(one["sizes"]) > MANY else ""),
        }
        for one in sorted(predicted(measured), key=error)
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("curve:N", sort=None, title=None))
    ratio = alt.Scale(type="log", domain=[0.5, 2], nice=False)
    return alt.layer(
        alt.Chart(alt.Data(values=[{"one": 1}])).mark_rule(strokeDash=[4, 4]).encode(x="one:Q"),
        base.mark_rule(clip=True).encode(x=alt.X("low:Q", scale=ratio, title="predicted over measured"), x2="high:Q"),
        base.mark_point(filled=True, size=60).encode(
            x=alt.X("predicted:Q", scale=ratio), color=alt.Color("known:N", title="sizes known")
        ),
    ).properties(width=480)


REPRODUCTION = Reproduction(
    name="mlperf",
    title="MLPerf's reference points: the largest batch predicted from the smaller ones",
    source="MLCommons, reference convergence points of MLPerf Training 1.0 to 4.1 and MLPerf HPC 1.0 to 3.0 "
    "(github.com/mlcommons/logging); the law is McCandlish et al. 2018 (arXiv:1812.06162), equation 2.11",
    claims=CLAIMS,
    budget_seconds={"smoke": 60, "small": 60, "paper": 60},
    smallest_effect=0.0,
    smallest_effect_reason="The claims are statements of these curves, which are counted and not drawn; how far that "
    "goes for others is said beside them.",
    run=run,
    compare=compare,
    figure=figure,
    caption="Examples (or epochs) at the largest batch size, predicted from the smaller ones, over what was measured, "
    "with 90 % intervals, by benchmark, round and batch size.",
    notes=notes,
    seed=0,
)
