"""The heaviest batches of the data: those of the longest sequences, which a training meets some time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from rightbatch.batches import DatasetSource, LoaderSource, Source

LOOK_SECONDS = 5.0
"""So long a data set or a loader is looked through for what is heaviest."""


def heaviest_first(source: Source) -> Source:
    """The same data, whose batches have the most elements that are found within a few seconds; tensors as they are."""
    if isinstance(source, DatasetSource):
        sizes = _sizes(source)
        return source if len(set(sizes)) <= 1 else _HeaviestExamples(source, sizes)
    return _HeaviestBatches(source) if isinstance(source, LoaderSource) else source


class _HeaviestExamples:
    """A data set in the order of the number of elements of its examples, the most first, again and again."""

    def __init__(self, source: DatasetSource, sizes: list[int]) -> None:
        self._source = source
        known = torch.tensor(sizes).argsort(descending=True, stable=True)
        self._order = torch.cat([known, torch.arange(len(sizes), len(source))])

    def __len__(self) -> int:
        return len(self._source)

    def epoch(self, batch_size: int, generator: torch.Generator, skip_examples: int = 0) -> Iterator[Any]:
        while True:
            yield from self._source.in_order(self._order[:batch_size], batch_size)

    def fixed(self, examples: int, batch_size: int) -> Iterator[Any]:
        return self._source.fixed(examples, batch_size)


class _HeaviestBatches:
    """A loader's batch with the most elements, again and again."""

    def __init__(self, source: LoaderSource) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def epoch(self, batch_size: int, generator: torch.Generator, skip_examples: int = 0) -> Iterator[Any]:
        started, heaviest, most = time.monotonic(), None, -1
        for batch in self._source.epoch(batch_size, generator, skip_examples):
            size = elements(batch)
            if size > most:
                heaviest, most = batch, size
            if time.monotonic() - started > LOOK_SECONDS:
                break
        while True:
            yield heaviest

    def fixed(self, examples: int, batch_size: int) -> Iterator[Any]:
        return self._source.fixed(examples, batch_size)


def elements(example: Any) -> int:
    """The number of elements in the tensors, arrays, lists and texts of an example or a batch."""
    if isinstance(example, torch.Tensor):
        return example.numel()
    if isinstance(example, Mapping):
        return sum(map(elements, example.values()))
    if isinstance(example, str | bytes):
        return len(example)
    if isinstance(example, tuple | list):
        return sum(map(elements, example))
    return int(getattr(example, "size", 1)) if not callable(getattr(example, "size", None)) else 1


def _sizes(source: DatasetSource) -> list[int]:
    """Elements of each example, as far as they are found in time; of the others nothing is known."""
    started, sizes = time.monotonic(), []
    for k in range(len(source)):
        sizes.append(elements(source.example(k)))
        if time.monotonic() - started > LOOK_SECONDS:
            break
    return sizes
