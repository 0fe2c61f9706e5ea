"""Data as batches: what is read is exactly what the order says, for every kind of data."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from rightbatch.batches import GATHER_EXAMPLES, Source, as_source, check_data, check_finite, fixed_subset, is_loader
from rightbatch.errors import WorkloadError

CPU = torch.device("cpu")


def source_of(data: Any, **more: Any) -> Source:
    return as_source(data, device=CPU, **more)


def a_pass(source: Source, batch_size: int, seed: int = 0, skip: int = 0) -> list[Any]:
    return list(source.epoch(batch_size, torch.Generator().manual_seed(seed), skip * batch_size))


def an_order(examples: int, seed: int = 0) -> torch.Tensor:
    return torch.randperm(examples, generator=torch.Generator().manual_seed(seed))


def plain(batches: Any) -> list[Any]:
    """Batches as lists of numbers."""
    return [[part.tolist() for part in b] if isinstance(b, tuple | list) else b.tolist() for b in batches]


# ------------------------------------------------------------------------------------------------ tensors and datasets


@settings(derandomize=True, deadline=None, max_examples=100)
@given(examples=st.integers(1, 60), batch_size=st.integers(1, 70), skip=st.integers(0, 70), seed=st.integers(0, 9))
def test_an_epoch_is_a_permutation_cut_into_full_batches_and_a_skip_leaves_exactly_the_rest(
    examples, batch_size, skip, seed
):
    order = (an_order(examples, seed) * 10).tolist()
    cut = [order[k : k + batch_size] for k in range(0, examples - batch_size + 1, batch_size)]
    source = source_of(torch.arange(examples) * 10)

    assert plain(a_pass(source, batch_size, seed)) == cut
    assert plain(a_pass(source, batch_size, seed, skip)) == cut[skip:]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(examples=st.integers(1, 60), batch_size=st.integers(1, 70), skip=st.integers(0, 70), seed=st.integers(0, 9))
def test_after_any_number_of_examples_the_rest_of_the_order_is_cut(examples, batch_size, skip, seed):
    left = (an_order(examples, seed) * 10).tolist()[skip:]
    cut = [left[k : k + batch_size] for k in range(0, len(left) - batch_size + 1, batch_size)]
    source = source_of(torch.arange(examples) * 10)
    assert plain(source.epoch(batch_size, torch.Generator().manual_seed(seed), skip)) == cut


@settings(derandomize=True, deadline=None, max_examples=30)
@given(examples=st.integers(1, 30), batch_size=st.integers(1, 35), skip=st.integers(0, 35), seed=st.integers(0, 9))
def test_a_dataset_is_read_exactly_like_its_tensors(examples, batch_size, skip, seed):
    x, y = torch.arange(2.0 * examples).reshape(examples, 2), torch.arange(examples)
    tensors, dataset = source_of((x, y)), source_of(TensorDataset(x, y))

    assert len(tensors) == len(dataset) == examples
    for start in (0, skip):
        assert plain(a_pass(dataset, batch_size, seed, start)) == plain(a_pass(tensors, batch_size, seed, start))
    assert plain(dataset.fixed(skip + 1, batch_size)) == plain(tensors.fixed(skip + 1, batch_size))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(examples=st.integers(1, 60), wanted=st.integers(1, 70), batch_size=st.integers(1, 70))
def test_the_fixed_batches_are_one_subset_without_repeats_and_the_same_each_time(examples, wanted, batch_size):
    source = source_of(torch.arange(examples))
    batches = plain(source.fixed(wanted, batch_size))
    seen = [k for batch in batches for k in batch]

    assert len(seen) == len(set(seen)) == min(wanted, examples)
    assert set(seen) <= set(range(examples))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= batch_size
    torch.manual_seed(wanted)
    assert plain(source.fixed(wanted, batch_size)) == batches
    assert seen == fixed_subset(examples, wanted).tolist()


@pytest.mark.parametrize("batch_size", [1, 3, 1000, GATHER_EXAMPLES - 1, GATHER_EXAMPLES, GATHER_EXAMPLES + 1])
def test_gathering_in_chunks_loses_and_repeats_nothing(batch_size):
    examples = 2 * GATHER_EXAMPLES + 7
    batches = a_pass(source_of(torch.arange(examples)), batch_size)

    assert {len(b) for b in batches} == {batch_size}
    assert torch.equal(torch.cat(batches), an_order(examples)[: examples // batch_size * batch_size])


def test_a_batch_has_the_shape_of_the_data_it_comes_from():
    x, y = torch.arange(12.0).reshape(6, 2), torch.arange(6)
    order = an_order(6)

    def first(data):
        return a_pass(source_of(data), 4)[0]

    assert torch.equal(first(x), x[order[:4]])
    for data in ((x, y), [x, y]):
        batch = first(data)
        assert isinstance(batch, tuple)
        assert torch.equal(batch[0], x[order[:4]])
        assert torch.equal(batch[1], y[order[:4]])
    named = first({"inputs": x, "labels": y})
    assert list(named) == ["inputs", "labels"]
    assert torch.equal(named["inputs"], x[order[:4]])
    assert torch.equal(named["labels"], y[order[:4]])


def test_a_batch_is_a_copy_so_that_augmenting_in_place_spares_the_data():
    values = torch.zeros(8)
    source = source_of(values)
    for batch in (*a_pass(source, 4), *source.fixed(8, 4)):
        batch.add_(1)
    assert values.sum() == 0


def test_collate_makes_the_batch_of_a_dataset():
    source = source_of(TensorDataset(torch.arange(5)), collate=lambda items: [int(i[0]) for i in items])
    order = an_order(5).tolist()
    assert a_pass(source, 2) == [order[:2], order[2:4]]
    assert list(source.fixed(5, 2)) == [[0, 1], [2, 3], [4]]


# ------------------------------------------------------------------------------------------------------------- loaders


def shuffled_loader(batch_size: int, seed: int) -> DataLoader:
    """A loader as most people write it: its order comes from the process's generator."""
    return DataLoader(TensorDataset(torch.arange(23)), batch_size=batch_size, shuffle=True)


def ragged_buckets(batch_size: int, seed: int):
    """Buckets of like length, each cut into batches, the batches in an order of the pass."""
    order = random.Random(seed)
    buckets = [range(9), range(9, 13), range(13, 23)]
    pieces = [list(b[k : k + batch_size]) for b in buckets for k in range(0, len(b), batch_size)]
    order.shuffle(pieces)
    yield from (torch.tensor(piece) for piece in pieces)


def endless_stream(batch_size: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randint(1000, (batch_size,), generator=generator)


def numpy_order(batch_size: int, seed: int):
    """All three of the process's generators, drawn from when the pass begins."""
    order = np.random.permutation(23)  # noqa: NPY002
    shift = random.randrange(100) + int(torch.randint(100, ()))
    return [torch.from_numpy(part) + shift for part in np.array_split(order, range(batch_size, 23, batch_size))]


LOADERS: dict[str, Callable[[int, int], Any]] = {
    "shuffled": shuffled_loader,
    "ragged": ragged_buckets,
    "endless": endless_stream,
    "process's generators": numpy_order,
}


@pytest.fixture(params=LOADERS.values(), ids=LOADERS.keys())
def loader(request) -> Callable[[int, int], Any]:
    return request.param


def some(batches: Any) -> list[Any]:
    """At most as many batches as the longest finite pass has: an endless one would not end."""
    return plain(itertools.islice(batches, 30))


def seed_the_process(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def state_of_the_process() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return random.getstate(), kind, keys.tolist(), rest, torch.get_rng_state().tolist()


@pytest.mark.parametrize("batch_size", [1, 4, 23])
def test_a_loader_that_skips_leaves_exactly_the_rest_whatever_the_process_drew(loader, batch_size):
    source = source_of(loader, examples=23)
    seed_the_process(1)
    whole = some(source.epoch(batch_size, torch.Generator().manual_seed(5)))
    for skip in (0, 1, 2, 5, 23):
        seed_the_process(2 + skip)
        rest = some(source.epoch(batch_size, torch.Generator().manual_seed(5), skip * batch_size))
        assert rest[: 30 - skip] == whole[skip:]


def test_every_pass_of_a_loader_has_a_seed_of_its_own_from_the_runs_generator():
    seeds: list[int] = []

    def loader(batch_size, seed):
        seeds.append(seed)
        return [torch.zeros(batch_size)]

    source = source_of(loader, examples=4)
    for start in (0, 0, 1):
        generator = torch.Generator().manual_seed(start)
        for _ in range(3):
            assert len(list(source.epoch(4, generator))) == 1
    assert seeds[:3] == seeds[3:6]
    assert len(set(seeds)) == 6


def test_two_passes_of_a_loader_with_an_order_of_the_process_differ():
    generator = torch.Generator().manual_seed(0)
    source = source_of(shuffled_loader, examples=23)
    one, other = (plain(source.epoch(4, generator)) for _ in range(2))
    assert one != other
    for batches in (one, other):
        assert sorted(k for (batch,) in batches for k in batch) == list(range(23))


@pytest.mark.parametrize(("examples", "batches"), [(1, 1), (4, 1), (5, 2), (12, 3)])
def test_the_fixed_batches_of_a_loader_are_the_first_of_one_pass_each_time(loader, examples, batches):
    source = source_of(loader, examples=23)
    seed_the_process(3)
    found = plain(source.fixed(examples, 4))
    assert len(found) == batches
    seed_the_process(4)
    assert plain(source.fixed(examples, 4)) == found
    assert plain(source.fixed(12, 4))[:batches] == found


@pytest.mark.parametrize(
    "data",
    [torch.arange(23), TensorDataset(torch.arange(23)), *LOADERS.values()],
    ids=["tensor", "dataset", *LOADERS],
)
def test_reading_draws_nothing_from_the_process(data):
    seed_the_process(6)
    before = state_of_the_process()
    source = source_of(data, examples=23)
    assert some(source.epoch(4, torch.Generator()))
    assert some(source.epoch(4, torch.Generator(), 8))
    assert some(source.fixed(12, 4))
    assert state_of_the_process() == before


class Augmented(Dataset):
    """Examples that are different each time they are read."""

    def __len__(self):
        return 23

    def __getitem__(self, index):
        return index + torch.rand(())


def augmented_loader(batch_size: int, seed: int) -> DataLoader:
    return DataLoader(Augmented(), batch_size=batch_size, shuffle=True)


def stream_of_the_process(batch_size: int, seed: int):
    while True:
        yield torch.rand(batch_size)


@pytest.mark.parametrize("loader", [augmented_loader, stream_of_the_process])
def test_a_loader_that_draws_for_every_batch_goes_on_as_if_it_had_not_been_interrupted(loader):
    source = source_of(loader, examples=23)
    seed_the_process(7)
    batches = source.epoch(4, torch.Generator().manual_seed(0))
    plain(itertools.islice(batches, 2))
    state = torch.get_rng_state()
    expected = plain(itertools.islice(batches, 3))

    torch.set_rng_state(state)
    left = source.epoch(4, torch.Generator().manual_seed(0), 8)
    assert plain(itertools.islice(left, 3)) == expected


def test_a_loader_without_a_batch_is_refused_by_name_and_one_that_was_read_to_its_end_is_not():
    source = source_of(lambda batch_size, seed: [], name="valid")
    with pytest.raises(WorkloadError, match=r"valid\(batch_size=8, seed=0\) gave no batch\. .*drop_last\?"):
        list(source.fixed(10, 8))
    read = source_of(lambda batch_size, seed: [torch.zeros(3)] * 2)
    assert a_pass(read, 3, skip=2) == []
    assert a_pass(read, 3, skip=5) == []


def test_the_length_of_a_loader_is_what_the_person_said():
    assert len(source_of(shuffled_loader, examples=23)) == 23
    assert len(source_of(shuffled_loader)) == 0


class Loader:
    def __call__(self, batch_size: int, seed: int) -> Any:
        return [torch.zeros(batch_size)]


def test_functions_are_loaders_and_data_is_not():
    for function in (shuffled_loader, lambda b, s: [], functools.partial(shuffled_loader), Loader()):
        assert is_loader(function)
    for data in (torch.zeros(2), (torch.zeros(2),), {"x": torch.zeros(2)}, TensorDataset(torch.zeros(2)), 5, None):
        assert not is_loader(data)


# -------------------------------------------------------------------------------------------------- what is not data


def test_ragged_tensors_are_refused_with_their_lengths():
    with pytest.raises(WorkloadError, match=r"valid have different numbers of examples .*\[3, 4\]\. They must agree"):
        source_of((torch.zeros(4, 2), torch.zeros(3)), name="valid")


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


@pytest.mark.parametrize("data", [5, None, Stream()], ids=["number", "nothing", "stream"])
def test_what_cannot_be_indexed_is_refused_with_its_type(data):
    with pytest.raises(WorkloadError, match=rf"data is a {type(data).__name__}\. Give a tensor.*function \(batch_size"):
        source_of(data)


NOT_DATA = {
    "text": "digits",
    "arrays in a tuple": (torch.zeros(3, 2).numpy(), torch.zeros(3).numpy()),
    "lists in a dict": {"inputs": [1.0, 2.0]},
    "one number": torch.tensor(1.0),
}


@pytest.mark.parametrize("data", NOT_DATA.values(), ids=NOT_DATA.keys())
def test_what_can_be_indexed_but_holds_no_examples_is_refused_too(data):
    with pytest.raises(WorkloadError, match=r"Give a tensor"):
        len(source_of(data))


def test_values_that_are_not_finite_are_named_by_example():
    x = torch.zeros(6, 2)
    x[4, 1], x[5, 0] = float("nan"), float("inf")
    with pytest.raises(WorkloadError, match=r"Tensor 1 of data has values .* in 2 of 6 examples, first in example 4"):
        check_finite((torch.zeros(6), x), "data")


@pytest.mark.parametrize("tensor", [torch.zeros(0, 3), torch.zeros(3, 0), torch.zeros(0)])
def test_an_empty_tensor_is_refused_with_its_shape(tensor):
    with pytest.raises(WorkloadError, match=r"Tensor 0 of data is empty, shape \("):
        check_data(tensor, "data")


class Untouchable(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        raise AssertionError("reading a whole dataset beforehand may take hours")


def untouchable_loader(batch_size, seed):
    raise AssertionError("nor a loader")


def test_finite_values_whole_numbers_datasets_and_loaders_pass_the_check():
    check_finite({"x": torch.zeros(2, 2), "y": torch.tensor([1, 2])}, "data")
    check_finite(Untouchable(), "data")
    check_finite(untouchable_loader, "data")
