"""Smith and Le 2018: at a constant rate there is a best batch size, in proportion to the rate and to the data.

A network with one hidden layer is trained on a part of MNIST for the same number of steps, at one rate from start to
end. Batches that are too small scatter, batches that are too large find a minimum that generalises less: between them
test accuracy has a peak, which the paper puts where the noise scale e N / (B (1 - m)) has one value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import altair as alt
import numpy as np

from rightbatch.loading import as_module
from rightbatch.means import mean_of
from rightbatch.records import Interval
from rightbatch.report import units
from rightbatch.reproduction import Claim, Comparison, Measured, Reproduction, Size, Store, held

NET = Path(__file__).with_name("_smith-le_net.py")

Setting = tuple[int, float, float]
"""Training examples, rate, momentum."""

USUAL: Setting = (1000, 0.1, 0.9)
VARIED: Mapping[str, tuple[Setting, ...]] = {
    "rate": tuple((1000, rate, 0.9) for rate in (0.03, 0.056, 0.1, 0.18, 0.3)),
    "examples": tuple((examples, 0.1, 0.9) for examples in (500, 1000, 2000, 4000)),
    "momentum": tuple((1000, 0.3, momentum) for momentum in (0.0, 0.5, 0.8, 0.9)),
}
"""What is varied, all else as it is."""

FACTOR = {
    "rate": lambda setting: setting[1],
    "examples": lambda setting: float(setting[0]),
    "momentum": lambda setting: 1 / (1 - setting[2]),
}
"""What the best batch size is in proportion to."""

SIZES = tuple(round(2 ** (k / 2)) for k in range(4, 17))
STEPS: Mapping[Size, int] = {"smoke": 300, "small": 3000, "paper": 10_000}
SEEDS: Mapping[Size, int] = {"smoke": 3, "small": 6, "paper": 12}
LONGER: Mapping[Size, int] = {"small": 10_000, "paper": 30_000}
LONGER_SIZES = tuple(round(2 ** (k / 2)) for k in range(6, 13))
"""Whether the part that data plays is one of too few steps is looked at where the peaks are."""

HIGH: tuple[Setting, ...] = tuple((1000, rate, 0.9) for rate in (0.56, 1.0, 1.8))
HIGH_SIZES = tuple(b for b in SIZES if b >= 64)
"""Rates that only large batches can be given: without them the best rate of a large batch would be the last one."""

SMOKE: Mapping[str, tuple[Setting, ...]] = {"rate": (USUAL,)}
SMOKE_SIZES = (8, 32, 64, 256)
NEAR = 0.5
"""The peak is fitted to sizes within so many doublings of the best one."""

WIDER = (1.0, 2.0)
"""So that it can be seen what comes of that choice."""

DRAWS = 1000

CLAIMS = (
    Claim(
        "rate",
        "The power of the rate by which the best batch size grows",
        published=1.0,
        tolerance=0.25,
        known_by="read in the paper",
        from_size="small",
    ),
    Claim(
        "examples",
        "The power of the number of training examples by which the best batch size grows",
        published=1.0,
        tolerance=0.25,
        known_by="read in the paper",
        from_size="small",
    ),
    Claim(
        "examples, longer",
        "The same after more than three times as many steps",
        published=1.0,
        tolerance=0.25,
        known_by="read in the paper",
        from_size="small",
    ),
    Claim(
        "momentum",
        "The power of 1 / (1 - momentum) by which the best batch size grows",
        published=1.0,
        tolerance=0.25,
        known_by="derived",
        from_size="small",
    ),
    Claim(
        "interior",
        "At a rate of 0.1: test accuracy at the best batch size less that at the largest, in points",
        published=0.0,
        tolerance=0.0,
        relation="at least",
        known_by="read in the paper",
    ),
    Claim(
        "tuned",
        "The rate tuned at each size: test accuracy at 16 less that at 256, in points (0: noise is all)",
        published=0.0,
        tolerance=0.0,
        slack=0.5,
        known_by="derived",
        from_size="small",
    ),
)


# ------------------------------------------------------------------------------------------------ what is measured


@cache
def net() -> ModuleType:
    """What needs torch: not before something runs."""
    return as_module(NET, "smith_le_net")()


def run(size: Size, store: Store) -> Measured:
    """Every setting at every size; then data with more steps, and rates for large batches."""
    varied, sizes = (SMOKE, SMOKE_SIZES) if size == "smoke" else (VARIED, SIZES)
    settings = tuple(dict.fromkeys(setting for settings in varied.values() for setting in settings))

    def every(settings: Sequence[Setting], sizes: Sequence[int], steps: int, words: str = "") -> dict[str, Any]:
        return {
            named(setting): {
                str(b): store.unit(f"{named(setting)}, {b}{words}", partial(train, setting, b, steps, SEEDS[size]))
                for b in sizes
            }
            for setting in settings
        }

    measured: dict[str, Any] = {"varied": varied, "accuracies": every(settings, sizes, STEPS[size])}
    if size != "smoke":
        measured["longer"] = every(VARIED["examples"], LONGER_SIZES, LONGER[size], ", longer")
        measured["high"] = every(HIGH, HIGH_SIZES, STEPS[size])
    return measured


def named(setting: Sequence[float]) -> str:
    """A setting in words."""
    examples, rate, momentum = setting
    return f"{examples:g} examples, rate {rate:g}, momentum {momentum:g}"


def train(setting: Setting, batch_size: int, steps: int, seeds: int) -> Any:
    """Test accuracies."""
    examples, rate, momentum = setting
    return net().accuracies(examples, batch_size, rate, momentum, steps, seeds)


# ---------------------------------------------------------------------------------------------- what came of it


def peak(sizes: np.ndarray, accuracy: np.ndarray, near_by: float = NEAR) -> float:
    """The log2 of the best size: the top of a parabola through the sizes about the best one; nan where it has none."""
    logs = np.log2(sizes)
    best = logs[np.argmax(accuracy)]
    near = np.abs(logs - best) <= near_by + 0.1
    if near.sum() < 3:
        return math.nan
    bend, slope, _ = np.polyfit(logs[near], accuracy[near], 2)
    at = -slope / (2 * bend) if bend < 0 else math.nan
    return float(at) if logs[near].min() <= at <= logs[near].max() else math.nan


def peaks(by_size: Mapping[str, Sequence[float]], near_by: float = NEAR) -> np.ndarray:
    """Of seeds drawn anew, `[draws + 1]`: the first of them as they are."""
    sizes = np.array([float(b) for b in by_size])
    values, generator = np.array(list(by_size.values())), np.random.default_rng(0)
    found = [peak(sizes, values.mean(axis=1), near_by)]
    for _ in range(DRAWS):
        chosen = generator.integers(values.shape[1], size=values.shape)
        found.append(peak(sizes, np.take_along_axis(values, chosen, axis=1).mean(axis=1), near_by))
    return np.array(found)


def at_edge(by_size: Mapping[str, Sequence[float]]) -> bool:
    """Whether the best size is the first or the last."""
    means = [float(np.mean(values)) for values in by_size.values()]
    return int(np.argmax(means)) in (0, len(means) - 1)


def power(
    what: str,
    settings: Sequence[Sequence[float]],
    accuracies: Mapping[str, Mapping[str, Sequence[float]]],
    near_by: float = NEAR,
) -> Interval | None:
    """By which power of what was varied the best size grows; settings whose best size is at an edge are left out."""
    known = [one for one in settings if not at_edge(accuracies[named(one)])]
    if len(known) < 2:
        return None
    logs = np.array([peaks(accuracies[named(one)], near_by) for one in known])
    logs = logs[:, np.isfinite(logs).all(axis=0)]
    factors = np.log2([FACTOR[what](one) for one in known])
    slopes = np.polyfit(factors, logs, 1)[0]
    low, high = np.percentile(slopes[1:], [2.5, 97.5])
    return Interval(float(slopes[0]), float(min(low, slopes[0])), float(max(high, slopes[0])))


def difference(upper: Sequence[float], lower: Sequence[float]) -> Interval | None:
    """Of means over seeds, in points of a percent; seeds have weights and batches of their own at each size."""
    return mean_of([100 * (a - b) for a, b in zip(upper, lower, strict=True)])


def best_rate(measured: Measured, size: int) -> tuple[float, list[float], bool]:
    """Of 1000 examples with momentum 0.9: the rate of the best mean, its accuracies, and whether it is the last one."""
    tried = {
        setting[1]: list(of[named(setting)][str(size)])
        for settings, of in ((measured["varied"]["rate"], measured["accuracies"]), (HIGH, measured["high"]))
        for setting in settings
        if str(size) in of[named(setting)]
    }
    rate = max(tried, key=lambda rate: float(np.mean(tried[rate])))
    return rate, tried[rate], rate in (min(tried), max(tried))


def tuned(measured: Measured, small: int, large: int) -> Interval | None:
    """Accuracy at one size less that at another, each at its best rate; None where that is the first or the last."""
    (_, upper, first), (_, lower, last) = best_rate(measured, small), best_rate(measured, large)
    return None if first or last else difference(upper, lower)


def compare(measured: Measured) -> tuple[Comparison, ...]:
    """With 95 % intervals over seeds."""
    usual = measured["accuracies"][named(USUAL)]
    best = max(usual, key=lambda b: float(np.mean(usual[b])))
    found: dict[str, Interval | None] = {"interior": difference(usual[best], usual[max(usual, key=int)])}
    if "momentum" in measured["varied"]:
        found |= {what: power(what, settings, measured["accuracies"]) for what, settings in measured["varied"].items()}
        found["examples, longer"] = power("examples", VARIED["examples"], measured["longer"])
        found["tuned"] = tuned(measured, 16, 256)
    return held(CLAIMS, found)


def notes(measured: Measured) -> tuple[str, ...]:
    """The peaks, what is beside them, and the noise scale there."""
    settings = [tuple(one) for one in dict.fromkeys(tuple(one) for of in measured["varied"].values() for one in of)]
    said = [note_of(setting, measured["accuracies"][named(setting)]) for setting in settings]
    if "longer" in measured:
        said += [
            f"{note_of(setting, measured['longer'][named(setting)])} After the longer training."
            for setting in VARIED["examples"]
        ]
        said.append(
            "The powers, were peaks read off sizes within one doubling and within two of the best: "
            + "; ".join(
                f"{what} "
                + " and ".join(
                    units.interval(found) if (found := power(what, of, measured["accuracies"], near)) else "not told"
                    for near in WIDER
                )
                for what, of in measured["varied"].items()
            )
            + "."
        )
        said.append(cliffs([measured["accuracies"][named(setting)] for setting in settings]))
        said.append(
            "The best of the rates at each size, test accuracy: "
            + ", ".join(
                f"{100 * float(np.mean(values)):.1f} at {b} (rate {rate:g}{', the first or last' if edge else ''})"
                for b, (rate, values, edge) in ((b, best_rate(measured, b)) for b in SIZES)
            )
            + "."
        )
    said.append(
        "The paper trains 800 hidden units at a rate of 1; here there are 200, on images of 14 by 14 between 0 and 1, "
        "and rates at which training is stable. Batches are drawn with replacement."
    )
    return tuple(said)


def cliffs(accuracies: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """What is on the side of the small sizes."""
    means = [[float(np.mean(values)) for values in by_size.values()] for by_size in accuracies]
    told = [of for of in means if 2 <= int(np.argmax(of)) < len(of) - 1]
    below = sum(of[int(np.argmax(of)) - 2] < of[-1] for of in told)
    return (
        f"In {below} of {len(told)} settings accuracy at half the best size is lower already than at the largest: "
        "beside the peak is a cliff, where noise breaks the training down. How much noise it bears is a matter of "
        "rate, momentum and batch size, and less of how many examples there are."
    )


def note_of(setting: Setting, by_size: Mapping[str, Sequence[float]]) -> str:
    """The peak of one setting, in words."""
    examples, rate, momentum = setting
    top = peaks(by_size)
    if at_edge(by_size) or not np.isfinite(top[0]):
        return f"{named(setting)}: no peak between the sizes that were tried."
    best, low, high = 2 ** top[0], *(2 ** np.percentile(top[1:][np.isfinite(top[1:])], [2.5, 97.5]))
    means = [100 * float(np.mean(values)) for values in by_size.values()]
    at = int(np.argmax(means))
    beside = f", at half the best size {means[at - 2]:.1f} %" if at >= 2 else ""
    return (
        f"{named(setting)}: best batch size {best:.3g} [{low:.3g}, {high:.3g}], test accuracy {max(means):.1f} %"
        f"{beside}, noise scale e N / (B (1 - m)) {units.significant(rate * examples / (best * (1 - momentum)))}."
    )


def figure(measured: Measured) -> alt.FacetChart:
    """Test accuracy by batch size, a panel for each thing that is varied."""
    words = {"rate": "rate {1:g}", "examples": "{0:g} examples", "momentum": "momentum {2:g}"}
    rows = [
        {"varied": what, "size": int(b), "accuracy": float(np.mean(values)), "value": words[what].format(*setting)}
        for what, settings in measured["varied"].items()
        for setting in settings
        for b, values in measured["accuracies"][named(setting)].items()
    ]
    return (
        alt.Chart()
        .mark_line(point=True, clip=True)
        .encode(
            x=alt.X("size:Q", scale=alt.Scale(type="log"), title="batch size"),
            y=alt.Y("accuracy:Q", scale=alt.Scale(domain=[0.8, 0.97]), title="test accuracy"),
            color=alt.Color("value:N", title=None, sort=list(dict.fromkeys(row["value"] for row in rows))),
        )
        .properties(width=520, height=170)
        .facet(row=alt.Row("varied:N", title=None, sort=list(measured["varied"])), data=alt.Data(values=rows))
        .resolve_scale(color="independent")
    )


REPRODUCTION = Reproduction(
    name="smith-le",
    title="The best batch size at a constant rate, in proportion to the rate and to the data",
    source="Smith and Le 2018, A Bayesian perspective on generalization and stochastic gradient descent "
    "(arXiv:1710.06451), sections 4 and 5: 1000 images of MNIST, one hidden layer",
    claims=CLAIMS,
    budget_seconds={"smoke": 60, "small": 2 * 3600, "paper": 24 * 3600},
    smallest_effect=0.1,
    smallest_effect_reason="Peaks are flat: seeds leave about a fifth of a doubling in each, and so about 0.1 in a "
    "power that is read off four or five of them over a factor of ten.",
    run=run,
    compare=compare,
    figure=figure,
    caption="Test accuracy after the same number of steps by batch size, means over seeds, at a constant rate.",
    notes=notes,
    seed=0,
)
