"""Losses whose box maxima and Hessians are known: b w + w H w / 2, the same for every example."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from rightbatch.landscape.surface import Surface
from rightbatch.workload import Workload


class Weights(nn.Module):
    """A vector of weights and nothing else."""

    def __init__(self, start: np.ndarray) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.from_numpy(start))


def quadratic(hessian: np.ndarray, linear: np.ndarray, start: np.ndarray) -> Surface:
    """A surface with this Hessian and gradient `linear + hessian @ start`, in double precision."""
    h, b = torch.from_numpy(hessian), torch.from_numpy(linear)

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        w = model.weights
        return (b @ w + w @ h @ w / 2).expand(len(batch))

    workload = Workload(
        name="known",
        model=lambda: Weights(start),
        data=torch.zeros(7, 1),
        valid=torch.zeros(2, 1),
        loss=loss,
        optimizer=lambda parameters, trial: torch.optim.SGD(parameters, lr=trial.learning_rate),
    )
    return Surface(workload, workload.model(), batch_size=3)


def random_hessian(eigenvalues: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A symmetric matrix with these eigenvalues, turned at random."""
    turn, _ = np.linalg.qr(draw.standard_normal((len(eigenvalues),) * 2))
    return (turn * eigenvalues) @ turn.T
