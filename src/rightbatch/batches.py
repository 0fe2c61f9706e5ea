"""Data as batches: tensors are indexed, datasets go through a `DataLoader`, loaders are a person's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from rightbatch.errors import WorkloadError
from rightbatch.streams import RandomStreams

GATHER_EXAMPLES = 2048
"""Tensors are gathered in chunks of about this many examples: one large gather is cheaper than many small ones."""


class Source(Protocol):
    """Data that is read in batches on a device."""

    def __len__(self) -> int:
        """The number of examples; 0 where it is not known."""

    def epoch(self, batch_size: int, generator: torch.Generator, skip_examples: int = 0) -> Iterator[Any]:
        """The full batches of one pass in an order drawn from the generator, but for so many first examples."""

    def fixed(self, examples: int, batch_size: int) -> Iterator[Any]:
        """The same batches each time, at most about so many examples, the last batch possibly smaller: to evaluate."""


def as_source(
    data: Any,
    *,
    device: torch.device,
    collate: Callable[[list[Any]], Any] | None = None,
    name: str = "data",
    examples: int = 0,
) -> Source:
    """What a person gives as data, ready to be read. Raises `WorkloadError` for what is not data.

    `examples` is how many a function `(batch_size, seed) -> loader` gives in a pass, where the person said so.
    """
    if is_loader(data):
        return LoaderSource(data, device, examples, name)
    length = check_data(data, name)
    if _tensors(data) is not None:
        return TensorSource(data, device, length)
    return DatasetSource(data, device, collate)


def is_loader(data: Any) -> bool:
    """Whether data is a function `(batch_size, seed) -> loader`."""
    return callable(data) and not isinstance(data, torch.Tensor) and not hasattr(data, "__getitem__")


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
            f"{name} is a {type(data).__name__}. Give a tensor, a tuple or dict of tensors, a dataset with "
            f"__len__ and __getitem__, or a function (batch_size, seed) -> loader."
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

    def epoch(self, batch_size: int, generator: torch.Generator, skip_examples: int = 0) -> Iterator[Any]:
        left = torch.randperm(self._length, generator=generator)[skip_examples:]
        return self._read(left[: len(left) // batch_size * batch_size], batch_size)

    def fixed(self, examples: int, batch_size: int) -> Iterator[Any]:
        return self._read(fixed_subset(self._length, examples), batch_size)

    def _read(self, order: torch.Tensor, batch_size: int) -> Iterator[Any]:
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

    def epoch(self, batch_size: int, generator: torch.Generator, skip_examples: int = 0) -> Iterator[Any]:
        order = torch.randperm(len(self), generator=generator)
        return self._read(order[skip_examples:], batch_size, drop_last=True)

    def fixed(self, examples: int, batch_size: int) -> Iterator[Any]:
        return self._read(fixed_subset(len(self), examples), batch_size, drop_last=False)

    def example(self, index: int) -> Any:
        """One example as the data set gives it, not collated."""
        return self._data[index]

    def in_order(self, order: torch.Tensor, batch_size: int) -> Iterator[Any]:
        """Batches of the examples with these indices, in their order."""
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


class LoaderSource:
    """A person's own function `(batch_size, seed) -> loader`, called once a pass with a seed of its own."""

    def __init__(self, make: Callable[[int, int], Iterable[Any]], device: torch.device, examples: int, name: str):
        self._make, self._device, self._examples, self._name = make, device, examples, name

    def __len__(self) -> int:
        return self._examples

    def epoch(self, batch_size: int, generator: torch.Generator, skip_examples: int = 0) -> Iterator[Any]:
        skip = skip_examples // batch_size  # whatever it counts as one
        return self._read(batch_size, int(torch.randint(1 << 31, (), generator=generator)), skip)

    def fixed(self, examples: int, batch_size: int) -> Iterator[Any]:
        return islice(self._read(batch_size, 0), -(-examples // batch_size))

    def _read(self, batch_size: int, seed: int, skip: int = 0) -> Iterator[Any]:
        nothing = object()
        # A loader draws its order when it starts, often from the process's generators: here from streams of the pass,
        # so that a run that goes on in the middle of a pass meets the same batches, and has drawn nothing by skipping.
        with RandomStreams(seed).active():
            batches = iter(self._make(batch_size, seed))
            first = next(batches, nothing)
            for _ in range(skip - 1):
                next(batches, nothing)
        if skip:  # as in the run that was not interrupted: after the first, batches draw from the run's own streams
            first = next(batches, nothing)
        if first is nothing and not skip:  # else the pass after it would begin at once, and so on for ever
            raise WorkloadError(
                f"{self._name}(batch_size={batch_size}, seed={seed}) gave no batch. A loader gives at least one "
                f"a pass: is there less data than one batch, with drop_last?"
            )
        if first is not nothing:
            for batch in chain((first,), batches):
                yield batch if self._device.type == "cpu" else _to(batch, self._device)


def fixed_subset(length: int, examples: int) -> torch.Tensor:
    """Indices of at most so many examples: the same ones for every run, shape `[n]`."""
    if length <= examples:
        return torch.arange(length)
    return torch.randperm(length, generator=torch.Generator().manual_seed(0))[:examples]


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
