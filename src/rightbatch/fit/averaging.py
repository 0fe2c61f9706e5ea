"""Means of iterates of constant SGD: their covariance, and when they are samples of the posterior (Mandt et al.)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rightbatch.errors import InputError
from rightbatch.fit.posterior import Array, ConstantSGD, Optimum, fixed_point, recursion

FORGETTING = 3.0
"""Times that the slowest direction has to forget its past within a window: its mean is then too narrow by a third."""


def averaged_covariance(optimum: Optimum, sgd: ConstantSGD, window: int) -> Array:
    """Of the mean of so many iterates in a row, exact as above; the paper's equation 33 is its limit for small rates.

    With a window of N / batch size steps, a pass, it comes near the posterior whatever the rate: section 4.3.
    """
    if window < 1:
        raise InputError(f"A mean is over at least 1 iterate, got {window}.")
    transition, noise = recursion(optimum, sgd)
    covariance, one = fixed_point(transition, noise), np.eye(len(transition))
    # The covariance of two iterates that are k steps apart is M^k S: the sum of (window - k) M^k is a geometric one.
    inverse = np.linalg.inv(one - transition)
    power = np.linalg.matrix_power(transition, window)
    apart = (window * one - transition @ (one - power) @ inverse) @ inverse - window * one
    found = (window * covariance + apart @ covariance + covariance @ apart.T) / window**2
    block: Array = found[: optimum.size, : optimum.size]
    return (block + block.T) / 2


@dataclass(frozen=True)
class AveragingRegime:
    """How far a rate is from both ends of the regime 2 / (S largest) > rate / S > c / (N smallest) of section 5.2.

    overshoot: The rate over the largest stable one, along the steepest direction.
    forgets: How many times the flattest direction forgets its past in a window: window x rate x eigenvalue.
    """

    overshoot: float
    forgets: float

    @property
    def failures(self) -> tuple[str, ...]:
        """What is wrong, a sentence for each; nothing within the regime."""
        said = []
        if self.overshoot >= 1:
            said.append(f"The rate is {self.overshoot:.3g} times the largest that is stable: take a smaller one.")
        if self.forgets < FORGETTING:
            said.append(
                f"The flattest direction forgets its past only {self.forgets:.2g} times within a window, not "
                f"{FORGETTING:g}: means are too narrow along it. Take a larger rate, or a prior that bends it."
            )
        return tuple(said)


def averaging_regime(optimum: Optimum, sgd: ConstantSGD, window: int) -> AveragingRegime:
    """Whether means over a window are samples of the posterior, by the Hessian that the steps see."""
    bends = np.linalg.eigvals(sgd.step(optimum.size) @ optimum.hessian).real
    steepest, flattest = float(bends.max()), float(bends.min())
    return AveragingRegime(steepest / (2 * (1 + sgd.momentum)), window * flattest / (1 - sgd.momentum))
