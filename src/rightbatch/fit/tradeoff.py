"""Steps against batch size: S(B) = S_min (1 + B_crit / B), McCandlish et al. 2018 (arXiv 1812.06162), eq. 2.11.

With S_min the fewest steps (any batch) and E_min = S_min * B_crit the fewest examples, this is
(S / S_min - 1) (E / E_min - 1) = 1. It is a model, not the truth: fits to published curves miss by 3 to 20 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rightbatch.fit.hyperbola import HyperbolaFit, fit_hyperbola
from rightbatch.fit.noise import CriticalPrior
from rightbatch.records import Interval


@dataclass(frozen=True)
class TradeoffFit:
    """The law and its two parameters: `minimum_steps` and `critical_batch_size`."""

    hyperbola: HyperbolaFit

    @property
    def minimum_steps(self) -> Interval:
        """S_min: steps that no batch size can go below."""
        return self.hyperbola.scale

    @property
    def critical_batch_size(self) -> Interval:
        """B_crit: there, steps and examples are both twice their minimum."""
        return self.hyperbola.knee

    def steps(self, batch_size: float) -> float:
        """Steps to the target at a batch size, by the law."""
        return self.hyperbola.predict(batch_size)


def fit_tradeoff(
    batch_sizes: Sequence[float], steps: Sequence[float], level: float = 0.95, *, prior: CriticalPrior | None = None
) -> TradeoffFit:
    """Fit the law to steps to a target with the rate tuned at each size: one value (mean over seeds) a size.

    `prior`, from gradients, bounds the critical size where the sizes tried do not, and says so; elsewhere steps alone
    count, for they measure what is asked.

    Raises `InputError` with fewer than three sizes.
    """
    found = fit_hyperbola(batch_sizes, steps, sign=1, level=level)
    return TradeoffFit(found if prior is None else replace(found, knee=_bounded(found.knee, prior)))


def _bounded(knee: Interval, prior: CriticalPrior) -> Interval:
    known = prior.interval(knee.level)
    low, high = knee.low or known.low, knee.high if knee.high and math.isfinite(knee.high) else known.high
    assert low is not None
    assert high is not None
    if (low, high) == (knee.low, knee.high) or low >= high:  # the latter: they contradict each other
        return knee
    estimate = min(max(knee.estimate, low), high)
    return replace(knee, estimate=estimate, low=low, high=high, note=f"{knee.note}; the noise scale bounds it")
