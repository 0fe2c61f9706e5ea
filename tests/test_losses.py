"""What a loss may return: three kinds that mean the same, and clear words for all else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.errors import WorkloadError
from rightbatch.losses import check_loss, examples_in, is_total, mean_loss, totals

KINDS = {
    "per example": lambda values: values,
    "total": lambda values: (values.sum(), len(values)),
    "total with a tensor": lambda values: (values.sum(), torch.tensor(len(values))),
    "mean": lambda values: values.mean(),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("examples", [1, 2, 7])
def test_the_mean_loss_and_its_gradient_are_the_same_of_every_kind(kind, examples):
    values = torch.linspace(-2, 3, examples, dtype=torch.float64, requires_grad=True)
    mean = mean_loss(kind(values**2), examples)
    mean.backward()
    assert mean.ndim == 0
    assert mean.item() == pytest.approx(sum(v**2 for v in values.tolist()) / examples, rel=1e-14)
    assert values.grad.tolist() == pytest.approx([2 * v / examples for v in values.tolist()], rel=1e-14)


def test_a_total_is_a_mean_over_its_weight_and_not_over_the_batch():
    values = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    mask = torch.tensor([1.0, 0.0, 1.0])
    mean = mean_loss(((values * mask).sum(), mask.sum()), 3)
    mean.backward()
    assert mean.item() == 3.5
    assert values.grad.tolist() == [0.5, 0.0, 0.5]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), kind=st.sampled_from(list(KINDS)))
def test_totals_over_any_cut_into_batches_give_the_mean_over_all(lengths, kind):
    values = torch.arange(float(sum(lengths)), dtype=torch.float64) ** 2
    parts = [totals(KINDS[kind](part), len(part), "loss") for part in torch.split(values, lengths)]
    mean = float(sum(total for total, _ in parts)) / sum(weight for _, weight in parts)
    assert mean == pytest.approx(values.mean().item(), rel=1e-12)


def test_totals_are_without_a_gradient_and_read_numbers_and_truths():
    values = torch.ones(4, requires_grad=True)
    for kind in KINDS.values():
        assert not totals(kind(values * 2), 4, "loss")[0].requires_grad
    assert totals((6.0, 4), 9, "metric") == (torch.tensor(6.0), 4.0)
    total, weight = totals(torch.tensor([True, True, False]), 3, "metric")
    assert (float(total), weight) == (2.0, 3.0)


def test_many_small_values_are_summed_in_double_precision():
    values = torch.full((100_000,), 0.1)
    total, _ = totals(values, len(values), "loss")
    assert float(total) == pytest.approx(float(values[0]) * len(values), rel=1e-12)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.tensor(70.0, dtype=torch.float16), 70_000.0),
        (torch.tensor(1.0078125, dtype=torch.bfloat16), 1007.8125),
        ((16_777_217.0, 1000), 16_777_217.0),
    ],
    ids=["float16 overflows", "bfloat16 rounds", "a number rounds"],
)
def test_a_mean_of_half_precision_is_weighted_in_double_precision(value, expected):
    total, weight = totals(value, 1000, "loss")
    assert (float(total), weight) == (expected, 1000.0)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (torch.zeros(3, 2), r"\(3, 2\)"),
        (0.5, "float"),
        (None, "NoneType"),
        ([1.0, 2.0], "list"),
        ((torch.zeros(3), 3), "tuple"),
        ((1.0, 2.0, 3.0), "tuple"),
    ],
)
def test_what_is_no_loss_is_refused_in_evaluation_with_what_was_seen(value, found):
    with pytest.raises(WorkloadError, match=rf"metric\(model, batch\) returned {found} in evaluation\. It must return"):
        totals(value, 3, "metric")


LOSSES = torch.ones(5, requires_grad=True) * 2
WRONG = {
    "a column": (LOSSES[:, None], r"returned shape \(5, 1\) for a batch of 5"),
    "too few": (LOSSES[1:], r"returned shape \(4,\) for a batch of 5"),
    "detached": (LOSSES.detach(), r"losses without a gradient \(was it computed under no_grad, or detached\?\)"),
    "a detached mean": (LOSSES.detach().mean(), r"losses without a gradient"),
    "a detached total": ((LOSSES.detach().sum(), 5), r"losses without a gradient"),
    "numbers": ((3.0, 5), r"returned a tuple"),
    "a list": (list(LOSSES), r"returned a list"),
    "nothing": (None, r"returned a NoneType"),
    "a vector with a weight": ((LOSSES, 5), r"returned a tuple"),
    "three parts": ((LOSSES.sum(), 5, 1), r"returned a tuple"),
    "no weight": ((LOSSES.sum(), 0), r"a total with the weight 0, which must be positive"),
    "a negative weight": ((LOSSES.sum(), torch.tensor(-2.0)), r"a total with the weight -2, which must be positive"),
    "an unknown weight": ((LOSSES.sum(), float("nan")), r"a total with the weight nan, which must be positive"),
}


@pytest.mark.parametrize(("loss", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_no_loss_is_refused_in_training_with_what_was_seen(loss, message):
    for refused in (check_loss, mean_loss):
        with pytest.raises(WorkloadError, match=rf"^loss\(model, batch\) .*{message}.*shape \[batch_size\].*scalar"):
            refused(loss, 5)


def test_good_losses_pass_the_check():
    for kind in KINDS.values():
        check_loss(kind(LOSSES), 5)


def test_where_the_number_of_examples_is_not_known_any_length_is_good_but_no_column():
    check_loss(LOSSES, None)
    assert mean_loss(LOSSES, None).item() == 2
    with pytest.raises(WorkloadError, match=r"returned shape \(5, 1\)\. It must"):
        check_loss(LOSSES[:, None], None)


def test_the_cause_of_a_bad_loss_is_kept():
    cause = RuntimeError("element 0 of tensors does not require grad")
    with pytest.raises(WorkloadError) as caught:
        check_loss(LOSSES.detach(), 5, cause)
    assert caught.value.__cause__ is cause


def test_a_total_is_a_pair_of_scalars():
    one = torch.tensor(1.0)
    for pair in ((one, 2), (1.0, 2), (one, one), (1, torch.tensor(3))):
        assert is_total(pair)
    for other in (one, [one, 2], (one,), (one, 2, 3), (one.reshape(1), 2), (one, None), (one, "2"), None):
        assert not is_total(other)


@pytest.mark.parametrize(
    ("batch", "examples"),
    [
        (torch.zeros(3, 2), 3),
        ((torch.zeros(4), torch.zeros(7)), 4),
        ({"mask": torch.zeros(5), "text": ["a"]}, 5),
        ([{"inputs": (torch.zeros(6, 1),)}, torch.zeros(2)], 6),
        ((torch.tensor(1.0), torch.zeros(2)), 2),
        (("text", torch.zeros(2)), 2),
        (torch.tensor(1.0), None),
        ((), None),
        ("text", None),
        (None, None),
    ],
)
def test_a_batch_has_as_many_examples_as_its_first_tensor(batch, examples):
    assert examples_in(batch) == examples
