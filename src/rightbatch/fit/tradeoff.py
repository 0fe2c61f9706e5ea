"""Steps against batch size: S(B) = S_min (1 + B_crit / B), McCandlish et al. 2018 (arXiv 1812.06162), eq. 2.11.

With S_min the fewest steps (any batch) and E_min = S_min * B_crit the fewest examples, this is
(S / S_min - 1) (E / E_min - 1) = 1. It is a model, not the truth: fits to published curves miss by 3 to 20 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rightbatch.fit.hyperbola import HyperbolaFit, fit_hyperbola
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


def fit_tradeoff(batch_sizes: Sequence[float], steps: Sequence[float], level: float = 0.95) -> TradeoffFit:
    """Fit the law to steps to a target with the rate tuned at each size: one value (mean over seeds) a size.

    Raises `InputError` with fewer than three sizes.
    """
    return TradeoffFit(fit_hyperbola(batch_sizes, steps, sign=1, level=level))
