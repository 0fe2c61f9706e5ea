"""Checks of the data: train and validation apart, no waiting, loaders that give what they are asked for."""

from __future__ import annotations

import pickle
import time
from collections.abc import Hashable, Iterator, Mapping
from itertools import islice
from statistics import fmean
from typing import Any

import numpy as np
import torch

from rightbatch.batches import fixed_subset, is_loader
from rightbatch.checks.looking import Cannot, Raised, seconds_text
from rightbatch.checks.rehearsal import Rehearsal
from rightbatch.findings import Fault, Finding
from rightbatch.losses import examples_in, is_total
from rightbatch.streams import RandomStreams

OVERLAP = 0.01
"""A smaller share of validation examples in the training data is a matter of chance."""

ITEMS, READ_SECONDS = 2000, 2.0
"""Of a dataset, so many examples are read, or as many as there is time for."""

FEWEST_MATCHES = 3
"""Fewer matches in a sample say nothing of the whole."""

WAITING = 0.5
BATCHES, COMPARED_BATCHES = 20, 5
"""So many batches of a loader are counted, and compared between two seeds."""

SIZE_OFF = 0.25


# ------------------------------------------------------------------------------------------------------- overlap


def overlap(context: Rehearsal) -> Iterator[Finding]:
    """How many validation examples are, byte for byte, training examples."""
    train, valid = context.workload.data, context.workload.valid
    if is_loader(train) or is_loader(valid):
        raise Cannot("what a loader gives cannot be told apart by example")
    known, of_train = _examples(train)
    judged, _ = _examples(valid)
    seen = set(known)
    matches = sum(example in seen for example in judged)
    share = matches / len(judged)
    whole = of_train == len(known)
    likely = min(1.0, share * of_train / len(known))
    repeated = 1 - len(seen) / len(known)
    if likely <= OVERLAP or not (whole or matches >= FEWEST_MATCHES) or len(seen) == 1:
        return  # training data of one value holds the place of noise that is drawn
    if whole:
        said = f"{matches:,} of {len(judged):,} validation examples ({100 * share:.3g} %) are in the training data too"
    else:
        said = (
            f"{matches:,} of {len(judged):,} validation examples are among {len(known):,} of the {of_train:,} training "
            f"examples, so about {100 * likely:.3g} % of them are in the training data too"
        )
    # Where training examples recur as often among themselves, a random split cannot but have done this.
    natural = repeated >= share / 2
    yield Finding(
        Fault.OVERLAP,
        f"{said}, byte for byte; {100 * repeated:.3g} % of the training examples repeat another one.",
        "Split by distinct examples, so that all copies of one are on the same side."
        if natural
        else "Take the validation examples out of the training data.",
        note=natural,
    )


def _examples(data: Any) -> tuple[list[Hashable], int]:
    """Hashes of the examples, and how many there are in all: every one of tensors, a sample of a dataset."""
    if isinstance(data, torch.Tensor):
        data = (data,)
    parts = list(data.values()) if isinstance(data, Mapping) else data
    if isinstance(parts, list | tuple) and all(isinstance(part, torch.Tensor) for part in parts):
        rows: list[Hashable] = [hash(row) for row in zip(*(_rows(part) for part in parts), strict=True)]
        return rows, len(rows)
    until = time.perf_counter() + READ_SECONDS
    found: list[Hashable] = []
    with RandomStreams(0).active():
        for index in fixed_subset(len(data), ITEMS).tolist():
            try:
                found.append(hash(contents(data[index])))
            except Exception as error:
                raise Raised(f"reading example {index} of a dataset", error) from error
            if time.perf_counter() > until:
                break
    return found, len(data)


def _rows(tensor: torch.Tensor) -> Iterator[bytes]:
    flat = tensor.detach().cpu().contiguous().reshape(len(tensor), -1)
    return (row.tobytes() for row in flat.view(torch.uint8).numpy())


def contents(item: Any) -> Hashable:
    """What an example holds, so that two of equal content are equal."""
    if isinstance(item, torch.Tensor):
        return next(_rows(item.unsqueeze(0)))
    if isinstance(item, np.ndarray):
        return item.tobytes()
    if isinstance(item, Mapping):
        return tuple((str(key), contents(value)) for key, value in item.items())
    if isinstance(item, list | tuple):
        return tuple(contents(value) for value in item)
    return item if isinstance(item, int | float | str | bytes) else pickle.dumps(item)


# ------------------------------------------------------------------------------------------------ waiting, loaders


def waiting(context: Rehearsal) -> Iterator[Finding]:
    """How much of a step is reading its batch."""
    data = context.workload.data
    parts = data.values() if isinstance(data, Mapping) else data if isinstance(data, list | tuple) else [data]
    if all(isinstance(part, torch.Tensor) for part in parts):
        return  # in memory: there is nothing to wait for
    record = context.step_time
    # The fastest of each: what else the machine does only adds, and to the short reading relatively more.
    step, wait = min(record.seconds), min(record.wait_seconds)
    if wait > WAITING * step:
        wait = min(wait, _reading_seconds(context))
    if wait > WAITING * step:
        yield Finding(
            Fault.WAITING,
            f"A step at batch size {record.batch_size} takes {seconds_text(step)}, reading its batch alone takes "
            f"{seconds_text(wait)} ({100 * min(1.0, wait / step):.0f} %).",
            "Keep the data in memory as tensors, prepare it once beforehand, or give a function (batch_size, seed) -> "
            "DataLoader with num_workers.",
        )


def _reading_seconds(context: Rehearsal) -> float:
    """Seconds a batch over a longer stretch: a repeat of a step time may be so short that it is the start of a pass."""
    started = time.perf_counter()
    read = 0
    for _ in context.source.epoch(context.trial.batch_size, torch.Generator().manual_seed(0)):
        read += 1
        if time.perf_counter() - started > READ_SECONDS / 2:
            break
    return (time.perf_counter() - started) / max(1, read)


def loader_size(context: Rehearsal) -> Iterator[Finding]:
    """A loader's batches have about as many examples as were asked for."""
    counts = [examples_in(batch) for batch in _loaded(context, seed=0, most=BATCHES)]
    counts = counts[:-1] if len(counts) > 1 else counts  # the last of a pass may be smaller
    known = [count for count in counts if count is not None]
    if not known:
        raise Cannot("the batches hold no tensors to count")
    asked, mean = context.trial.batch_size, fmean(known)
    if abs(mean - asked) > SIZE_OFF * asked:
        by_weight = _returns_total(context)
        yield Finding(
            Fault.LOADER_SIZE,
            f"Asked for batches of {asked}, the loader gave {mean:.4g} examples in a batch (the mean of {len(known)}).",
            "Nothing, if the size counts tokens or the like: read `batch size` as that everywhere."
            if by_weight
            else "Use the batch_size that the function is given; if it counts tokens, return (total, weight) as loss.",
            note=by_weight,
        )


def loader_order(context: Rehearsal) -> Iterator[Finding]:
    """A loader gives other batches for another seed."""
    one, other = (
        [hash(contents(batch)) for batch in _loaded(context, seed=seed, most=COMPARED_BATCHES)] for seed in (0, 1)
    )
    if one == other and len(set(one)) > 1:
        yield Finding(
            Fault.LOADER_ORDER,
            f"The first {len(one)} batches are the same, byte for byte, for two different seeds.",
            "Shuffle with the seed that the function is given: "
            "DataLoader(..., shuffle=True, generator=torch.Generator().manual_seed(seed)).",
        )


def _loaded(context: Rehearsal, *, seed: int, most: int) -> list[Any]:
    """The first batches of a pass of a loader, at most so many, or as many as there is time for."""
    if not is_loader(context.workload.data):
        return []
    batches: list[Any] = []
    until = time.perf_counter() + READ_SECONDS
    try:
        generator = torch.Generator().manual_seed(seed)
        for batch in islice(context.source.epoch(context.trial.batch_size, generator), most):
            batches.append(batch)
            if time.perf_counter() > until:
                break
    except Exception as error:
        raise error if isinstance(error, Raised | Cannot) else Raised("reading the training data", error) from error
    return batches


def _returns_total(context: Rehearsal) -> bool:
    try:
        return is_total(context.returned)
    except (Cannot, Raised):  # told by the checks of the loss
        return False
