"""Gradient accumulation: a batch that is too large for one pass, micro-batch after micro-batch, as the same step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from rightbatch.errors import WorkloadError
from rightbatch.losses import examples_in, is_total, summed_loss


def accumulate(
    loss: Callable[[torch.nn.Module, Any], Any],
    model: torch.nn.Module,
    micro_batches: Sequence[Any],
    parameters: Iterable[torch.nn.Parameter],
    scale: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Leave the gradients of the mean loss over a batch in `parameters`; that mean, a scalar without a gradient.

    Every micro-batch counts by its true weight: of `(total, weight)` losses, by the tokens in it; of a scalar mean by
    its examples, as if it were a mean over these. The gradients are those of the whole batch but for rounding and what
    is drawn anew (dropout), and but for layers that mix examples: BatchNorm normalises each micro-batch by itself.
    """
    whole = reference = 0.0
    total: torch.Tensor | None = None
    for part in micro_batches:
        found = loss(model, part)
        if is_total(found) and float(found[1]) == 0:  # all of its tokens are masked
            continue
        summed, weight = summed_loss(found, examples_in(part))
        # About the weight of the whole, which is only known at the end: sums would overflow in half precision.
        reference = reference or weight * len(micro_batches)
        share = summed / reference
        (share if scale is None else scale(share)).backward()  # type: ignore[no-untyped-call]
        whole += weight
        total = summed.detach() if total is None else total + summed.detach()
    if total is None:
        raise WorkloadError("Every loss of a batch has the weight 0: there is nothing in it to learn from.")
    if whole != reference:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(reference / whole)
    return total / whole


def normalising_over_batch(model: torch.nn.Module) -> list[str]:
    """The names of modules that normalise over the examples of a batch: of each micro-batch, where these accumulate."""
    return [name for name, module in model.named_modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
