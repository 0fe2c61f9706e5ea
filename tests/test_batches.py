"""Data as batches: what is read is exactly what the order says, for every kind of data."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from rightbatch.batches import GATHER_EXAMPLES, as_source, check_data, check_finite
from rightbatch.errors import WorkloadError

CPU = torch.device("cpu")


def an_order(examples: int, seed: int = 0) -> torch.Tensor:
    return torch.randperm(examples, generator=torch.Generator().manual_seed(seed))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(examples=st.integers(1, 60), batch_size=st.integers(1, 70), skip=st.integers(0, 60), seed=st.integers(0, 9))
def test_batches_are_the_order_cut_into_full_pieces_and_all_batches_keep_the_rest(examples, batch_size, skip, seed):
    values = torch.arange(examples) * 10
    order = an_order(examples, seed)[skip:]
    source = as_source(values, device=CPU)
    expected = [(order[k : k + batch_size] * 10).tolist() for k in range(0, len(order), batch_size)]

    assert [b.tolist() for b in source.all_batches(order, batch_size)] == expected
    assert [b.tolist() for b in source.batches(order, batch_size)] == [e for e in expected if len(e) == batch_size]


@pytest.mark.parametrize("batch_size", [1, 3, 1000, GATHER_EXAMPLES - 1, GATHER_EXAMPLES, GATHER_EXAMPLES + 1])
def test_gathering_in_chunks_loses_and_repeats_nothing(batch_size):
    examples = 2 * GATHER_EXAMPLES + 7
    order = an_order(examples)
    batches = list(as_source(torch.arange(examples), device=CPU).batches(order, batch_size))

    assert {len(b) for b in batches} == {batch_size}
    assert torch.equal(torch.cat(batches), order[: examples // batch_size * batch_size])


def test_a_batch_has_the_shape_of_the_data_it_comes_from():
    x, y = torch.arange(12.0).reshape(6, 2), torch.arange(6)
    order = an_order(6)

    def first(data):
        return next(iter(as_source(data, device=CPU).batches(order, 4)))

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
    for batch in as_source(values, device=CPU).batches(torch.arange(8), 4):
        batch.add_(1)
    assert values.sum() == 0


@pytest.mark.parametrize("batch_size", [1, 4, 7, 20])
def test_a_dataset_is_read_exactly_like_its_tensors(batch_size):
    x, y = torch.arange(40.0).reshape(20, 2), torch.arange(20)
    tensors, dataset = as_source((x, y), device=CPU), as_source(TensorDataset(x, y), device=CPU)
    order = an_order(20)[3:]

    assert len(tensors) == len(dataset) == 20
    for read in ("batches", "all_batches"):
        ours = [tuple(part.tolist() for part in batch) for batch in getattr(dataset, read)(order, batch_size)]
        theirs = [tuple(part.tolist() for part in batch) for batch in getattr(tensors, read)(order, batch_size)]
        assert ours == theirs


def test_collate_makes_the_batch_of_a_dataset():
    source = as_source(TensorDataset(torch.arange(5)), device=CPU, collate=lambda items: sum(int(i[0]) for i in items))
    assert list(source.all_batches(torch.tensor([4, 3, 2, 1, 0]), 2)) == [7, 3, 0]


def test_an_empty_order_gives_no_batch_at_all():
    for data in (torch.arange(5), TensorDataset(torch.arange(5))):
        source = as_source(data, device=CPU)
        assert list(source.batches(torch.arange(0), 2)) == []
        assert list(source.all_batches(torch.arange(0), 2)) == []


def test_reading_draws_nothing_from_the_random_stream():
    for data in (torch.arange(50), TensorDataset(torch.arange(50))):
        before = torch.get_rng_state()
        assert len(list(as_source(data, device=CPU).batches(torch.arange(50), 8))) == 6
        assert torch.equal(torch.get_rng_state(), before)


def test_ragged_tensors_are_refused_with_their_lengths():
    with pytest.raises(WorkloadError, match=r"valid have different numbers of examples .*\[3, 4\]"):
        as_source((torch.zeros(4, 2), torch.zeros(3)), device=CPU, name="valid")


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


@pytest.mark.parametrize("data", [5, None, lambda: 1, Stream()], ids=["number", "nothing", "function", "stream"])
def test_what_cannot_be_indexed_is_refused_with_its_type(data):
    with pytest.raises(WorkloadError, match=rf"data is a {type(data).__name__}\. Give a tensor"):
        as_source(data, device=CPU)


NOT_DATA = {
    "text": "digits",
    "arrays in a tuple": (torch.zeros(3, 2).numpy(), torch.zeros(3).numpy()),
    "lists in a dict": {"inputs": [1.0, 2.0]},
    "one number": torch.tensor(1.0),
}


@pytest.mark.parametrize("data", NOT_DATA.values(), ids=NOT_DATA.keys())
def test_what_can_be_indexed_but_holds_no_examples_is_refused_too(data):
    with pytest.raises(WorkloadError, match=r"Give a tensor"):
        len(as_source(data, device=CPU))


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


def test_finite_values_whole_numbers_and_datasets_pass_the_check():
    check_finite({"x": torch.zeros(2, 2), "y": torch.tensor([1, 2])}, "data")
    check_finite(Untouchable(), "data")
