"""The gradient noise scale from squared norms of gradients, with its error bar.

The simple noise scale tr(Sigma) / |G|^2 (McCandlish et al. 2018, arXiv 1812.06162, section 2.2): G is the gradient of
the expected loss, Sigma the covariance of the gradient of one example. It is the batch size at which noise and gradient
contribute alike to one step. Both terms are estimated without bias from the parts of one batch (appendix A.1 is the
case of equal parts), averaged over steps, and only then divided: the average of ratios of single steps is no estimate
of anything, and a ratio of terms smoothed over too few steps is biased.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy  # its parts are loaded when they are first used

from rightbatch.errors import InputError
from rightbatch.fit.quantiles import t_interval, t_quantile
from rightbatch.records import GradientSample, Interval

Array = npt.NDArray[np.float64]

FEWEST_SAMPLES = 4

CRITICAL_OVER_NOISE_AT_TARGET, CRITICAL_OVER_NOISE_BEFORE = (1.8, 1.1), (4.0, 1.3)
"""The critical batch size by steps to a target over the noise scale: median, and standard deviation of the log.

At the target: over the last quarter of a training that got there. On seven problems the ratio was 0.7 to 12.7, with
geometric mean 1.8 and deviation 1.07. Before: the noise scale grows along a training. Over the first tenth of the same
trainings the ratio was 7.7 on average; how far a training is from a target that it did not reach is not known
(benchmarks/noise_against_critical.json).
"""


@dataclass(frozen=True)
class NoiseEstimate:
    """The noise scale and its two terms, with the batch sizes and rates that they were measured at.

    scale: tr(Sigma) / |G|^2 in examples, at least 0. Its upper bound is infinite where |G|^2 cannot be told from zero;
        the estimate too where the mean of |G|^2 is not even positive.
    gradient_squared, noise_trace: |G|^2 and tr(Sigma), means over the steps.
    batch_sizes, learning_rates: The smallest and the largest in force.
    steps: The first and the last one that was sampled.
    samples: How many steps were sampled.
    freedom: Degrees of freedom of the interval.
    """

    scale: Interval
    gradient_squared: Interval
    noise_trace: Interval
    batch_sizes: tuple[int, int]
    learning_rates: tuple[float, float]
    steps: tuple[int, int]
    samples: int
    freedom: int

    @property
    def relative_error(self) -> float:
        """The standard error of the log of the scale, from the width of its interval; infinite where that is."""
        low, high = self.scale.low or 0.0, self.scale.high or math.inf
        if low <= 0 or not math.isfinite(high):
            return math.inf
        return math.log(high / low) / 2 / t_quantile(0.5 + self.scale.level / 2, self.freedom)


@dataclass(frozen=True)
class CriticalPrior:
    """What a noise scale says of the critical batch size before any run to the target: a log-normal."""

    log_mean: float
    log_deviation: float

    def interval(self, level: float) -> Interval:
        """Its central interval, in examples."""
        half = float(scipy.special.ndtri(0.5 + level / 2)) * self.log_deviation
        return Interval(math.exp(self.log_mean), math.exp(self.log_mean - half), math.exp(self.log_mean + half), level)


def last_quarter(samples: Sequence[GradientSample]) -> list[GradientSample]:
    """Those of the plain metric at the end of a training, which say most of what comes."""
    plain = [sample for sample in samples if sample.metric == "plain"]
    return plain[-max(FEWEST_SAMPLES, len(plain) // 4) :]


def critical_prior(samples: Sequence[GradientSample], *, at_target: bool) -> CriticalPrior | None:
    """The prior from the last quarter of the samples of a training; None where they do not bound the noise scale.

    `at_target`: whether that training had reached the target by its end.
    """
    last = last_quarter(samples)
    if len(last) < FEWEST_SAMPLES:
        return None
    found = noise_scale(last)
    if not (math.isfinite(found.relative_error) and found.scale.estimate > 0):
        return None
    times, deviation = CRITICAL_OVER_NOISE_AT_TARGET if at_target else CRITICAL_OVER_NOISE_BEFORE
    return CriticalPrior(math.log(times * found.scale.estimate), math.hypot(deviation, found.relative_error))


def terms(samples: Sequence[GradientSample], train_examples: int | None = None) -> tuple[Array, Array]:
    """Unbiased estimates of |G|^2 and of tr(Sigma) from every single step; two arrays of shape `[samples]`.

    A batch of B examples has parts (examples, or micro-batches) with shares p_i of its loss, and its gradient g is the
    sum of their contributions c_i = p_i g_i. The products of different parts have no noise in common:

        |G|^2     = (|g|^2 - sum |c_i|^2) / (1 - sum p_i^2)
        tr(Sigma) = B (sum |c_i|^2 - |G|^2 sum p_i^2)

    For B examples of equal shares these are the formulas of appendix A.1 with B_small = 1 and B_big = B.

    `train_examples`: The examples were drawn without replacement from so many, and G is the mean over exactly these.
    Two different examples are then slightly anticorrelated, by -tr(Sigma) / N; the noise of the batch is that of
    sampling with replacement times 1 - B / N.
    """
    batch = np.array([sample.batch_squared for sample in samples])
    parts = np.array([sample.parts_squared for sample in samples])
    shares = np.array([sample.shares_squared for sample in samples])
    sizes = np.array([sample.batch_size for sample in samples], dtype=float)
    gradient = (batch - parts) / (1 - shares)
    trace = sizes * (parts - gradient * shares)
    if train_examples is not None:
        gradient = gradient + trace / train_examples
    return gradient, trace


def noise_scale(
    samples: Sequence[GradientSample], *, train_examples: int | None = None, level: float = 0.95
) -> NoiseEstimate:
    """The noise scale over the sampled steps, as a ratio of averages, with Fieller's interval.

    Fieller (1954): the ratio is theta exactly if the mean of noise - theta gradient is zero, so that the interval holds
    every theta for which it may be. Where |G|^2 cannot be told from zero no upper bound exists, and none is given.

    What is estimated is the ratio over the steps of this very run. Given the weights, the errors of different steps
    have nothing in common, and their variance shows in the differences of neighbours (von Neumann 1941): how |G|^2
    itself changes from one part of the run to another is no error. Where it jumps from step to step that counts as
    error too, and the interval is rather too wide. Two thirds of the differences count as degrees of freedom. A sample
    counts by the steps that it stands for, halfway to its neighbours: a monitor looks more often at the start.

    Raises
    ------
    InputError: With fewer than 4 samples, with one that is not finite, or with a batch of one part.
    """
    _check(samples)
    gradient, trace = terms(samples, train_examples)
    weights = _weights(np.array([sample.step for sample in samples]))
    shares = (weights[1:] ** 2 + weights[:-1] ** 2) / 2
    freedom = max(2, round(2 / 3 * float(shares.sum() ** 2 / (shares**2).sum())))
    differences = np.diff([trace, gradient])
    covariance = (differences * shares) @ differences.T / 2 * float((weights**2).sum() / shares.sum())
    means = float(trace @ weights), float(gradient @ weights)
    errors = np.sqrt(np.diag(covariance))
    low, high = _fieller(*means, covariance, t_quantile(0.5 + level / 2, freedom))
    estimate = max(0.0, means[0]) / means[1] if means[1] > 0 else math.inf
    return NoiseEstimate(
        scale=Interval(estimate, min(low, estimate), max(high, estimate), level),
        gradient_squared=t_interval(means[1], errors[1], freedom, level),
        noise_trace=t_interval(means[0], errors[0], freedom, level),
        batch_sizes=(min(s.batch_size for s in samples), max(s.batch_size for s in samples)),
        learning_rates=(min(s.learning_rate for s in samples), max(s.learning_rate for s in samples)),
        steps=(min(s.step for s in samples), max(s.step for s in samples)),
        samples=len(samples),
        freedom=freedom,
    )


def _check(samples: Sequence[GradientSample]) -> None:
    if len(samples) < FEWEST_SAMPLES:
        raise InputError(f"A noise scale needs at least {FEWEST_SAMPLES} sampled steps, got {len(samples)}.")
    for sample in samples:
        if not (math.isfinite(sample.batch_squared) and math.isfinite(sample.parts_squared)):
            raise InputError(
                f"The gradient of step {sample.step} is not finite (|g|^2 = {sample.batch_squared}). Lower the "
                f"learning rate, or leave the steps out that a gradient scaler leaves out."
            )
        if not 0 < sample.shares_squared < 1:
            raise InputError(
                f"The batch of step {sample.step} has only one part (its squared shares add up to "
                f"{sample.shares_squared:g}), and noise shows in the differences of parts: use two or more."
            )


def _weights(steps: npt.NDArray[np.int64]) -> Array:
    """By how many steps a sample stands for; all alike where the steps are not those of one training, in order."""
    gaps = np.diff(steps).astype(float)
    if not (gaps > 0).all():
        return np.full(len(steps), 1 / len(steps))
    weights = (np.concatenate([gaps[:1], gaps]) + np.concatenate([gaps, gaps[-1:]])) / 2
    return np.asarray(weights / weights.sum())


def _fieller(trace: float, gradient: float, covariance: Array, quantile: float) -> tuple[float, float]:
    """All ratios theta >= 0 with (trace - theta gradient)^2 <= quantile^2 var(trace - theta gradient), if one interval.

    Where the set is two half lines, the one that holds the ratios of a small positive gradient.
    """
    squared = quantile**2
    a = gradient**2 - squared * float(covariance[1, 1])
    b = gradient * trace - squared * float(covariance[0, 1])
    c = trace**2 - squared * float(covariance[0, 0])
    root = math.sqrt(max(0.0, b * b - a * c))
    if a > 0 and gradient > 0:
        return max(0.0, (b - root) / a), max(0.0, (b + root) / a)
    if c <= 0 or trace <= 0 or a == 0:
        return 0.0, math.inf  # not even the noise can be told from zero
    # With c > 0 the bounds 1 / theta are the roots of c x^2 - 2 b x + a: the larger one is what |G|^2 / tr may be.
    largest = (b + root) / c
    return (1 / largest, math.inf) if largest > 0 else (math.inf, math.inf)
