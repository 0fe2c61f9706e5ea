"""Whether iterates of constant SGD look like samples of a Gaussian posterior: tests on the iterates themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rightbatch.errors import InputError

Array = NDArray[np.float64]

LEAST = 8
"""Fewer samples test nothing."""

COMPONENTS, ENTRIES = 8, 32
"""Principal components that are tested for order, and parameters that are tested for their distribution."""

TOLERATED = 0.3
"""Correlation of neighbouring samples. At the optimal rate a pass leaves exp(-2) = 0.14 of what noise like the Hessian
disturbs."""

LEVEL = 0.001
"""Of each test, over all that it looks at (Bonferroni)."""


@dataclass(frozen=True)
class IterateTests:
    """What samples say of the assumptions that make them samples.

    trend_p_value: Of no trend (Spearman's rank correlation with time) in their principal components, counting as many
        samples as their autocorrelation about a line leaves.
    autocorrelation: The largest of neighbouring samples along these components.
    autocorrelation_p_value: Of at most 0.3.
    normal_p_value: Of a normal distribution of single parameters (Shapiro and Wilk).
    idle: Parameters that never moved.
    """

    samples: int
    parameters: int
    trend_p_value: float
    autocorrelation: float
    autocorrelation_p_value: float
    normal_p_value: float
    idle: int

    @property
    def failures(self) -> tuple[str, ...]:
        """What is wrong, a sentence for each; nothing where no test failed."""
        said = []
        if self.trend_p_value < LEVEL:
            said.append(
                f"Not stationary: samples follow a trend in time (p = {self.trend_p_value:.1g}). Train on to the "
                f"optimum, or burn in for longer."
            )
        elif self.autocorrelation_p_value < LEVEL:
            said.append(
                f"Not independent: neighbouring samples correlate by {self.autocorrelation:.2f}. They are still on "
                f"their way to the optimum, or some directions are so flat that the steps between two do not forget. "
                f"Train on, or keep samples that are further apart."
            )
        if self.normal_p_value < LEVEL:
            said.append(
                f"Not Gaussian (p = {self.normal_p_value:.1g}): the loss is not quadratic over the distance that the "
                f"iterates cover, or its noise changes over it."
            )
        if self.idle:
            said.append(f"{self.idle:,} of {self.parameters:,} parameters never moved: they have no gradient.")
        if self.samples <= self.parameters:
            said.append(
                f"Rank-deficient: {self.samples:,} samples of {self.parameters:,} parameters leave directions without "
                f"any spread. Variances of single parameters and of predictions can be had, a covariance cannot."
            )
        return tuple(said)


def iterate_tests(samples: Array, *, seed: int = 0) -> IterateTests:
    """Test samples `[k, d]`, in the order of time.

    If samples are independent and stationary, any order of them is as probable: so the order along principal components
    can be tested though these were found in the samples. Raises `InputError` for fewer than 8, or values that are not
    finite.
    """
    from scipy import stats  # takes a second

    samples = np.asarray(samples, dtype=np.float64)
    if samples.ndim != 2 or len(samples) < LEAST:
        raise InputError(f"The tests need at least {LEAST} samples [k, d], got shape {samples.shape}. Go on sampling.")
    if not np.isfinite(samples).all():
        raise InputError("Samples are not finite: the iterates diverged. Cap the rate (max_lr).")
    k, d = samples.shape
    spread = samples.std(axis=0)
    moving = np.flatnonzero(spread > 0)
    if not len(moving):
        return IterateTests(k, d, 1.0, 0.0, 1.0, 1.0, d)
    deviations = (samples[:, moving] - samples[:, moving].mean(axis=0)) / spread[moving]
    components = _components(deviations)
    time = np.arange(k)
    ranked = np.array([float(stats.spearmanr(time, one).statistic) for one in components.T])
    about_lines = components - np.outer(time - time.mean(), (time - time.mean()) @ components / (k * time.var()))
    left = _neighbours(about_lines)
    left = np.clip(left + (1 + 3 * left) / k, 0, 0.99)  # its bias: Marriott and Pope 1954, Kendall 1954
    trends = 2 * stats.norm.sf(np.abs(ranked) * np.sqrt((k - 1) * (1 - left) / (1 + left)))
    # Of k independent values the autocorrelation is about -1 / k, with a deviation of about 1 / sqrt(k).
    neighbours = _neighbours(components)
    of_neighbours = stats.norm.sf((neighbours + 1 / k - TOLERATED) * np.sqrt(k / (1 - TOLERATED**2)))
    some = np.random.default_rng(seed).permutation(deviations.shape[1])[:ENTRIES]
    normal = [float(stats.shapiro(one).pvalue) for one in deviations[:, some].T]
    return IterateTests(
        samples=k,
        parameters=d,
        trend_p_value=_least(trends),
        autocorrelation=float(neighbours.max()),
        autocorrelation_p_value=_least(of_neighbours),
        normal_p_value=_least(normal),
        idle=d - len(moving),
    )


def _components(deviations: Array) -> Array:
    """Scores along the largest principal components, `[k, m]`, from the k x k products of samples."""
    values, vectors = np.linalg.eigh(deviations @ deviations.T)
    largest = values[::-1] > 1e-9 * values[-1]
    found: Array = vectors[:, ::-1][:, largest][:, :COMPONENTS]
    return found


def _neighbours(series: Array) -> Array:
    """The autocorrelation of each column at a distance of one."""
    found: Array = np.sum(series[1:] * series[:-1], axis=0) / np.sum(series**2, axis=0)
    return found


def _least(p_values: object) -> float:
    found = np.asarray(p_values, dtype=np.float64)
    return float(min(1.0, found.min() * len(found)))
