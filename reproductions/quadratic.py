"""The noisy quadratic of Zhang et al. 2019: steps to a target against batch size, without drawing a single number.

The loss is 1/2 sum_i h_i x_i^2 with h_i = 1/i, i = 1 .. 10^4; the gradient of one example has noise of variance h_i in
each dimension, so that of a batch h_i / B; E[x_i^2] = 1 at the start. Every dimension is by itself, and its second
moments follow a linear recursion (p_i is the rate times h_i^(1 - gamma), a h_i for heavy ball):

    SGD preconditioned by h^-gamma:  s <- (1 - p)^2 s + a^2 h^(1 - 2 gamma) / B         s = E[x^2]
    heavy ball:  v <- mu v - a (h x + noise),  x <- x + v, so that with u = E[x^2], w = E[v^2], c = E[x v]
        w' = p^2 u + mu^2 w - 2 mu p c + a^2 h / B,   c' = mu c - p u + w',   u' = u + 2 (mu c - p u) + w'

Steps to the target are those until the expected loss is first below 0.01, at the best rate (and momentum) of a grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from rightbatch.fit.tradeoff import fit_tradeoff
from rightbatch.report import units
from rightbatch.reproduction import Claim, Comparison, Measured, Reproduction, Size, Store

Array = NDArray[np.float64]
Point = dict[str, Any]

DIMENSIONS = 10**4
TARGET = 0.01
RATES = np.logspace(-5, 0.5, 100)
HEAVY_BALL_RATES = np.logspace(-8, 1, 100)[33:]
"""The authors' grid from 10^-5 on, as the reference values for heavy ball were made."""
MOMENTA = 1 - np.logspace(-5, 0, 20)
DOUBLINGS = 24
"""No run of heavy ball is longer than 2^24 steps."""

SMALLEST_EFFECT = 1e-10
"""Nothing is drawn: what remains is the rounding of doubles in sums and powers."""


# ----------------------------------------------------------------------------------------------------- the model


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of the Hessian and how many dimensions have each, both of shape `[values]`."""

    eigenvalues: Array
    counts: Array

    def loss(self, second_moments: Array) -> float:
        """1/2 sum_i h_i E[x_i^2]."""
        return float(0.5 * np.sum(self.counts * self.eigenvalues * second_moments))


def exact(dimensions: int = DIMENSIONS) -> Spectrum:
    """Each of the eigenvalues 1/i by itself."""
    return Spectrum(1.0 / np.arange(1, dimensions + 1), np.ones(dimensions))


def binned(dimensions: int = DIMENSIONS, bins: int = 100) -> Spectrum:
    """The eigenvalues rounded down to the next of `bins` values, log-spaced from the largest to the smallest."""
    values = np.geomspace(1.0, 1.0 / dimensions, bins)
    places = np.searchsorted(-values, -exact(dimensions).eigenvalues)
    counts = np.bincount(np.minimum(places, bins - 1), minlength=bins).astype(float)
    return Spectrum(values[counts > 0], counts[counts > 0])


def sgd_moments(h: Array, steps: float, *, rate: float, batch_size: float, gamma: float = 0.0) -> Array:
    """E[x_i^2] after so many steps of SGD preconditioned by h^-gamma, in closed form; `math.inf`: the steady state."""
    decay = (1 - rate * h ** (1 - gamma)) ** 2
    steady = rate**2 * h ** (1 - 2 * gamma) / (batch_size * (1 - decay))
    return np.asarray(steady + decay**steps * (1 - steady))


def sgd_steps(
    spectrum: Spectrum, *, rate: float, batch_size: float, gamma: float = 0.0, fewer_than: float = math.inf
) -> float:
    """Steps until the loss is first below the target; infinite where the rate is unstable or the noise too large.

    Infinite also where they are not `fewer_than` what is known of another rate, which spares the search.

    Each E[x_i^2] moves one way only, from 1 to its steady state, and the loss falls until it is below the target:
    doubling and bisection find the step.
    """
    h = spectrum.eigenvalues
    if rate * np.max(h ** (1 - gamma)) >= 2:
        return math.inf

    def reached(steps: float) -> bool:
        return spectrum.loss(sgd_moments(h, steps, rate=rate, batch_size=batch_size, gamma=gamma)) < TARGET

    if not reached(fewer_than - 1):  # of infinity: the steady state
        return math.inf
    low, high = 0, 1
    while not reached(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def heavy_ball_matrix(h: Array, rate: float, momentum: float) -> Array:
    """What a step without noise does to (E[x^2], E[v^2], E[x v]), shape `[values, 3, 3]`."""
    p, mu = rate * h, np.full_like(h, momentum)
    rows = [
        [(1 - p) ** 2, mu**2, 2 * mu * (1 - p)],
        [p**2, mu**2, -2 * mu * p],
        [p**2 - p, mu**2, mu * (1 - 2 * p)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def heavy_ball_steady(h: Array, rate: float, momentum: float, batch_size: float) -> Array:
    """The steady state of (E[x^2], E[v^2], E[x v]), shape `[values, 3]`, from the recursion at its fixed point."""
    p = rate * h
    x2 = rate**2 * h / batch_size * (1 + momentum) / ((1 - momentum) * p * (2 * (1 + momentum) - p))
    return np.stack([x2, 2 * p * x2 / (1 + momentum), p * x2 / (1 + momentum)], axis=-1)


def heavy_ball_steps(spectrum: Spectrum, *, rate: float, momentum: float, batch_sizes: Sequence[int]) -> list[float]:
    """Steps until the loss is below the target, for each batch size; infinite where it never is.

    Powers of two of the matrix, shared by all batch sizes, are applied from the largest on as long as the loss stays at
    or above the target. Where the loss oscillates across the target, that may find a later crossing than the first.
    """
    h = spectrum.eigenvalues
    if rate * h.max() >= 2 * (1 + momentum):
        return [math.inf] * len(batch_sizes)
    steady = {b: heavy_ball_steady(h, rate, momentum, b) for b in batch_sizes}
    able = [b for b in batch_sizes if spectrum.loss(steady[b][:, 0]) < TARGET]
    powers = [heavy_ball_matrix(h, rate, momentum)] if able else []
    for _ in range(DOUBLINGS - 1 if able else 0):
        powers.append(powers[-1] @ powers[-1])
    found = dict.fromkeys(batch_sizes, math.inf)
    for b in able:
        rest, steps = np.array([1.0, 0.0, 0.0]) - steady[b], 0
        for k in reversed(range(DOUBLINGS)):
            ahead = (powers[k] @ rest[..., None])[..., 0]
            if spectrum.loss(ahead[:, 0] + steady[b][:, 0]) >= TARGET:
                rest, steps = ahead, steps + 2**k
        found[b] = steps + 1 if steps + 1 < 2**DOUBLINGS else math.inf
    return list(found.values())


def heavy_ball_losses(spectrum: Spectrum, *, rate: float, momentum: float, batch_size: int, steps: int) -> list[float]:
    """The expected loss after 0, 1, ... `steps` steps, one step of the recursion after the other."""
    p = rate * spectrum.eigenvalues
    u, w, c = np.ones_like(p), np.zeros_like(p), np.zeros_like(p)
    losses = [spectrum.loss(u)]
    for _ in range(steps):
        moved = momentum * c - p * u
        w = momentum**2 * w + p**2 * u - 2 * momentum * p * c + rate * p / batch_size
        u, c = u + 2 * moved + w, moved + w
        losses.append(spectrum.loss(u))
    return losses


# ---------------------------------------------------------------------------------------------- what is measured


POWERS = (4, 16, 64, 256, 512, 1024, 2048, 4096, 2**14, 2**16, 2**20)
STEPS = (1_507_367, 379_858, 95_759, 25_880, 14_965, 10_609, 9_149, 8_117, 7_447, 7_309, 7_268)
REFERENCE: Mapping[str, Mapping[int, int]] = {
    "SGD": dict(zip(POWERS, STEPS, strict=True)),
    "gamma 0.25": {256: 9_312, 1024: 2_421, 4096: 1_002, 2**20: 778},
    "gamma 0.5": {256: 5_421, 4096: 342, 2**14: 106, 2**20: 84},
    "gamma 0.75": {256: 4_071, 4096: 257, 2**16: 16, 2**20: 10},
    "heavy ball": {4: 1_498_457, 64: 83_186, 256: 20_969, 1024: 5_203}
    | {4096: 1_280, 2**14: 349, 2**16: 208, 2**20: 178},
}
"""By method and batch size, the last step before the target: the authors count one step less than is needed."""

GAMMAS = {"SGD": 0.0, "gamma 0.25": 0.25, "gamma 0.5": 0.5, "gamma 0.75": 0.75}
SMOKE_SIZES = (256, 4096, 2**20)


def from_size(method: str, batch_size: int) -> Size:
    """The smallest size that measures a point."""
    if method == "heavy ball":
        return "paper"
    return "smoke" if method == "SGD" and batch_size in SMOKE_SIZES else "small"


CLAIMS = (
    *(
        Claim(
            identifier=f"{method}, {batch_size}",
            sentence=f"{method}, batch size {batch_size:,}: the last step before the target",
            published=steps,
            tolerance=0.02,
            slack=1,
            known_by="computed with the authors' formulas",
            from_size=from_size(method, batch_size),
        )
        for method, row in REFERENCE.items()
        for batch_size, steps in row.items()
    ),
    Claim(
        identifier="lower bound",
        sentence="No method needs fewer steps than D / (2 C B): the smallest quotient of the two",
        published=1.0,
        tolerance=0.0,
        known_by="derived",
        relation="at least",
    ),
    Claim(
        identifier="expected loss",
        sentence="The expected loss of rightbatch's quadratic over that of this recursion, where furthest from 1",
        published=1.0,
        tolerance=1e-9,
        known_by="derived",
    ),
)


def run(size: Size, store: Store) -> Measured:
    """Every point of the size with the authors' 100 eigenvalues, then with all 10^4."""
    due = {claim.identifier for claim in REPRODUCTION.claims_of(size)}
    points: list[Point] = []
    for spectrum_name, spectrum in (("binned", binned()), ("exact", exact())):
        for method, gamma in GAMMAS.items():
            for b in (b for b in REFERENCE[method] if f"{method}, {b}" in due):
                unit = f"{method}, {b}, {spectrum_name}"
                best = store.unit(unit, partial(best_sgd, spectrum, gamma, b))
                points.append({"method": method, "batch_size": b, "spectrum": spectrum_name, **best})
        if size == "paper":
            points += best_heavy_ball(spectrum_name, spectrum, store)
    short = [p for p in points if p["method"] == "heavy ball" and p["spectrum"] == "binned" and p["steps"] < 10**4]
    return {
        "points": points,
        "crossings": {
            str(p["batch_size"]): store.unit(f"crossings, {p['batch_size']}", partial(crossings, p)) for p in short
        },
        "expected_loss": store.unit("expected loss", expected_loss_ratio),
    }


def crossings(point: Point) -> list[int]:
    """Every step after which the loss of heavy ball is on another side of the target than before."""
    setting = {name: point[name] for name in ("momentum", "batch_size")}
    losses = heavy_ball_losses(binned(), rate=point["learning_rate"], steps=int(2 * point["steps"]), **setting)
    below = np.array(losses) < TARGET
    return (np.flatnonzero(below[1:] != below[:-1]) + 1).tolist()


def best_sgd(spectrum: Spectrum, gamma: float, batch_size: int) -> Point:
    """The fewest steps over the grid of rates."""
    best, at = math.inf, math.nan
    for rate in RATES[::-1].tolist():  # large rates first: where they are stable, they need few steps
        steps = sgd_steps(spectrum, rate=rate, batch_size=batch_size, gamma=gamma, fewer_than=best)
        best, at = (steps, rate) if steps < best else (best, at)
    return {"steps": best, "learning_rate": at, "momentum": 0.0}


def best_heavy_ball(name: str, spectrum: Spectrum, store: Store) -> list[Point]:
    """The fewest steps over the grid of rates and momenta, for each batch size; a momentum is a unit of work."""
    sizes = list(REFERENCE["heavy ball"])
    found: dict[int, Point] = {}
    for momentum in MOMENTA.tolist():
        unit = f"heavy ball, momentum {momentum:.6f}, {name}"
        for b, best in zip(sizes, store.unit(unit, partial(best_rates, spectrum, momentum, sizes)), strict=True):
            if best is not None and (b not in found or best["steps"] < found[b]["steps"]):
                found[b] = {"method": "heavy ball", "batch_size": b, "spectrum": name, **best, "momentum": momentum}
    return [found[b] for b in sizes]


def best_rates(spectrum: Spectrum, momentum: float, batch_sizes: Sequence[int]) -> list[Point | None]:
    """The fewest steps of each batch size over the grid of rates; None where no rate reaches the target."""
    rates = HEAVY_BALL_RATES.tolist()
    rows = [heavy_ball_steps(spectrum, rate=r, momentum=momentum, batch_sizes=batch_sizes) for r in rates]
    best = [min(zip(column, rates, strict=True)) for column in zip(*rows, strict=True)]
    return [{"steps": steps, "learning_rate": rate} if math.isfinite(steps) else None for steps, rate in best]


def expected_loss_ratio() -> float:
    """`rightbatch.bundled.quadratic.expected_loss` over the same with this recursion, where furthest from 1."""
    from rightbatch.bundled.quadratic import DIMENSIONS as dimensions
    from rightbatch.bundled.quadratic import expected_loss

    spectrum = exact(dimensions)
    ratios = []
    for steps in (0, 1, 10, 1000, 100_000):
        for rate in (0.01, 0.1, 1.0):
            for b in (1, 32, 4096):
                here = spectrum.loss(sgd_moments(spectrum.eigenvalues, steps, rate=rate, batch_size=b))
                ratios.append(expected_loss(steps, learning_rate=rate, batch_size=b) / here)
    return max(ratios, key=lambda ratio: abs(ratio - 1))


# --------------------------------------------------------------------------------------------- what came of it


def compare(measured: Measured) -> tuple[Comparison, ...]:
    """Each point with the authors' eigenvalues, less the one step that they do not count; then the two others."""
    points = spectrum_points(measured, "binned")
    values = {f"{p['method']}, {p['batch_size']}": p["steps"] - 1 for p in points}
    values["lower bound"] = min(2 * TARGET * p["batch_size"] * p["steps"] / DIMENSIONS for p in measured["points"])
    values["expected loss"] = measured["expected_loss"]
    return tuple(
        claim.compare(values[claim.identifier], SMALLEST_EFFECT) for claim in CLAIMS if claim.identifier in values
    )


def spectrum_points(measured: Measured, spectrum: str) -> list[Point]:
    """The points of one spectrum."""
    return [point for point in measured["points"] if point["spectrum"] == spectrum]


def notes(measured: Measured) -> tuple[str, ...]:
    """What the binning changes, what the hyperbola says, and where the grid or the search shows."""
    rough, fine = spectrum_points(measured, "binned"), spectrum_points(measured, "exact")
    off = [(b["steps"] / a["steps"] - 1, a) for a, b in zip(rough, fine, strict=True)]
    worst, at = max(off, key=lambda pair: abs(pair[0]))
    said = [
        f"The published values are for the authors' 100 log-spaced eigenvalues. With all 10^4 the steps differ by "
        f"{100 * worst:+.2f} % where they differ most ({at['method']}, batch size {at['batch_size']:,}).",
        "The authors' bisection gives the last step at which the loss is still above the target, so one less than the "
        "steps that are needed. Compared are their numbers; the figure and the record have the steps needed.",
        "The authors add 1e-8 to 1 - (1 - a h)^2 in the steady state of SGD. Here it is left out: that is all of the "
        "difference that remains for SGD.",
    ]
    for method in dict.fromkeys(point["method"] for point in rough):
        of = [point for point in rough if point["method"] == method]
        fit = fit_tradeoff([p["batch_size"] for p in of], [p["steps"] for p in of])
        said.append(
            f"{method}: steps = S_min (1 + B_crit / B) has S_min {units.interval(fit.minimum_steps)} and B_crit "
            f"{units.interval(fit.critical_batch_size)} with a misfit of "
            f"{units.significant(100 * (fit.hyperbola.deviation or 0), 2)} %."
        )
    ends = [p for p in rough if p["method"] == "heavy ball" and p["learning_rate"] == HEAVY_BALL_RATES[0]]
    said += [
        f"Heavy ball, batch size {p['batch_size']:,}: the best rate is the smallest of the grid, so that the number of "
        f"steps depends on where the grid begins."
        for p in ends
    ]
    said += [
        f"Heavy ball, batch size {int(b):,}: the loss crosses the target after steps {', '.join(map(str, steps))}. "
        f"Counted here is the first; the authors' bisection may find another one."
        for b, steps in measured["crossings"].items()
        if len(steps) > 1
    ]
    return tuple(said)


def figure(measured: Measured) -> alt.LayerChart:
    """Steps against batch size: measured as lines, published as rings, the lower bound dashed."""
    points = spectrum_points(measured, "binned")
    published = [
        {"method": p["method"], "batch_size": p["batch_size"], "steps": 1 + REFERENCE[p["method"]][p["batch_size"]]}
        for p in points
    ]
    least, most = min(p["batch_size"] for p in points), min(2**16, max(p["batch_size"] for p in points))
    bound = [{"batch_size": b, "steps": DIMENSIONS / (2 * TARGET * b)} for b in (least, most)]
    x = alt.X("batch_size:Q", title="batch size", scale=alt.Scale(type="log", base=2, nice=False, padding=12))
    y = alt.Y("steps:Q", title="steps to the target", scale=alt.Scale(type="log", nice=False, padding=12))
    colours = ["#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00"]
    colour = alt.Color("method:N", title="method", scale=alt.Scale(domain=list(REFERENCE), range=colours))
    rows = alt.Chart(alt.Data(values=points)).encode(x=x, y=y, color=colour)
    rings = alt.Chart(alt.Data(values=published)).mark_point(size=90, strokeWidth=2).encode(x=x, y=y, color=colour)
    line = alt.Chart(alt.Data(values=bound)).mark_line(strokeDash=[5, 4], color="#6b6b6b").encode(x=x, y=y)
    return alt.layer(line, rows.mark_line(strokeWidth=2), rows.mark_point(filled=True, size=20), rings).properties(
        width=620, height=380
    )


REPRODUCTION = Reproduction(
    name="quadratic",
    title="Steps to a target on the noisy quadratic",
    source="Zhang et al. 2019, Which Algorithmic Choices Matter at Which Batch Sizes? Insights From a Noisy Quadratic "
    "Model (NeurIPS 2019, arXiv:1907.04164): SGD, preconditioned SGD and heavy ball at their best rates",
    claims=CLAIMS,
    budget_seconds={"smoke": 20, "small": 120, "paper": 1800},
    smallest_effect=SMALLEST_EFFECT,
    smallest_effect_reason="Nothing is drawn and steps are whole numbers: only doubles are rounded.",
    run=run,
    compare=compare,
    figure=figure,
    caption="Lines and dots: measured, with the authors' 100 eigenvalues. Rings: the published values "
    "and the one step that they do not count. Dashed: the lower bound D / (2 C B) on the steps of any method.",
    notes=notes,
)
