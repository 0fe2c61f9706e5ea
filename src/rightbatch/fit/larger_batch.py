"""Examples to a target at a larger batch than any that was tried, from the smaller ones, with an interval.

The law of steps (McCandlish et al. 2018, arXiv 1812.06162, equation 2.11) is a line in examples:

    E(B) = E_min (1 + B / B_crit) = E_min + S_min B.

It is fitted to relative errors, for runs scatter in proportion to what they take. How far off such a line is one step
beyond its data is measured, on the curve itself and on others: the misfit of the law is most of the error, and shows
there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from rightbatch.errors import InputError
from rightbatch.fit.quantiles import t_interval_of_factor
from rightbatch.records import Interval

Array = NDArray[np.float64]
FEWEST = 2
"""Sizes that a line takes."""


@dataclass(frozen=True)
class ExamplesLine:
    """E(B) = `minimum_examples` + `minimum_steps` B; neither is below zero. Shapes `[sizes]`."""

    minimum_examples: float
    minimum_steps: float
    sizes: tuple[float, ...]

    def examples(self, batch_size: float) -> float:
        """By the line."""
        return self.minimum_examples + self.minimum_steps * batch_size

    def leverage(self, batch_size: float) -> float:
        """Variance of the log of `examples` there, in units of that of one size about the line."""
        design = self._relative(self.sizes)
        at = self._relative([batch_size])[0]
        return float(at @ np.linalg.pinv(design.T @ design) @ at)

    def _relative(self, sizes: Sequence[float]) -> Array:
        b = np.asarray(sizes, float)
        return np.asarray(np.stack([np.ones_like(b), b], axis=1) / np.array([[self.examples(size)] for size in b]))


@dataclass(frozen=True)
class Misfit:
    """How far curves are off the line one step beyond their data: a deviation, known as if from `freedom` errors.

    Of a curve that nothing is known of its errors have Student's distribution; its own count beside these.
    """

    deviation: float
    freedom: float

    def after(self, errors: Sequence[float]) -> Misfit:
        """What is believed of a curve that has shown these errors (standardised, see `errors_ahead`)."""
        freedom = self.freedom + len(errors)
        squared = (self.freedom * self.deviation**2 + float(np.square(errors).sum())) / freedom
        return Misfit(math.sqrt(squared), freedom)


def fit_line(batch_sizes: Sequence[float], examples: Sequence[float]) -> ExamplesLine:
    """Least squares of relative errors, every size counted once.

    Raises `InputError` with fewer than two different sizes, or values that are not positive and finite.
    """
    sizes, values = np.asarray(batch_sizes, float), np.asarray(examples, float)
    if len(sizes) != len(values) or len(np.unique(sizes)) != len(sizes) or len(sizes) < FEWEST:
        raise InputError(
            f"A line needs the examples at {FEWEST} different batch sizes or more, got {list(batch_sizes)}."
        )
    if not (np.isfinite(values).all() and (values > 0).all() and (sizes > 0).all()):
        raise InputError(
            f"Batch sizes and examples are positive and finite, got {list(batch_sizes)}, {list(examples)}."
        )
    unit = float(sizes.max())  # so that both columns are of like size
    design = np.stack([np.ones_like(sizes), sizes / unit], axis=1) / values[:, None]
    (least, slope), _ = scipy.optimize.nnls(design, np.ones_like(values))
    return ExamplesLine(float(least), float(slope) / unit, tuple(map(float, sizes)))


def errors_ahead(batch_sizes: Sequence[float], examples: Sequence[float]) -> list[float]:
    """The log of examples over those predicted at each size from all smaller ones, over sqrt(1 + leverage).

    Sizes in increasing order. From the third size on: none for a curve of two.
    """
    found = []
    for k in range(FEWEST, len(batch_sizes)):
        line = fit_line(batch_sizes[:k], examples[:k])
        error = math.log(examples[k] / line.examples(batch_sizes[k]))
        found.append(error / math.sqrt(1 + line.leverage(batch_sizes[k])))
    return found


def pool(curves: Iterable[Sequence[float]]) -> Misfit:
    """The misfit of curves of which these errors are known: the most likely deviation and freedom.

    The variance of a curve has a scaled inverse chi-squared distribution over curves, its errors are normal: so they
    come one after the other from Student's distribution, whose scale learns from those before.

    Raises `InputError` for fewer than three errors in all.
    """
    known = [list(errors) for errors in curves if len(errors)]
    if sum(map(len, known)) < 3:
        raise InputError(
            "Fewer than three errors of other curves are known: that is too few to say how far off a line is."
        )
    every = np.concatenate([np.asarray(errors) for errors in known])
    start = math.log(float(np.sqrt(np.mean(every**2))) + 1e-12)

    def surprise(at: Array) -> float:
        total = 0.0
        for errors in known:
            belief = Misfit(math.exp(at[0]), math.exp(at[1]))
            for k, error in enumerate(errors):
                now = belief.after(errors[:k])
                total -= float(scipy.stats.t.logpdf(error / now.deviation, now.freedom)) - math.log(now.deviation)
        return total

    found = scipy.optimize.minimize(
        surprise,
        [start, math.log(4.0)],
        method="L-BFGS-B",
        bounds=[(start - 3, start + 3), (math.log(1.0), math.log(50.0))],
    )
    return Misfit(math.exp(float(found.x[0])), math.exp(float(found.x[1])))


def predict_larger(
    batch_sizes: Sequence[float], examples: Sequence[float], at: float, misfit: Misfit, level: float = 0.9
) -> Interval:
    """Examples at the batch size `at`, from smaller ones in increasing order; `misfit` is that of other curves.

    Raises `InputError` where `at` is not larger than the sizes, or there are fewer than two of them.
    """
    line = fit_line(batch_sizes, examples)
    if not at > max(batch_sizes):
        raise InputError(f"{at:g} is not larger than the sizes that are known, up to {max(batch_sizes):g}.")
    belief = misfit.after(errors_ahead(batch_sizes, examples))
    error = belief.deviation * math.sqrt(1 + line.leverage(at))
    return t_interval_of_factor(line.examples(at), error, belief.freedom, level)
