"""Many chains at once on real batches, and how far they end from the posterior."""

from __future__ import annotations

from typing import Any

import numpy as np
from _mandt_problems import Array, Regression

from rightbatch.fit.posterior import (
    ConstantSGD,
    diagonal_preconditioner,
    full_preconditioner,
    kl_divergence,
    langevin_covariance,
    optimal_learning_rate,
    posterior_covariance,
    stationary_covariance,
)

METHODS = ("SGD", "SGD-d", "SGD-f", "SGLD")


def way(problem: Regression, method: str, batch_size: int, langevin_step: float) -> ConstantSGD:
    """A method of Table 1 as constant SGD; for Langevin dynamics the part of its step that the gradient makes."""
    optimum = problem.optimum
    if method == "SGLD":
        return ConstantSGD(langevin_step * optimum.examples / 2, batch_size)
    if method == "SGD":
        return ConstantSGD(optimal_learning_rate(optimum, batch_size), batch_size)
    preconditioner = diagonal_preconditioner if method == "SGD-d" else full_preconditioner
    return ConstantSGD(1.0, batch_size, preconditioner=preconditioner(optimum, batch_size))


def predicted(problem: Regression, method: str, sgd: ConstantSGD, langevin_step: float) -> Array:
    """The covariance that the theory says. Raises `InputError` where there is none."""
    if method == "SGLD":
        return langevin_covariance(problem.optimum, langevin_step, sgd.batch_size)
    return stationary_covariance(problem.optimum, sgd)


def simulated(
    problem: Regression, sgd: ConstantSGD, *, steps: int, chains: int, seed: int, langevin_step: float = 0.0
) -> Array:
    """Second moments about the solution, `[d, d]`, over chains that begin at draws of the posterior.

    The first half of the steps is left out. `langevin_step`: also adds normal noise of this variance.
    """
    draw, d = np.random.default_rng(seed), len(problem.solution)
    step = sgd.step(d)
    root = np.linalg.cholesky(posterior_covariance(problem.optimum))
    theta = problem.solution + draw.normal(size=(chains, d)) @ root.T
    velocity, moments, counted = np.zeros((chains, d)), np.zeros((d, d)), 0
    every = max(1, steps // 2000)
    for number in range(steps):
        chosen = draw.integers(len(problem.labels), size=(chains, int(sgd.batch_size)))
        velocity = sgd.momentum * velocity + problem.gradients(theta, chosen)
        theta = theta - velocity @ step.T
        if langevin_step:
            theta += langevin_step**0.5 * draw.normal(size=(chains, d))
        if number >= steps // 2 and number % every == 0:
            off = theta - problem.solution
            moments += off.T @ off
            counted += chains
    return moments / counted


def divergence(problem: Regression, moments: Array) -> float:
    """KL to the posterior of a Gaussian about the solution."""
    return kl_divergence(problem.optimum, moments)


def off(found: Array, truth: Array) -> float:
    """Relative Frobenius error."""
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def averages(
    problem: Regression, *, rate: float, batch_size: int, window: int, steps: int, seed: int, scale: Array | None = None
) -> dict[str, Any]:
    """One chain of PyTorch's SGD and its means over a window: their variances over the posterior's, of each half too.

    `scale`: a diagonal preconditioner `[d]`.
    """
    import torch

    from rightbatch.optim import IterateAverage

    draw = np.random.default_rng(seed)
    theta = torch.from_numpy(problem.solution.copy())
    optimizer, means = torch.optim.SGD([theta], lr=rate), IterateAverage([theta], steps=window)
    iterates, d = np.zeros(len(theta)), len(theta)
    view = theta.numpy()  # the same memory
    for start in range(0, steps, 10_000):
        chosen = draw.integers(len(problem.labels), size=(min(10_000, steps - start), 1, batch_size))
        for some in chosen:
            gradient = problem.gradients(view[None], some)[0]
            theta.grad = torch.from_numpy(gradient if scale is None else scale * gradient)
            optimizer.step()
            means.update()
            iterates += (view - problem.solution) ** 2
    posterior = np.trace(posterior_covariance(problem.optimum)) / d
    of_means = ((means.samples.numpy() - problem.solution) ** 2).mean(1) / posterior
    return {
        "iterates": float(iterates.mean() / steps / posterior),
        "means": [float(value) for value in of_means],
        "failures": list(means.tests().failures) if len(means.samples) >= 8 else [],
    }
