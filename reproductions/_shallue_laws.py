"""What `shallue.py` makes of its searches: steps by batch size with intervals, laws, rates, comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _shallue_search import typical
from numpy.typing import NDArray

from rightbatch import Interval
from rightbatch.fit.quantiles import t_interval, t_quantile
from rightbatch.fit.tradeoff import TradeoffFit, fit_tradeoff
from rightbatch.means import out_of_logs
from rightbatch.reproduction import Claim, Comparison, Measured, held

Array = NDArray[np.float64]

PROBLEMS: Mapping[str, str] = {"mnist": "MNIST", "fashion": "Fashion-MNIST"}
OPTIMIZERS: Mapping[str, str] = {"sgd": "SGD", "nesterov": "Nesterov momentum"}

TURN = 128
"""Below and from here on powers of the best rate are told apart."""

DRAWS = 2000


# --------------------------------------------------------------------------------------------- steps of one cell


@dataclass(frozen=True)
class Curve:
    """One problem with one optimizer: means over the searches of each size, of logs.

    `logs` are of steps, `[sizes]`; `errors` their standard errors, known with `freedom` degrees of freedom; `rates`
    the best effective rates. Sizes at which no search reached the goal at no edge are left out.
    """

    sizes: Array
    logs: Array
    rates: Array
    momenta: Array
    errors: Array
    freedom: int

    def at(self, size: int) -> tuple[float, float] | None:
        """Log of steps at a size and its error; None where it was left out."""
        found = np.flatnonzero(self.sizes == size)
        return (float(self.logs[found[0]]), float(self.errors[found[0]])) if len(found) else None

    @property
    def fit(self) -> TradeoffFit | None:
        """The law through all sizes; None with fewer than three."""
        return fit_tradeoff(self.sizes, np.exp(self.logs)) if len(self.sizes) >= 3 else None


def told(search: Mapping[str, Any]) -> bool:
    """Whether a search has something to tell: it reached the goal, at no edge."""
    return not search["at_edge"] and typical(search["steps"]) is not None


def logs_of(searches: Sequence[Mapping[str, Any]]) -> list[float]:
    """Logs of the typical steps of the searches that tell something."""
    return [math.log(typical(one["steps"]) or math.nan) for one in searches if told(one)]


def noise_of(cells: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[float, int]:
    """The deviation of the log of steps between searches of one cell, pooled over cells, and its degrees of freedom.

    Searches have trials and seeds of their own, so it holds the noise of tuning and of seeds alike.
    """
    squares, freedom = 0.0, 0
    for searches in cells:
        if len(logs := logs_of(searches)) > 1:
            squares += float(np.var(logs)) * len(logs)
            freedom += len(logs) - 1
    return (math.sqrt(squares / freedom) if freedom else math.nan), freedom


def curve_of(measured: Measured, problem: str, optimizer: str) -> Curve:
    """A curve; how much searches differ is pooled over all problems and sizes of its optimizer."""
    noise, freedom = noise_of(
        [searches for of in measured["cells"].values() for searches in of.get(optimizer, {}).values()]
    )
    cells = measured["cells"][problem][optimizer]
    known = {int(size): [one for one in cells[size] if told(one)] for size in sorted(cells, key=int)}
    known = {size: searches for size, searches in known.items() if searches}

    def mean(of: Callable[[Mapping[str, Any]], float]) -> Array:
        return np.array([float(np.mean(np.log([of(one) for one in searches]))) for searches in known.values()])

    return Curve(
        np.array(list(known), float),
        np.array([float(np.mean(logs_of(searches))) for searches in known.values()]),
        np.exp(mean(lambda one: one["chosen"]["rate"])),
        1 - np.exp(mean(lambda one: 1 - one["chosen"]["momentum"])),
        np.array([noise / math.sqrt(len(searches)) for searches in known.values()]),
        freedom,
    )


def curves_of(measured: Measured) -> dict[tuple[str, str], Curve]:
    """All of them, by problem and optimizer."""
    return {
        (problem, optimizer): curve_of(measured, problem, optimizer)
        for problem, of in measured["cells"].items()
        for optimizer in of
    }


# ----------------------------------------------------------------------------------------------------- intervals


def around(value: float, error: float, freedom: int) -> Interval:
    """A t interval, 95 %; none without an error."""
    if not (freedom and math.isfinite(error)):
        return Interval(value, note="one search")
    return t_interval(value, error, freedom)


def fall(curve: Curve, small: int, large: int) -> Interval | None:
    """Log of the steps at a small size less those at a large one."""
    first, last = curve.at(small), curve.at(large)
    if first is None or last is None:
        return None
    return around(first[0] - last[0], math.hypot(first[1], last[1]), curve.freedom)


def scaled(found: Interval | None, factor: float, shift: float = 0.0) -> Interval | None:
    """A value in another unit; a negative factor turns its ends around."""
    if found is None:
        return None
    if found.low is None or found.high is None:
        return Interval(factor * found.estimate + shift, note=found.note)
    low, high = sorted((factor * found.low + shift, factor * found.high + shift))
    return Interval(factor * found.estimate + shift, low, high)


def saved(sgd: Curve, nesterov: Curve, sizes: Sequence[int]) -> Interval | None:
    """How many times the steps of momentum plain SGD needs, the geometric mean over some sizes."""
    pairs = [(sgd.at(size), nesterov.at(size)) for size in sizes]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if len(known) < len(sizes):
        return None
    error = math.hypot(*[each for a, b in known for each in (a[1], b[1])]) / len(known)
    mean = float(np.mean([a[0] - b[0] for a, b in known]))
    return out_of_logs(around(mean, error, min(sgd.freedom, nesterov.freedom)))


def extended(sgd: TradeoffFit | None, nesterov: TradeoffFit | None) -> Interval | None:
    """The critical batch size of momentum over that of plain SGD; where perfect scaling ends has the same ratio.

    From the profile intervals of both fits, whose errors of the logs are added as independent; None where a fit is
    not bounded. They rest on residuals about the law, and so hold noise and misfit.
    """
    logs, errors, freedoms = [], [], []
    for fit in (nesterov, sgd):
        if (
            fit is None
            or not fit.critical_batch_size.low
            or not math.isfinite(fit.critical_batch_size.high or math.inf)
        ):
            return None
        knee, freedom = fit.critical_batch_size, fit.hyperbola.freedom
        assert knee.low
        assert knee.high
        logs.append(math.log(knee.estimate))
        errors.append(math.log(knee.high / knee.low) / 2 / t_quantile(0.975, freedom))
        freedoms.append(freedom)
    return out_of_logs(around(logs[0] - logs[1], math.hypot(*errors), min(freedoms)))


def misfits(sizes: Array, logs: Array) -> Array:
    """Root mean square of the log residuals about the law that fits best, for logs of steps `[draws, sizes]`.

    The least over a fine grid of critical sizes, all draws at once; `fit_tradeoff` would take minutes for so many.
    """
    knees = np.linspace(math.log(sizes.min()) - 5, math.log(sizes.max()) + 5, 1000)
    shapes = np.logaddexp(0.0, knees[:, None] - np.log(sizes)[None, :])
    shapes -= shapes.mean(axis=1, keepdims=True)
    centred = logs - logs.mean(axis=1, keepdims=True)
    squares = (centred**2).sum(1)[:, None] - 2 * centred @ shapes.T + (shapes**2).sum(1)[None, :]
    return np.asarray(np.sqrt(np.maximum(squares.min(axis=1), 0.0) / len(sizes)))


def misfit_interval(curve: Curve) -> Interval | None:
    """The misfit of a law with the steps drawn anew as searches differ.

    Noise on noise makes draws larger than they should be: the lower end is the lower one of the draws' and of its
    mirror image, the upper end the higher one, so that neither verdict gains by it.
    """
    if len(curve.sizes) < 4:
        return None
    found = float(misfits(curve.sizes, curve.logs[None, :])[0])
    if not curve.freedom:
        return Interval(found, note="one search")
    noise = np.random.default_rng(0).standard_t(curve.freedom, (DRAWS, len(curve.sizes)))
    low, high = np.percentile(misfits(curve.sizes, curve.logs + curve.errors * noise), [2.5, 97.5])
    return Interval(found, float(max(0.0, min(low, 2 * found - high))), float(max(high, 2 * found - low)))


# --------------------------------------------------------------------------------------------------------- rates


def chosen_rates(measured: Measured) -> Iterator[tuple[int, int, float]]:
    """Of each search that has something to tell: which curve, its batch size, and the best effective rate."""
    curve = 0
    for of in measured["cells"].values():
        for searches_of in of.values():
            for size, searches in searches_of.items():
                yield from ((curve, int(size), one["chosen"]["rate"]) for one in searches if told(one))
            curve += 1


def powers(rates: Sequence[tuple[int, int, float]]) -> dict[str, Interval] | None:
    """The power of the batch size by which the best rate grows, below `TURN` and from there on, and their difference.

    Least squares in logs over all curves: a level of its own for each, the two powers in common.
    """
    levels = sorted({curve for curve, _, _ in rates})
    logs = np.array([math.log(size / TURN) for _, size, _ in rates])
    rows = np.column_stack(
        [np.minimum(logs, 0), np.maximum(logs, 0), *[[float(c == level) for c, _, _ in rates] for level in levels]]
    )
    freedom = len(rates) - rows.shape[1]
    if freedom < 1 or np.linalg.matrix_rank(rows) < rows.shape[1]:
        return None
    values = np.log([rate for _, _, rate in rates])
    law, *_ = np.linalg.lstsq(rows, values, rcond=None)
    variance = float(((values - rows @ law) ** 2).sum()) / freedom * np.linalg.inv(rows.T @ rows)
    wanted = {"small": np.array([1.0, 0.0]), "large": np.array([0.0, 1.0]), "difference": np.array([1.0, -1.0])}
    return {
        name: around(float(way @ law[:2]), math.sqrt(float(way @ variance[:2, :2] @ way)), freedom)
        for name, way in wanted.items()
    }


# ---------------------------------------------------------------------------------------------------- comparisons


def found_of(measured: Measured) -> dict[str, Interval | None]:
    """What was measured, by claim."""
    found: dict[str, Interval | None] = {}
    all_curves = curves_of(measured)
    for (problem, optimizer), curve in all_curves.items():
        name = f"{problem}, {optimizer}"
        found[f"{name}: perfect"] = out_of_logs(scaled(fall(curve, 2, 8), -1, math.log(4)))
        found[f"{name}: diminishing"] = scaled(fall(curve, 128, 512), 1 / math.log(4))
        found[f"{name}: none"] = scaled(fall(curve, 2048, 8192), 1 / math.log(4))
        found[f"{name}: law"] = misfit_interval(curve)
    for problem, of in measured["cells"].items():
        if len(of) == len(OPTIMIZERS):
            sgd, nesterov = (all_curves[problem, optimizer] for optimizer in OPTIMIZERS)
            found[f"{problem}: momentum, small"] = saved(sgd, nesterov, (2, 8))
            found[f"{problem}: momentum, large"] = saved(sgd, nesterov, (2048, 8192))
            found[f"{problem}: extended"] = extended(sgd.fit, nesterov.fit)
    of_rates = powers(list(chosen_rates(measured))) or {}
    return found | {"rates: small": of_rates.get("small"), "rates: no one power": of_rates.get("difference")}


def compare(claims: Sequence[Claim], measured: Measured) -> tuple[Comparison, ...]:
    """Every claim of the size, with its 95 % interval."""
    found = found_of(measured)
    wanted = [claim for claim in claims if claim.identifier in measured["claims"]]
    return held(wanted, {claim.identifier: found.get(claim.identifier) for claim in wanted})
