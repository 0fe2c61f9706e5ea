"""A noisy quadratic whose expected loss is known exactly: the ground truth of the tests.

The loss is 1/2 sum_i h_i theta_i^2, the gradient of one example has independent Gaussian noise of variance
`noise` * h_i in each dimension (the model of Zhang et al. 2019, "Which algorithmic choices matter at which batch
sizes?", where the noise covariance is the Hessian). With SGD at rate a and batch size B, from theta_i = 1:

    E[theta_i^2] after k steps = s_i + b_i^k (1 - s_i),   b_i = (1 - a h_i)^2,   s_i = a^2 noise h_i / (B (1 - b_i))
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from rightbatch.records import Trial
from rightbatch.workload import Workload

DIMENSIONS = 64
EXAMPLES = 1 << 16


def hessian() -> np.ndarray:
    """Eigenvalues of the Hessian, shape `[DIMENSIONS]`: h_i = 1 / i."""
    return 1.0 / np.arange(1, DIMENSIONS + 1)


def expected_loss(steps: float, *, learning_rate: float, batch_size: float, noise: float = 1.0) -> float:
    """The exact expectation of the loss after so many steps of plain SGD from theta = 1."""
    h = hessian()
    decay = (1 - learning_rate * h) ** 2
    stationary = learning_rate**2 * noise * h / (batch_size * (1 - decay))
    return float(0.5 * np.sum(h * (stationary + decay**steps * (1 - stationary))))


class Quadratic(nn.Module):
    """The parameters theta, shape `[DIMENSIONS]`, all ones at the start."""

    h: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(DIMENSIONS, dtype=torch.float64))
        self.register_buffer("h", torch.from_numpy(hessian()))

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """The loss of each example, shape `[batch_size]`; `noise` has shape `[batch_size, 1]` and scales its noise."""
        exact = 0.5 * (self.h * self.theta**2).sum()
        if not self.training:  # evaluation sees the loss itself, without noise
            return exact.expand(len(noise))
        drawn = torch.randn(len(noise), DIMENSIONS, dtype=torch.float64, device=self.theta.device)
        return exact + (drawn * self.h.sqrt() * noise) @ self.theta


def quadratic(noise: float = 1.0) -> Workload:
    """Plain SGD on the noisy quadratic; `noise` is the variance of one example's gradient in units of the Hessian."""
    scale = torch.full((EXAMPLES, 1), noise**0.5, dtype=torch.float64)

    def optimizer(parameters: object, trial: Trial) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=trial.learning_rate)  # type: ignore[arg-type]

    return Workload(
        name="quadratic",
        model=Quadratic,
        data=scale,
        valid=scale[:1],
        loss=lambda model, batch: model(batch),
        optimizer=optimizer,
        present=(32, 0.1),
        target=0.05,
        planned_examples=EXAMPLES * 4,
    )
