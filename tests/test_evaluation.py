"""Evaluation: means over examples or tokens, never over batches, against loops written by hand."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

from rightbatch.engine import WorkloadRunner
from rightbatch.errors import WorkloadError
from rightbatch.evaluation import Evaluator, evaluating
from rightbatch.records import Stop, Trial
from rightbatch.workload import Workload

X = torch.randn(50, 4, generator=torch.Generator().manual_seed(5))
Y = (X.sum(dim=1) > 0).long()
VALID_X = torch.randn(20, 4, generator=torch.Generator().manual_seed(6))
VALID_Y = torch.arange(20) % 2


def per_example(model, batch):
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs), labels, reduction="none")


def right(model, batch):
    inputs, labels = batch
    return (model(inputs).argmax(dim=1) == labels).float()


def loss_and_accuracy(model, batch):
    return per_example(model, batch), right(model, batch)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def workload(**changes: Any) -> Workload:
    parts = {
        "name": "signs",
        "model": network,
        "data": (X, Y),
        "valid": (VALID_X, VALID_Y),
        "loss": per_example,
        "metric": loss_and_accuracy,
        "direction": "max",
        "optimizer": lambda parameters, trial: torch.optim.SGD(parameters, lr=trial.learning_rate, momentum=0.9),
    }
    return Workload(**{**parts, **changes})


def a_model() -> nn.Module:
    torch.manual_seed(2)
    return network()


def judge(work: Workload, model: nn.Module | None = None) -> tuple[float, float]:
    return Evaluator(work, work.source("valid"))(model or a_model())


def truth(examples: slice = slice(None)) -> tuple[float, float]:
    """The mean loss and the accuracy of `a_model`, one example after the other."""
    model, losses, hits = a_model(), [], []
    with torch.no_grad():
        for inputs, label in zip(VALID_X[examples], VALID_Y[examples], strict=True):
            shares = torch.softmax(model(inputs).double(), dim=0)
            losses.append(-torch.log(shares[label]).item())
            hits.append(float(shares.argmax() == label))
    return float(np.mean(losses)), float(np.mean(hits))


# ------------------------------------------------------------------------------------------------ means over examples

RETURNS = {
    "per example": lambda values: values,
    "total": lambda values: (values.sum(), len(values)),
    "mean": lambda values: values.mean(),
}


@pytest.mark.parametrize("size", [1, 3, 7, 20, 1000])
@pytest.mark.parametrize("of_loss", RETURNS.values(), ids=RETURNS.keys())
@pytest.mark.parametrize("of_metric", RETURNS.values(), ids=RETURNS.keys())
def test_every_kind_of_loss_and_metric_is_a_mean_over_examples_whatever_the_batches(size, of_loss, of_metric):
    def loss(model, batch):
        return of_loss(per_example(model, batch))

    def pair(model, batch):
        return loss(model, batch), of_metric(right(model, batch))

    judged = judge(workload(loss=loss, metric=pair, evaluation_batch_size=size))
    assert judged == pytest.approx(truth(), rel=1e-6)
    alone = judge(workload(loss=loss, metric=None, direction="min", evaluation_batch_size=size))
    assert alone == pytest.approx((truth()[0], truth()[0]), rel=1e-6)


@pytest.mark.parametrize("of_metric", [RETURNS["per example"], RETURNS["mean"]], ids=["per example", "mean"])
def test_a_metric_alone_is_the_second_of_a_pair(of_metric):
    work = workload(metric=lambda model, batch: of_metric(right(model, batch)), evaluation_batch_size=6)
    assert judge(work) == pytest.approx(truth(), rel=1e-6)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6), kind=st.sampled_from(list(RETURNS)))
def test_a_loader_of_ragged_batches_is_weighted_by_examples(lengths, kind):
    def valid(batch_size, seed):
        ends = np.cumsum(lengths)
        return [(inputs[start:end, None], inputs[start:end]) for start, end in zip(ends - lengths, ends, strict=True)]

    inputs = torch.arange(50.0) ** 2
    work = workload(
        valid=valid,
        loss=lambda model, batch: RETURNS[kind](batch[1]),
        metric=None,
        direction="min",
        evaluation_batch_size=1,
    )
    assert judge(work)[0] == pytest.approx(inputs[: sum(lengths)].mean().item(), rel=1e-5)


def test_tokens_are_weighted_by_tokens():
    lengths = torch.tensor([1, 9, 2, 5, 3])
    losses = torch.arange(50.0).reshape(5, 10)

    def total(model, batch):
        kept = torch.arange(10) < batch[1][:, None]
        return (batch[0] * kept).sum(), kept.sum()

    by_hand = [float(losses[k, j]) for k in range(5) for j in range(int(lengths[k]))]
    work = workload(valid=(losses, lengths), loss=total, metric=None, direction="min", evaluation_batch_size=2)
    assert judge(work)[0] == pytest.approx(np.mean(by_hand), rel=1e-6)


def test_a_batch_without_weight_counts_for_nothing():
    def total(model, batch):
        kept = batch[1] == 1
        return (batch[0][:, 0] * kept).sum(), kept.sum()

    numbers, kept = torch.arange(6.0)[:, None], torch.tensor([0, 0, 1, 0, 1, 1])
    work = workload(valid=(numbers, kept), loss=total, metric=None, direction="min", evaluation_batch_size=2)
    assert judge(work)[0] == pytest.approx((2 + 4 + 5) / 3)


def test_a_metric_of_two_scalars_is_loss_and_value_and_never_a_total_with_a_weight():
    def means(model, batch):
        losses, hits = loss_and_accuracy(model, batch)
        return losses.mean(), hits.mean()

    for size in (20, 6):
        assert judge(workload(metric=means, evaluation_batch_size=size)) == pytest.approx(truth(), rel=1e-6)


# --------------------------------------------------------------------------------------------- what evaluation looks at


def evaluated(**changes: Any) -> tuple[list[int], tuple[float, float]]:
    """Which validation examples are seen, and what is found."""
    numbers: list[int] = []

    def metric(model, batch):
        numbers.extend(batch[1].tolist())
        return per_example(model, (batch[0], batch[1] % 2)), batch[1].float()

    found = judge(workload(**{"valid": (VALID_X, torch.arange(20)), "metric": metric, **changes}))
    return numbers, found


@pytest.mark.parametrize("size", [1, 3, 20, 1000])
def test_every_example_is_seen_once_and_the_batch_size_does_not_matter(size):
    numbers, found = evaluated(evaluation_batch_size=size)
    assert numbers == list(range(20))
    assert found == pytest.approx((truth()[0], 9.5), rel=1e-6)


def test_of_much_data_one_fixed_subset_is_used():
    numbers, found = evaluated(evaluation_examples=7)
    assert len(set(numbers)) == 7
    assert found[1] == pytest.approx(np.mean(numbers))
    again, _ = evaluated(evaluation_examples=7, evaluation_batch_size=2)
    assert again == numbers


def test_a_dataset_and_a_loader_are_evaluated_like_their_tensors():
    def loader(batch_size, seed):
        return list(zip(torch.split(VALID_X, batch_size), torch.split(torch.arange(20), batch_size), strict=True))

    for valid in (TensorDataset(VALID_X, torch.arange(20)), loader):
        numbers, found = evaluated(valid=valid, evaluation_batch_size=6)
        assert numbers == list(range(20))
        assert found == pytest.approx((truth()[0], 9.5), rel=1e-6)


def test_an_endless_loader_is_evaluated_on_so_many_examples():
    def endless(batch_size, seed):
        while True:
            yield VALID_X[:batch_size], torch.arange(batch_size)

    numbers, _ = evaluated(valid=endless, evaluation_batch_size=6, evaluation_examples=13)
    assert numbers == [0, 1, 2, 3, 4, 5] * 3


def test_evaluation_is_in_evaluation_mode_without_gradients_and_sets_back_what_it_changed():
    modes = []

    def metric(model, batch):
        modes.append((model.training, torch.is_grad_enabled()))
        return loss_and_accuracy(model, batch)

    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    model[0].eval()
    judge(workload(metric=metric), model)
    assert modes == [(False, False)]
    assert [module.training for module in model.modules()] == [True, False, True, True]

    def broken(model, batch):
        raise ValueError("seventeen")

    with pytest.raises(ValueError, match="seventeen"):
        judge(workload(metric=broken), model)
    assert [module.training for module in model.modules()] == [True, False, True, True]


def test_blocks_of_evaluating_may_be_nested_and_set_back_only_what_they_changed():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    model[1].eval()
    with evaluating(model):
        with evaluating(model):
            assert not any(module.training for module in model.modules())
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert torch.is_grad_enabled()
    with torch.no_grad():
        with evaluating(model.eval()):
            pass
        assert not torch.is_grad_enabled()
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(("precision", "dtype"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
@pytest.mark.parametrize("metric_on", ["batch", "set"])
def test_evaluation_is_in_the_precision_of_training(precision, dtype, metric_on):
    seen = []

    def loss(model, batch):
        seen.append(model(batch[0]).dtype)
        return per_example(model, batch)

    def metric(model, given):
        (batch,) = given if metric_on == "set" else [given]
        seen.append(model(batch[0]).dtype)
        return right(model, batch).mean()

    found = judge(workload(autocast=precision, loss=loss, metric=metric, metric_on=metric_on))
    assert seen == [dtype, dtype]
    assert found == pytest.approx(truth(), rel=0.02)


def test_averaged_weights_and_their_buffers_are_what_a_run_is_judged_by():
    def normalised() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))

    work = workload(model=normalised, averaging_examples=60.0, test=(X, Y))
    run = WorkloadRunner(work).start(Trial(8, 0.1, 3, 160))
    judged_twice = []
    while not isinstance(point := run.advance(), Stop):
        averaged = judge(work, run.model)
        trained = judge(work, run._stepper.model)
        judged_twice.append((point.valid_loss, averaged[0], trained[0]))
    told, averaged, trained = (list(values) for values in zip(*judged_twice, strict=True))
    assert told == averaged
    # The average begins at the first iterate, from the second step on it is another model.
    assert all(a != t for a, t in zip(averaged[2:], trained[2:], strict=True))


def test_an_evaluation_that_draws_is_repeatable_whatever_the_process_drew_before():
    def metric(model, batch):
        losses, hits = loss_and_accuracy(model, batch)
        return losses, hits + torch.rand(len(hits)) + random.random()

    def values():
        run = WorkloadRunner(workload(metric=metric)).start(Trial(8, 0.05, 11, 80))
        return [run.advance().valid_metric for _ in range(4)]

    torch.manual_seed(0)
    random.seed(0)
    one = values()
    torch.rand(3)
    random.random()
    assert values() == one


# --------------------------------------------------------------------------------------------- metrics over a whole set


def area_under_the_curve(model, batches):
    """Of all pairs of one example of each class, the share in the right order (Hanley and McNeil 1982)."""
    scores, labels = [], []
    for inputs, wanted in batches:
        scores.append(model(inputs).diff(dim=1)[:, 0])
        labels.append(wanted)
    score, label = torch.cat(scores), torch.cat(labels)
    return (score[label == 1][:, None] > score[label == 0]).double().mean()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_metric_on_the_set_is_given_all_batches_at_once(size):
    model = a_model()
    with torch.no_grad():
        score = model(VALID_X).diff(dim=1)[:, 0].tolist()
    pairs = [(score[i], score[j]) for i in range(1, 20, 2) for j in range(0, 20, 2)]
    area = sum(positive > negative for positive, negative in pairs) / len(pairs)

    for valid in ((VALID_X, VALID_Y), TensorDataset(VALID_X, VALID_Y)):
        work = workload(valid=valid, metric=area_under_the_curve, metric_on="set", evaluation_batch_size=size)
        assert judge(work) == pytest.approx((truth()[0], area), rel=1e-6)


def test_a_metric_on_the_set_may_give_the_loss_too_which_is_then_not_computed():
    def loss(model, batch):
        raise AssertionError("the metric gave it")

    work = workload(loss=loss, metric=lambda model, batches: (torch.tensor(0.25), 3), metric_on="set")
    assert judge(work) == (0.25, 3.0)


def test_a_metric_on_the_set_may_carry_a_state_from_batch_to_batch():
    def last_sum(model, batches):
        carried = torch.zeros(())
        for _, labels in batches:
            carried = carried / 2 + labels.sum()
        return carried

    expected = 0.0
    for start in range(0, 20, 6):
        expected = expected / 2 + sum(VALID_Y[start : start + 6].tolist())
    work = workload(metric=last_sum, metric_on="set", evaluation_batch_size=6)
    assert judge(work)[1] == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------- what may go wrong

WRONG_METRICS = {
    "a column": (lambda model, batch: model(batch[0]), r"metric\(model, batch\) returned \(20, 2\) in evaluation"),
    "a float": (lambda model, batch: 0.5, r"metric\(model, batch\) returned float in evaluation"),
    "nothing": (lambda model, batch: None, r"metric\(model, batch\) returned NoneType in evaluation"),
    "too few": (lambda model, batch: right(model, batch)[1:], r"returned \(19,\) .* where the loss has 20 examples"),
    "a pair with too few": (
        lambda model, batch: (per_example(model, batch), right(model, batch)[1:]),
        r"returned \(19,\) .* where the loss has 20 examples",
    ),
    "a pair with a column": (
        lambda model, batch: (model(batch[0]), right(model, batch)),
        r"loss\(model, batch\) returned \(20, 2\) in evaluation",
    ),
}


@pytest.mark.parametrize(("metric", "message"), WRONG_METRICS.values(), ids=WRONG_METRICS.keys())
def test_a_metric_of_a_wrong_shape_is_told_what_it_returned_and_what_to_return(metric, message):
    with pytest.raises(WorkloadError, match=message + r".*shape \[batch_size\]"):
        judge(workload(metric=metric))


def test_a_metric_of_three_parts_is_told_to_give_two():
    with pytest.raises(WorkloadError, match=r"metric\(model, batch\) returned 3 values\. Return \(loss, value\)"):
        judge(workload(metric=lambda model, batch: (*loss_and_accuracy(model, batch), 1.0)))


def test_a_loss_of_a_wrong_shape_is_refused_in_evaluation_already():
    work = workload(metric=None, direction="min", loss=lambda model, batch: model(batch[0]))
    with pytest.raises(WorkloadError, match=r"loss\(model, batch\) returned \(20, 2\) in evaluation\. It must return"):
        judge(work)


def test_a_metric_on_the_set_without_a_metric_says_what_to_give():
    with pytest.raises(WorkloadError, match=r'metric_on="set" without a metric.* metric\(model, batches\)'):
        judge(workload(metric=None, direction="min", metric_on="set"))


@pytest.mark.parametrize(
    ("returned", "found"),
    [(torch.zeros(3), r"\(3,\)"), ((1.0, 2.0, 3.0), "3 values"), (None, "NoneType"), ("high", "str")],
    ids=["a vector", "three parts", "nothing", "text"],
)
def test_a_metric_on_the_set_that_returns_no_number_is_told_what_it_returned(returned, found):
    work = workload(metric=lambda model, batches: returned, metric_on="set")
    with pytest.raises(WorkloadError, match=rf"metric\(model, batches\) returned .*{found}.*\(loss, value\)"):
        judge(work)
