"""Constant SGD near a minimum as approximate Bayesian inference: S. Mandt, M. D. Hoffman and D. M. Blei, "Stochastic
Gradient Descent as Approximate Bayesian Inference" (JMLR 18(134), 2017; arXiv 1704.04289).

The loss is the mean over N examples of -log p(x_n | theta), with -log p(theta) / N added. Near its minimum it is taken
to be quadratic with the Hessian A, and the gradient of one example to have the same covariance C everywhere. Then the
posterior is a Gaussian of covariance A^-1 / N, and the iterates of SGD at a constant rate have a Gaussian distribution
too, which batch size and rate can bring close to it. Momentum is PyTorch's: v <- momentum v + g, theta <- theta -
rate P v with a preconditioner P. Two formulas of the paper are misprinted and are put right here: (20), and the
correction of constant-rate Langevin dynamics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rightbatch.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Optimum:
    """What the theory needs of a minimum.

    hessian: A, of the mean loss, shape `[d, d]`.
    noise: C, the covariance of the gradient of one example, shape `[d, d]`; BB^T in the paper.
    examples: N.

    Raises `InputError` for shapes that do not fit, or a matrix that is not symmetric and finite.
    """

    hessian: Array
    noise: Array
    examples: int

    def __post_init__(self) -> None:
        for name in ("hessian", "noise"):
            matrix = np.asarray(getattr(self, name), dtype=np.float64)
            if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
                raise InputError(f"The {name} is a square matrix [d, d], got shape {matrix.shape}.")
            if not np.isfinite(matrix).all() or not np.allclose(matrix, matrix.T, rtol=1e-6, atol=1e-12):
                raise InputError(f"The {name} is symmetric and finite; this one is not.")
            object.__setattr__(self, name, (matrix + matrix.T) / 2)
        if self.hessian.shape != self.noise.shape:
            raise InputError(f"Hessian and noise have one shape, got {self.hessian.shape} and {self.noise.shape}.")
        if self.examples < 1:
            raise InputError(f"There is at least 1 example, got {self.examples}.")

    @property
    def size(self) -> int:
        """d, the number of parameters."""
        return len(self.hessian)


@dataclass(frozen=True, eq=False)
class ConstantSGD:
    """SGD at a constant rate, on batches drawn with replacement.

    preconditioner: P, shape `[d, d]`, or its diagonal `[d]`; None: the identity. The paper's H is rate times P.
    momentum: beta; 1 - mu in the paper.

    Raises `InputError` for a number that cannot be.
    """

    learning_rate: float
    batch_size: float
    momentum: float = 0.0
    preconditioner: Array | None = None

    def __post_init__(self) -> None:
        for name in ("learning_rate", "batch_size"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} is a positive number, got {value:g}.")
        if not 0 <= self.momentum < 1:
            raise InputError(f"Momentum is at least 0 and below 1, got {self.momentum:g}.")

    def step(self, size: int) -> Array:
        """Rate times preconditioner, shape `[size, size]`. Raises `InputError` for another shape."""
        matrix = np.eye(size) if self.preconditioner is None else np.asarray(self.preconditioner, dtype=np.float64)
        matrix = np.diag(matrix) if matrix.ndim == 1 else matrix
        if matrix.shape != (size, size):
            raise InputError(f"A preconditioner of {size} parameters is [{size}, {size}], got {matrix.shape}.")
        return self.learning_rate * matrix


def posterior_covariance(optimum: Optimum) -> Array:
    """A^-1 / N. Raises `InputError` where A is not positive definite: then there is no such posterior."""
    least = float(np.linalg.eigvalsh(optimum.hessian)[0])
    if least <= 1e-12 * float(np.abs(optimum.hessian).max()):
        raise InputError(
            f"The Hessian has an eigenvalue of {least:g}: a posterior needs all of them above zero. This is no "
            f"minimum, or some directions do not matter to the loss: add a prior (weight decay), or leave them out."
        )
    inverse: Array = np.linalg.inv(optimum.hessian) / optimum.examples
    return (inverse + inverse.T) / 2


def kl_divergence(optimum: Optimum, covariance: Array, off: Array | None = None) -> float:
    """KL(q || posterior) in nats, of a Gaussian q of this covariance, with its mean `off` the minimum: equation 14.

    Raises `InputError` for a covariance that is not positive definite.
    """
    sign, log_determinant = np.linalg.slogdet(covariance)
    if sign <= 0:
        raise InputError(
            "This covariance is not positive definite: as an approximation of the posterior it is infinitely far off. "
            "Take more samples than parameters."
        )
    precision = optimum.examples * optimum.hessian
    energy = float(np.sum(precision * covariance))
    if off is not None:
        energy += float(off @ precision @ off)
    logs = float(np.linalg.slogdet(precision)[1]) + float(log_determinant)
    return 0.5 * (energy - logs - optimum.size)


# ------------------------------------------------------------------------------------------- where the iterates are


def stationary_covariance(optimum: Optimum, sgd: ConstantSGD) -> Array:
    """Of the iterates, shape `[d, d]`: exact for the steps as they are taken, on a quadratic with constant noise.

    Raises `InputError` for a rate at which the iterates have no stationary distribution.
    """
    transition, noise = recursion(optimum, sgd)
    return fixed_point(transition, noise)[: optimum.size, : optimum.size]


def langevin_covariance(optimum: Optimum, step: float, batch_size: float) -> Array:
    """Of stochastic gradient Langevin dynamics at a constant step (Welling and Teh 2011): exact, as above.

    theta <- theta - step / 2 N g + sqrt(step) V. The gradient's noise adds step^2 N^2 C / (4 batch size) a step; the
    paper prints step N C / (2 batch size), in its diffusion, which its own update does not give.
    """
    rate = step * optimum.examples / 2
    transition = np.eye(optimum.size) - rate * optimum.hessian
    return fixed_point(transition, rate**2 * optimum.noise / batch_size + step * np.eye(optimum.size))


def fixed_point(transition: Array, noise: Array) -> Array:
    """S = M S M^T + noise. Raises `InputError` where M does not contract."""
    import scipy.linalg

    _stable(transition)
    found: Array = scipy.linalg.solve_discrete_lyapunov(transition, noise)
    return (found + found.T) / 2


def recursion(optimum: Optimum, sgd: ConstantSGD) -> tuple[Array, Array]:
    """(theta, velocity) after a step as a matrix of those before, and the covariance of what the noise adds."""
    d, step, beta = optimum.size, sgd.step(optimum.size), sgd.momentum
    noise = optimum.noise / sgd.batch_size
    if not beta:
        return np.eye(d) - step @ optimum.hessian, step @ noise @ step.T
    transition = np.block([[np.eye(d) - step @ optimum.hessian, -beta * step], [optimum.hessian, beta * np.eye(d)]])
    into = np.vstack([-step, np.eye(d)])
    return transition, into @ noise @ into.T


def _stable(transition: Array) -> None:
    radius = float(np.abs(np.linalg.eigvals(transition)).max())
    if radius >= 1 - 1e-12:
        raise InputError(
            f"At this rate the iterates have no stationary distribution: what is left of a deviation after a step is "
            f"{radius:.6g} of it, and has to be below 1. Take a smaller rate; if it is small already, the Hessian has "
            f"directions without curvature."
        )


# --------------------------------------------------------------------------------------------- what size and rate mean


def temperature(optimum: Optimum, sgd: ConstantSGD) -> float:
    """How much energy the iterates have, N tr(A S) / d, with that of the posterior for 1.

    rate N tr(P C) / (2 (1 - momentum) batch size d) by the diffusion, whatever the Hessian: the rate over the optimal
    one. It is a temperature in the sense of statistical physics, though the iterates have the distribution of a
    posterior at this temperature only where the noise is that of the preconditioner's inverse.
    """
    energy = float(np.sum(sgd.step(optimum.size) * optimum.noise)) / (1 - sgd.momentum)
    return temperature_of(energy, sgd.batch_size, optimum.examples, optimum.size)


def temperature_of(energy: float, batch_size: float, examples: int, parameters: int) -> float:
    """The same from tr(H C) alone, with H = rate times P over 1 - momentum: all that a large model needs."""
    return examples * energy / (2 * batch_size * parameters)


def optimal_learning_rate(
    optimum: Optimum, batch_size: float, *, momentum: float = 0.0, preconditioner: Array | None = None
) -> float:
    """The rate nearest to the posterior by KL(q || posterior): 2 S d / (N tr C), equations 15 and 47.

    The momentum counts as 1 / (1 - momentum) times the rate: equation 25.
    """
    return 1 / temperature(optimum, ConstantSGD(1.0, batch_size, momentum, preconditioner))


def optimal_batch_size(
    optimum: Optimum, learning_rate: float, *, momentum: float = 0.0, preconditioner: Array | None = None
) -> float:
    """The batch size nearest to the posterior at a rate: the same equation, solved for S."""
    return temperature(optimum, ConstantSGD(learning_rate, 1.0, momentum, preconditioner))


def full_preconditioner(optimum: Optimum, batch_size: float) -> Array:
    """H* = (2 S / N) C^-1, to be used at rate 1: the iterates are samples of the posterior. Equation 17.

    Raises `InputError` where C has no inverse.
    """
    eigenvalues = np.linalg.eigvalsh(optimum.noise)
    if eigenvalues[0] <= 1e-12 * eigenvalues[-1]:
        raise InputError(
            f"The gradient noise has no full rank (eigenvalues from {eigenvalues[0]:g} to {eigenvalues[-1]:g}): some "
            f"directions are never disturbed, and no preconditioner helps. Take the diagonal one, or fewer parameters."
        )
    inverse = np.linalg.inv(optimum.noise)
    return batch_size / optimum.examples * (inverse + inverse.T)


def diagonal_preconditioner(optimum: Optimum, batch_size: float) -> Array:
    """Its diagonal form, 2 S / (N C_kk), shape `[d]`: section 3.2. Raises `InputError` where C_kk is zero."""
    diagonal = np.diag(optimum.noise)
    if (diagonal <= 0).any():
        raise InputError(f"{int((diagonal <= 0).sum())} parameters have no gradient noise: leave them out.")
    return 2 * batch_size / (optimum.examples * diagonal)
