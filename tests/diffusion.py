"""Constant SGD as a diffusion, the theory of Mandt et al. that the covariance of its steps is compared with."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from rightbatch.fit.posterior import Array, ConstantSGD, Optimum


def diffusion_covariance(optimum: Optimum, sgd: ConstantSGD) -> Array:
    """Of the iterates by the paper's stochastic differential equation, for rates far below the largest that is stable.

    H A S + S A H = H C H / batch size, with H = rate times P over 1 - momentum: equations 13 and 25.
    """
    step = sgd.step(optimum.size) / (1 - sgd.momentum)
    drift = step @ optimum.hessian
    assert np.linalg.eigvals(drift).real.min() > 0, "this is no minimum"
    found: Array = scipy.linalg.solve_continuous_lyapunov(drift, step @ optimum.noise @ step.T / sgd.batch_size)
    return (found + found.T) / 2
