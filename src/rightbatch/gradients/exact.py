"""The gradients of single examples and the exact noise, slowly: one backward pass for each example.

Nothing here is clever. It defines what the fast ways (`gradients.per_example`) must give, and serves where they cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rightbatch.errors import InputError
from rightbatch.gradients.layers import mixes_examples
from rightbatch.losses import check_loss, examples_in, is_total
from rightbatch.parts import mapped

Loss = Callable[[Any, Any], Any]


class ExactNoise(NamedTuple):
    """Of the gradients of all examples: the squared norm of their mean, and the trace of their covariance.

    The trace has the divisor N - 1. Their ratio, trace over squared norm, is the simple noise scale in examples
    (McCandlish et al. 2018, arXiv 1812.06162, equation 2.9).
    """

    gradient_squared: float
    covariance_trace: float


def per_example_gradients(model: nn.Module, loss: Loss, batch: Any) -> dict[str, Tensor]:
    """The contribution of each example to the gradient of the mean loss of the batch, `losses.mean_loss`.

    `loss` is that of a `Workload`. Returns for each trained parameter, by its name in `model.named_parameters()`, a
    tensor of shape [examples, *parameter.shape]; they add up to the gradient where the loss of an example is its own.

    Raises `InputError` for a batch whose examples cannot be told apart, or a model that mixes them (`refuse_mixing`).
    """
    refuse_mixing(model)
    found = list(each_example(model, loss, batch, trained(model)))
    whole = sum(weight for _, weight in found)
    return {name: torch.stack([gradients[name] for gradients, _ in found]) / whole for name in found[0][0]}


def exact_noise(model: nn.Module, loss: Loss, data: Any) -> ExactNoise:
    """|G|^2 and tr(Sigma) over a whole data set, at the present weights.

    `data` has the form of a batch. G is the gradient of `losses.mean_loss` over all data, and the gradient of example i
    is N times its contribution to it: its own gradient where all examples count alike. Sums are in double precision.
    Holds the gradient of one example at a time.

    Raises `InputError` as `per_example_gradients`, and for fewer than two examples.
    """
    refuse_mixing(model)
    examples = count_examples(data)
    if examples < 2:
        raise InputError(f"The covariance of gradients needs at least 2 examples, got {examples}. Give more data.")
    totals: dict[str, Tensor] = {}
    squares = whole = 0.0
    for gradients, weight in each_example(model, loss, data, trained(model)):
        whole += weight
        for name, gradient in gradients.items():
            wide = gradient.double()
            totals[name] = totals[name].add_(wide) if name in totals else wide
            squares += float(wide.square().sum())
    squared = sum(float(total.square().sum()) for total in totals.values()) / whole**2
    # The mean of N c_i is G, so the squared deviations add up to N^2 sum |c_i|^2 - N |G|^2.
    trace = (examples**2 * squares / whole**2 - examples * squared) / (examples - 1)
    return ExactNoise(squared, trace)


def each_example(
    model: nn.Module, loss: Loss, batch: Any, parameters: Mapping[str, nn.Parameter]
) -> Iterator[tuple[dict[str, Tensor], float]]:
    """For each example as a batch of one: the gradient of its summed loss, and its weight in a mean.

    The weight is 1, or what `loss` says in a pair (total, weight).
    """
    for i in range(count_examples(batch)):
        total, weight = one_example(model, loss, batch, i)
        gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        pairs = zip(parameters.items(), gradients, strict=True)
        yield {name: torch.zeros_like(p) if gradient is None else gradient for (name, p), gradient in pairs}, weight


def one_example(model: nn.Module, loss: Loss, batch: Any, i: int) -> tuple[Tensor, float]:
    """The summed loss of example i as a batch of one, and its weight in a mean.

    Raises `WorkloadError` for a loss that is none of the kinds of `rightbatch.losses`.
    """
    value = loss(model, mapped(batch, lambda tensor: tensor[i : i + 1]))
    # An example may weigh nothing, all its tokens masked; only of the whole batch must something be left.
    total, weight = (value[0], float(value[1])) if is_total(value) else (value, 1.0)
    check_loss(total, 1)
    return total.sum(), weight


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def refuse_mixing(model: nn.Module) -> None:
    """Raise `InputError` for a model with batch normalisation by statistics of the batch."""
    mixing = [name or type(model).__name__ for name, module in model.named_modules() if mixes_examples(module)]
    if mixing:
        raise InputError(
            f"The gradient of one example is not defined: {', '.join(mixing)} normalises by statistics of the whole "
            f"batch. Compare micro-batches instead, each a part of the batch with a backward pass of its own; or put "
            f"these layers in evaluation mode; or use GroupNorm or LayerNorm."
        )


def count_examples(batch: Any) -> int:
    """How many examples a batch has. Raises `InputError` where it has no tensor that would tell, or none at all."""
    examples = examples_in(batch)
    if not examples:
        raise InputError(
            f"A batch of type {type(batch).__name__} has no examples: give a tensor with the examples along its first "
            f"dimension, or a tuple, a list or a dict of such tensors."
        )
    return examples
