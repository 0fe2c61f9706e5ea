"""What a loss or a metric may return, and what training and evaluation make of it.

* per example: a tensor of shape `[batch_size]`;
* `(total, weight)`: the sum over the batch and what it is a sum over: examples, or tokens that are not masked;
* a scalar: the mean over the batch, of which nothing is known of single examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rightbatch.errors import WorkloadError

CONTRACT = (
    "It must return the value of each example, shape [batch_size] (with torch's loss functions, reduction='none'); "
    "or a pair (total, weight), the sum and the number of examples or tokens in it; or the mean, a scalar tensor"
)


def mean_loss(loss: Any, examples: int | None) -> torch.Tensor:
    """The mean over the batch, a scalar with a gradient; `examples` is how many there are, where that is known.

    Raises `WorkloadError` for what is none of the three kinds, or has no gradient.
    """
    check_loss(loss, examples)
    if isinstance(loss, tuple):
        total, weight = loss
        return total / weight  # type: ignore[no-any-return]
    return loss.mean() if loss.ndim else loss  # type: ignore[no-any-return]


def check_loss(loss: Any, examples: int | None, cause: Exception | None = None) -> None:
    """Raise `WorkloadError` unless a training loss is one of the three kinds and has a gradient."""
    total = loss[0] if is_total(loss) else loss
    if not isinstance(total, torch.Tensor):
        problem = f"returned a {type(loss).__name__}"
    elif total.ndim > 1 or (total.ndim == 1 and examples is not None and len(total) != examples):
        problem = f"returned shape {tuple(total.shape)}" + (f" for a batch of {examples}" if examples else "")
    elif not total.requires_grad:
        problem = "returned losses without a gradient (was it computed under no_grad, or detached?)"
    elif is_total(loss) and not float(loss[1]) > 0:
        problem = f"returned a total with the weight {float(loss[1]):g}, which must be positive"
    else:
        return
    raise WorkloadError(f"loss(model, batch) {problem}. {CONTRACT}.") from cause


def totals(value: Any, examples: int, name: str) -> tuple[torch.Tensor, float]:
    """The sum over a batch and its weight, from any of the three kinds, for evaluation.

    Raises `WorkloadError`, which names the function, for anything else.
    """
    if is_total(value):
        total, weight = value
        total = total.detach() if isinstance(total, torch.Tensor) else torch.tensor(total, dtype=torch.float64)
        return _wide(total), float(weight)
    if isinstance(value, torch.Tensor) and value.ndim <= 1:
        if value.ndim == 0:
            return _wide(value.detach()) * examples, float(examples)
        return _wide(value.detach()).sum(), float(len(value))
    found = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
    raise WorkloadError(f"{name}(model, batch) returned {found} in evaluation. {CONTRACT}.")


def summed_loss(loss: Any, examples: int | None) -> tuple[torch.Tensor, float]:
    """The sum of a loss over a batch, and what it is a sum over: examples, or tokens."""
    check_loss(loss, examples)
    if is_total(loss):
        return loss[0], float(loss[1])
    return (loss.sum(), float(len(loss))) if loss.ndim else (loss * (examples or 1), float(examples or 1))


def is_total(value: Any) -> bool:
    """Whether a value is a pair (total, weight): both scalars."""
    return isinstance(value, tuple) and len(value) == 2 and all(is_scalar(part) for part in value)


def examples_in(batch: Any) -> int | None:
    """How many examples a batch has: the length of its first tensor; None where it has none."""
    if isinstance(batch, torch.Tensor):
        return len(batch) if batch.ndim else None
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else ()
    return next((found for part in parts if (found := examples_in(part)) is not None), None)


def is_scalar(value: Any) -> bool:
    """Whether a value is one number: of Python, or a tensor without dimensions."""
    return isinstance(value, int | float) or (isinstance(value, torch.Tensor) and value.ndim == 0)


def _wide(values: torch.Tensor) -> torch.Tensor:
    """Summed in double precision, where the device has it."""
    return values if values.device.type == "mps" else values.double()
