"""The covariance of the gradients of single examples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rightbatch.errors import InputError
from rightbatch.gradients.exact import Loss, count_examples
from rightbatch.gradients.rows import gradient_rows

LARGEST = 8192
"""Parameters of which the covariance is made: half a gigabyte."""


def gradient_covariance(model: nn.Module, loss: Loss, data: Any) -> Tensor:
    """The covariance of the gradient of one example over a data set, at the present weights; divisor N - 1.

    Shape `[d, d]`, in double precision, parameters as in `model.named_parameters()`. `data` has the form of a batch,
    `loss` is that of a `Workload`. The gradient of example i is N times its contribution to that of `losses.mean_loss`:
    its own gradient where all examples count alike.

    Raises `InputError` for a model that mixes examples, for fewer than two of them, and for more than 8,192 parameters.
    """
    examples = count_examples(data)
    if examples < 2:
        raise InputError(f"The covariance of gradients needs at least 2 examples, got {examples}. Give more data.")
    like = next(parameter for parameter in model.parameters() if parameter.requires_grad)
    size = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if size > LARGEST:
        raise InputError(
            f"The covariance of the gradients of {size:,} parameters has {size:,}^2 entries; it is made of up to "
            f"{LARGEST:,}. Take a smaller model, or train fewer of its parameters."
        )
    total = torch.zeros(size, dtype=torch.float64, device=like.device)
    products = torch.zeros(size, size, dtype=torch.float64, device=like.device)
    whole = 0.0
    for rows, weights in gradient_rows(model, loss, data):
        wide = rows.double()
        total += wide.sum(0)
        products += wide.T @ wide
        whole += float(weights.sum())
    scale, mean = examples / whole, total / whole
    covariance: Tensor = (scale**2 * products - examples * torch.outer(mean, mean)) / (examples - 1)
    return covariance
