"""The gradient of each example as a row, many at once where the layers allow it."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from rightbatch.gradients.exact import Loss, count_examples, each_example, one_example, refuse_mixing, trained
from rightbatch.losses import is_total
from rightbatch.parts import mapped

NUMBERS = 1 << 24
"""Gradients of single examples are held for about so many numbers at a time."""


def gradient_rows(model: nn.Module, loss: Loss, batch: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """For some examples after others: gradients of their summed losses `[m, d]`, and their weights in a mean `[m]`.

    The columns are the trained parameters in the order of `model.named_parameters()`. What is random is drawn anew;
    `.grad` is left alone.

    Raises `InputError` as `gradients.exact.per_example_gradients` does, `WorkloadError` for a loss that is none of the
    kinds of `rightbatch.losses`.
    """
    refuse_mixing(model)
    examples = count_examples(batch)
    one_example(model, loss, batch, 0)  # a loss that is wrong says so here: vmap would take one without a gradient
    parameters = trained(model)
    size = max(1, NUMBERS // max(1, sum(parameter.numel() for parameter in parameters.values())))
    for start in range(0, examples, size):
        yield _rows(model, loss, parameters, mapped(batch, operator.itemgetter(slice(start, start + size))))


def _rows(model: nn.Module, loss: Loss, parameters: Mapping[str, nn.Parameter], batch: Any) -> tuple[Tensor, Tensor]:
    gradient, values = _example_gradient(model, loss, parameters)
    try:
        with warnings.catch_warnings():
            # One of torch's, where it makes a loop of a layer: then a loop of whole examples is as good, and surer.
            warnings.filterwarnings("error", message="There is a performance drop")
            found, weights = vmap(gradient, in_dims=(None, 0), randomness="different")(values, batch)
        return torch.cat([part.flatten(1) for part in found.values()], dim=1), weights
    except Exception:  # whatever vmap cannot do, and it says so in many ways; what else is wrong, the loop raises again
        each = list(each_example(model, loss, batch, parameters))
        rows = torch.stack([torch.cat([part.flatten() for part in gradients.values()]) for gradients, _ in each])
        return rows, torch.tensor([weight for _, weight in each], dtype=rows.dtype, device=rows.device)


def _example_gradient(
    model: nn.Module, loss: Loss, parameters: Mapping[str, nn.Parameter]
) -> tuple[Callable[..., Any], dict[str, Tensor]]:
    """A function of (parameters, one example): the gradient of its summed loss by parameter, and its weight in a mean.

    And the parameters to call it with, under the names that it wants.
    """
    whole = _WithLoss(model, loss)

    def total(values: dict[str, Tensor], example: Any) -> tuple[Tensor, Tensor]:
        value = functional_call(whole, values, (mapped(example, lambda tensor: tensor.unsqueeze(0)),))
        summed, weight = value if is_total(value) else (value.sum(), 1.0)
        return summed, torch.as_tensor(weight, dtype=summed.dtype, device=summed.device)

    values = {f"model.{name}": parameter.detach() for name, parameter in parameters.items()}
    return torch.func.grad(total, has_aux=True), values


class _WithLoss(nn.Module):
    """The model with its loss behind it, so that `functional_call` can replace the parameters of the one within."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> Any:
        return self.loss(self.model, batch)
