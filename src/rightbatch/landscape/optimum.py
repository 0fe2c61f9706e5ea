"""What the theory of constant SGD needs of a model at its optimum: Hessian and gradient noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rightbatch.fit.posterior import Optimum
from rightbatch.gradients.covariance import gradient_covariance
from rightbatch.gradients.exact import Loss, count_examples, trained
from rightbatch.gradients.hessian import hessian_products, shaped, twice_differentiable
from rightbatch.losses import mean_loss


def optimum_of(model: nn.Module, loss: Loss, data: Any, *, examples: int | None = None) -> Optimum:
    """Hessian of the mean loss and covariance of its gradients over a data set, at the present weights.

    `data` has the form of a batch, `loss` is that of a `Workload`: -log p(x_n | theta), with -log p(theta) / N added
    where there is a prior. The parameters are in the order of `model.named_parameters()`. `examples`: N, where the data
    is a part of all.

    Raises `InputError` for a model that mixes examples, fewer than two of them, or more than 8,192 parameters.
    """
    noise = gradient_covariance(model, loss, data)
    parameters = list(trained(model).values())
    with twice_differentiable():
        mean = mean_loss(loss(model, data), count_examples(data))
        unit = torch.eye(len(noise), dtype=parameters[0].dtype, device=parameters[0].device)
        rows = hessian_products(mean, parameters, [shaped(row, parameters) for row in unit])
    hessian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows]).detach().double()
    return Optimum(((hessian + hessian.T) / 2).cpu().numpy(), noise.cpu().numpy(), examples or count_examples(data))
