"""A batch in parts: micro-batches of nearly equal size."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from rightbatch.errors import WorkloadError
from rightbatch.losses import examples_in


def split(batch: Any, parts: int) -> list[Any]:
    """A batch (tensors, alone or in a tuple, a list or a dict) as micro-batches of nearly equal size, in order.

    There are no more of them than examples. Raises `WorkloadError` for one whose tensors have no common first
    dimension.
    """
    examples = examples_in(batch)
    if examples is None or not _same_length(batch, examples):
        raise WorkloadError(
            f"A batch of type {type(batch).__name__} cannot be split into micro-batches: its tensors do not all have "
            f"the examples along their first dimension. Give tensors, or a tuple or dict of them, of equal lengths."
        )
    edges = [examples * k // min(parts, examples) for k in range(min(parts, examples) + 1)]
    return [mapped(batch, operator.itemgetter(slice(low, high))) for low, high in itertools.pairwise(edges)]


def mapped(batch: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    """A batch with every tensor replaced; all else stays as it is."""
    if isinstance(batch, torch.Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        return {name: mapped(value, function) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        made = [mapped(value, function) for value in batch]
        return type(batch)(*made) if hasattr(batch, "_fields") else type(batch)(made)
    return batch


def _same_length(batch: Any, examples: int) -> bool:
    if isinstance(batch, torch.Tensor):
        return batch.ndim > 0 and len(batch) == examples
    values = list(batch.values()) if isinstance(batch, Mapping) else batch
    return isinstance(values, list | tuple) and all(_same_length(value, examples) for value in values)
