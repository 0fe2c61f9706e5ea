"""Data as batches: tensors are indexed directly, datasets go through a `DataLoader`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from rightbatch.errors import WorkloadError

GATHER_EXAMPLES = 2048
"""Tensors are gathered in chunks of about this many examples: one large gather is cheaper than many small ones."""


class Source(Protocol):
    """Data that is read in batches, in a given order."""

    def __len__(self) -> int:
        """The number of examples."""

    def batches(self, order: torch.Tensor, batch_size: int) -> Iterator[Any]:
        """Full batches of `batch_size` examples in that order (indices, shape `[n]`); what is left over is dropped."""

    def all_batches(self, order: torch.Tensor, batch_size: int) -> Iterator[Any]:
        """Batches in that order, the last one possibly smaller: for evaluation."""


def as_source(
    data: Any, *, device: torch.device, collate: Callable[[list[Any]], Any] | None = None, name: str = "data"
) -> Source:
    """What a person gives as data, ready to be read. Raises `WorkloadError` for what is not data."""
    length = check_data(data, name)
    if _tensors(data) is not None:
        return TensorSource(data, device, length)
    return DatasetSource(data, device, collate)


def check_data(data: Any, name: str) -> int:
    """The number of examples. Raises `WorkloadError` for what is not data, is empty or ragged."""
    tensors = _tensors(data)
    if tensors is not None:
        lengths = {len(t) for t in tensors}
        if len(lengths) != 1:
            raise WorkloadError(
                f"The tensors of {name} have different numbers of examples along the first dimension: "
                f"{sorted(lengths)}. They must agree."
            )
        length = lengths.pop()
        hollow = [k for k, tensor in enumerate(tensors) if tensor.numel() == 0]
        if hollow:
            shape = tuple(tensors[hollow[0]].shape)
            raise WorkloadError(f"Tensor {hollow[0]} of {name} is empty, shape {shape}.")
    elif isinstance(data, Mapping | tuple | str | bytes | torch.Tensor) or not (
        hasattr(data, "__getitem__") and hasattr(data, "__len__")
    ):
        raise WorkloadError(
            f"{name} is a {type(data).__name__}. Give a tensor, a tuple or dict of tensors, or a dataset with "
            f"__len__ and __getitem__."
        )
    else:
        length = len(data)
    if length == 0:
        raise WorkloadError(f"{name} is empty: a {type(data).__name__} without examples.")
    return length


def check_finite(data: Any, name: str) -> None:
    """Raise `WorkloadError` for floating-point tensors with values that are not finite."""
    for position, tensor in enumerate(_tensors(data) or ()):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            bad = (~torch.isfinite(tensor)).reshape(len(tensor), -1).any(dim=1).nonzero()[:, 0]
            raise WorkloadError(
                f"Tensor {position} of {name} has values that are not finite (NaN or infinite) in {len(bad)} of "
                f"{len(tensor)} examples, first in example {int(bad[0])}. Remove or repair them."
            )


class TensorSource:
    """Tensors in memory, moved to the device once."""

    def __init__(self, data: Any, device: torch.device, length: int) -> None:
        self._length = length
        if isinstance(data, Mapping):
            self._keys: list[str] | None = list(data)
            self._tensors = [data[key].to(device) for key in self._keys]
        else:
            self._keys = None
            self._tensors = [t.to(device) for t in (data if isinstance(data, tuple | list) else [data])]
        self._single = isinstance(data, torch.Tensor)

    def __len__(self) -> int:
        return self._length

    def batches(self, order: torch.Tensor, batch_size: int) -> Iterator[Any]:
        full = len(order) // batch_size * batch_size
        return self.all_batches(order[:full], batch_size)

    def all_batches(self, order: torch.Tensor, batch_size: int) -> Iterator[Any]:
        if len(order) == 0:  # splitting nothing would give one empty batch
            return
        chunk = max(1, GATHER_EXAMPLES // batch_size) * batch_size
        for indices in torch.split(order, chunk):
            indices = indices.to(self._tensors[0].device)
            columns = [torch.split(t.index_select(0, indices), batch_size) for t in self._tensors]
            if self._single:
                yield from columns[0]
            elif self._keys is None:
                yield from zip(*columns, strict=True)
            else:
                for row in zip(*columns, strict=True):
                    yield dict(zip(self._keys, row, strict=True))


class DatasetSource:
    """A map-style dataset behind a `DataLoader`, which collates and reads in the order it is told."""

    def __init__(self, data: Any, device: torch.device, collate: Callable[[list[Any]], Any] | None) -> None:
        self._data, self._device, self._collate = data, device, collate
        # A loader draws a seed from its generator when it starts; its own one keeps the run's random stream untouched.
        self._generator = torch.Generator()

    def __len__(self) -> int:
        return len(self._data)

    def batches(self, order: torch.Tensor, batch_size: int) -> Iterator[Any]:
        return self._read(order, batch_size, drop_last=True)

    def all_batches(self, order: torch.Tensor, batch_size: int) -> Iterator[Any]:
        return self._read(order, batch_size, drop_last=False)

    def _read(self, order: torch.Tensor, batch_size: int, *, drop_last: bool) -> Iterator[Any]:
        loader = DataLoader(
            self._data,
            batch_size=batch_size,
            sampler=order.tolist(),
            drop_last=drop_last,
            collate_fn=self._collate,
            generator=self._generator,
        )
        if self._device.type == "cpu":
            return iter(loader)
        return (_to(batch, self._device) for batch in loader)


def _to(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: _to(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(_to(value, device) for value in batch)
    return batch


def _tensors(data: Any) -> list[torch.Tensor] | None:
    """The tensors that make up the data, or None if it is not made of tensors."""
    parts = list(data.values()) if isinstance(data, Mapping) else data if isinstance(data, tuple | list) else [data]
    if not parts or not all(isinstance(part, torch.Tensor) and part.ndim > 0 for part in parts):
        return None
    return list(parts)
