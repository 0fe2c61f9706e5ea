"""A quadratic whose gradients are Gaussian: the best rate of one step of sign descent, exactly and by drawing.

Gradients of examples have mean mu and deviations sigma, each entry by itself; the loss has the Hessian H. A step of
rate e along the signs s of a mean over B examples lowers the loss by e s'mu - e^2 s'Hs / 2. With E[s_i^2] = 1 and
E_i = E[s_i] = erf(sqrt(B / 2) mu_i / sigma_i), the expectation is largest at

    e(B) = sum_i E_i mu_i / (sum_i (1 - E_i^2) H_ii + E'HE)             (Li et al. 2024, 9 and 10)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Quadratic:
    """mean and deviation of the gradient of one example, `[d]`, and the Hessian `[d, d]`."""

    mean: Array
    deviation: Array
    hessian: Array

    def signs(self, batch_size: float) -> Array:
        """Their expectations."""
        return np.asarray(scipy.special.erf(math.sqrt(batch_size / 2) * self.mean / self.deviation))

    def best_rate(self, batch_size: float) -> float:
        """Of sign descent."""
        signs = self.signs(batch_size)
        curved = np.sum((1 - signs**2) * np.diag(self.hessian)) + signs @ self.hessian @ signs
        return float(signs @ self.mean / curved)

    def best_rate_of_sgd(self, batch_size: float) -> float:
        """|mu|^2 / (mu'H mu + tr(H Sigma) / B), McCandlish et al. 2018."""
        noise = np.sum(np.diag(self.hessian) * self.deviation**2) / batch_size
        return float(self.mean @ self.mean / (self.mean @ self.hessian @ self.mean + noise))

    @property
    def noise_scale(self) -> float:
        """Where the best rate of sign descent peaks, by equation 14; infinite where it does not."""
        ratio = self.mean / self.deviation
        pairs = ratio @ self.hessian @ ratio - np.sum(np.diag(self.hessian) * ratio**2)
        return float(math.pi * np.trace(self.hessian) / (2 * pairs)) if pairs > 0 else math.inf

    @property
    def without_noise(self) -> float:
        """What the best rate goes to as batches grow."""
        signs = np.sign(self.mean)
        return float(np.abs(self.mean).sum() / (signs @ self.hessian @ signs))

    def drawn_rate(self, batch_size: float, draws: int, generator: np.random.Generator) -> float:
        """The best rate over so many drawn steps: the means of what helps and of what bends."""
        helps = bends = 0.0
        for _ in range(draws // 1000):
            noise = generator.standard_normal((1000, len(self.mean))) * self.deviation / math.sqrt(batch_size)
            signs = np.sign(self.mean + noise)
            helps += float((signs @ self.mean).sum())
            bends += float(np.einsum("ni,ij,nj->", signs, self.hessian, signs, optimize=True))
        return helps / bends


def quadratic(coupling: float) -> Quadratic:
    """100 entries with signals of a fiftieth to a fifth of their noise; off the diagonal H is `coupling`, on it 1."""
    generator = np.random.default_rng(0)
    mean = generator.uniform(0.02, 0.2, 100)
    deviation = generator.uniform(0.5, 2.0, 100)
    return Quadratic(mean * deviation, deviation, np.full((100, 100), coupling) + (1 - coupling) * np.eye(100))
