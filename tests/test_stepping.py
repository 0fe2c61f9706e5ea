"""The inner loop: a slow loop written by hand agrees, and a state may be cut anywhere."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rightbatch.errors import WorkloadError
from rightbatch.records import Trial
from rightbatch.stepping import Stepper
from rightbatch.workload import Workload

GENERATOR = torch.Generator().manual_seed(5)
X = torch.randn(50, 4, generator=GENERATOR, dtype=torch.float64)
Y = (X.sum(dim=1) > 0).long()

OPTIMIZERS = {
    "sgd with momentum": lambda parameters, trial: torch.optim.SGD(parameters, lr=trial.learning_rate, momentum=0.9),
    "adam": lambda parameters, trial: torch.optim.Adam(parameters, lr=trial.learning_rate),
}


def per_example(model, batch):
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs), labels, reduction="none")


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()


def workload(**changes) -> Workload:
    parts = {
        "name": "signs",
        "model": network,
        "data": (X, Y),
        "valid": (X[:10], Y[:10]),
        "loss": per_example,
        "optimizer": OPTIMIZERS["sgd with momentum"],
    }
    return Workload(**{**parts, **changes})


def by_hand(work: Workload, x, y, trial: Trial, steps: int) -> tuple[nn.Module, list[float]]:
    """The independent twin: one example after the other into a batch, the mean loss, nothing shared with ours."""
    model = work.model()
    optimizer = work.optimizer(model.parameters(), trial)
    schedule = work.schedule(optimizer, trial) if work.schedule else None
    generator = torch.Generator().manual_seed(trial.seed)
    losses: list[float] = []
    while True:
        order = torch.randperm(len(x), generator=generator).tolist()
        while len(order) >= trial.batch_size:
            if len(losses) == steps:
                return model, losses
            now, order = order[: trial.batch_size], order[trial.batch_size :]
            inputs, labels = torch.stack([x[k] for k in now]), torch.stack([y[k] for k in now])
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), labels, reduction="mean")
            loss.backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
            losses.append(loss.item())


def assert_same_parameters(one: nn.Module, other: nn.Module, relative: float) -> None:
    for (name, ours), (_, theirs) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(
            ours, theirs, rtol=relative, atol=relative * theirs.detach().abs().max().item(), msg=name
        )


@pytest.mark.parametrize("kind", ["tensors", "dataset"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize(("batch_size", "steps"), [(1, 130), (7, 40), (16, 40), (50, 12)])
def test_a_plain_loop_by_hand_gives_the_same_parameters_and_losses(kind, optimizer, batch_size, steps):
    data = (X, Y) if kind == "tensors" else TensorDataset(X, Y)
    work = workload(data=data, optimizer=optimizer)
    trial = work.complete(Trial(batch_size, 0.05, 3))
    torch.manual_seed(1)
    stepper = Stepper(work, trial)
    train_loss = stepper.run(steps)
    torch.manual_seed(1)
    model, losses = by_hand(work, X, Y, trial, steps)

    assert_same_parameters(stepper.model, model, 1e-6)
    assert train_loss == pytest.approx(np.mean(losses), rel=1e-6)
    assert stepper.step == steps


def test_more_steps_than_a_block_over_more_examples_than_a_gather_agree_with_the_loop_by_hand():
    x = torch.randn(2500, 4, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    y = (x[:, 0] > 0).long()
    work = workload(data=(x, y))
    trial = work.complete(Trial(6, 0.01, 0))
    torch.manual_seed(2)
    stepper = Stepper(work, trial)
    train_loss = stepper.run(700)
    torch.manual_seed(2)
    model, losses = by_hand(work, x, y, trial, 700)

    assert_same_parameters(stepper.model, model, 1e-6)
    assert train_loss == pytest.approx(np.mean(losses), rel=1e-6)


def test_the_schedule_steps_after_every_optimizer_step():
    work = workload(schedule=lambda optimizer, trial: torch.optim.lr_scheduler.StepLR(optimizer, 5, gamma=0.5))
    trial = work.complete(Trial(8, 0.1, 0))
    torch.manual_seed(3)
    stepper = Stepper(work, trial)
    stepper.run(12)
    torch.manual_seed(3)
    model, _ = by_hand(work, X, Y, trial, 12)

    assert stepper.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**2)
    assert_same_parameters(stepper.model, model, 1e-6)


@pytest.mark.parametrize("batch_size", [3, 49])
def test_the_mean_of_double_precision_losses_is_taken_in_double_precision(batch_size):
    work = workload(optimizer=lambda parameters, trial: torch.optim.SGD(parameters, lr=0.1))
    trial = work.complete(Trial(batch_size, 0.1, 0))
    torch.manual_seed(4)
    stepper = Stepper(work, trial)
    stepper.run(1)
    torch.manual_seed(4)
    model, _ = by_hand(work, X, Y, trial, 1)
    assert_same_parameters(stepper.model, model, 1e-12)


# ------------------------------------------------------------------------------------------------- the kinds of losses

KINDS = {
    "per example": per_example,
    "total": lambda model, batch: (per_example(model, batch).sum(), len(batch[1])),
    "mean": lambda model, batch: per_example(model, batch).mean(),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("batch_size", [1, 7, 50])
def test_every_kind_of_loss_is_the_loop_by_hand(kind, batch_size):
    work = workload(loss=kind)
    trial = work.complete(Trial(batch_size, 0.05, 3))
    torch.manual_seed(1)
    stepper = Stepper(work, trial)
    train_loss = stepper.run(20)
    torch.manual_seed(1)
    model, losses = by_hand(workload(), X, Y, trial, 20)

    assert_same_parameters(stepper.model, model, 1e-12)
    assert train_loss == pytest.approx(np.mean(losses), rel=1e-12)


TEXTS = torch.randint(1, 6, (40, 7), generator=torch.Generator().manual_seed(8))
LENGTHS = 1 + torch.arange(40) % 7


def next_tokens(model, batch):
    """The loss of every next token, and which of them are within their text: both `[batch_size, 6]`."""
    texts, lengths = batch
    losses = nn.functional.cross_entropy(model(texts[:, :-1]).transpose(1, 2), texts[:, 1:], reduction="none")
    return losses, torch.arange(1, 7) <= lengths[:, None]


def masked_total(model, batch):
    losses, kept = next_tokens(model, batch)
    return (losses * kept).sum(), kept.sum()


def test_masked_tokens_are_a_loop_by_hand_over_single_tokens():
    work = workload(
        data=(TEXTS, LENGTHS),
        loss=masked_total,
        model=lambda: nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 6)).double(),
    )
    torch.manual_seed(1)
    stepper = Stepper(work, work.complete(Trial(10, 0.1, 0)))
    train_loss = stepper.run(8)

    torch.manual_seed(1)
    model = work.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    order = torch.Generator().manual_seed(0)
    means = []
    for _ in range(2):
        for now in torch.randperm(40, generator=order).reshape(4, 10).tolist():
            losses = []
            for k in now:
                for place in range(1, min(int(LENGTHS[k]), 6) + 1):
                    log_shares = torch.log_softmax(model(TEXTS[k, place - 1]), dim=0)
                    losses.append(-log_shares[TEXTS[k, place]])
            optimizer.zero_grad()
            mean = sum(losses) / len(losses)
            mean.backward()
            optimizer.step()
            means.append(mean.item())

    assert_same_parameters(stepper.model, model, 1e-10)
    assert train_loss == pytest.approx(np.mean(means), rel=1e-10)


def ragged(batch_size, seed):
    """A pass in batches of the size and one smaller one, which a loader may give."""
    order = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
    return [(X[now], Y[now]) for now in torch.split(order, batch_size)]


@pytest.mark.parametrize("kind", ["per example", "total", "mean"])
def test_the_ragged_batches_of_a_loader_are_a_loop_by_hand(kind):
    work = workload(data=ragged, train_examples=50, loss=KINDS[kind])
    torch.manual_seed(1)
    stepper = Stepper(work, work.complete(Trial(8, 0.05, 3)))
    train_loss = stepper.run(17)

    torch.manual_seed(1)
    model = network()
    optimizer = OPTIMIZERS["sgd with momentum"](model.parameters(), Trial(8, 0.05, 3))
    seeds = torch.Generator().manual_seed(3)
    batches = [batch for _ in range(3) for batch in ragged(8, int(torch.randint(1 << 31, (), generator=seeds)))]
    losses = []
    for inputs, labels in batches[:17]:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert {len(labels) for _, labels in batches} == {8, 2}
    assert_same_parameters(stepper.model, model, 1e-12)
    assert train_loss == pytest.approx(np.mean(losses), rel=1e-12)


# ------------------------------------------------------------------------------------------------ the place in the data


def seen(steps_and_sizes, seed, batch_size, data=None, examples=23):
    """The examples that a stepper saw, step by step, each stretch in a new stepper that took over the state."""
    reads: list[list[int]] = []

    def loss(model, batch):
        reads.append(batch[:, 0].long().tolist())
        return model(batch)[:, 0].mean()

    work = Workload(
        name="order",
        model=lambda: nn.Linear(1, 1),
        data=torch.arange(float(examples)).unsqueeze(1) if data is None else data,
        train_examples=examples,
        valid=torch.zeros(1, 1),
        loss=loss,
        optimizer=lambda parameters, trial: torch.optim.SGD(parameters, lr=1e-6),
    )
    trial = work.complete(Trial(batch_size, 1e-6, seed))
    state = None
    for steps in steps_and_sizes:
        stepper = Stepper(work, trial)
        if state is not None:
            stepper.load(state)
        stepper.run(steps)
        state = stepper.state()
    return reads


@settings(derandomize=True, deadline=None, max_examples=60)
@given(batch_size=st.integers(1, 23), steps=st.integers(1, 60), seed=st.integers(0, 99))
def test_every_epoch_shows_no_example_twice_and_all_but_the_rest(batch_size, steps, seed):
    reads = seen([steps], seed, batch_size)
    steps_an_epoch = 23 // batch_size
    assert [len(read) for read in reads] == [batch_size] * steps
    for start in range(0, steps, steps_an_epoch):
        epoch = [k for read in reads[start : start + steps_an_epoch] for k in read]
        assert len(set(epoch)) == len(epoch)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(batch_size=st.integers(1, 23), cuts=st.lists(st.integers(1, 30), min_size=1, max_size=4), seed=st.integers(0, 9))
def test_a_state_may_be_cut_anywhere_without_losing_the_place_in_the_data(batch_size, cuts, seed):
    assert seen(cuts, seed, batch_size) == seen([sum(cuts)], seed, batch_size)


def shuffled_loader(batch_size, seed):
    """Its order comes from the process's generator, as most people write it."""
    examples = torch.arange(23.0).unsqueeze(1)
    return DataLoader(examples, batch_size=batch_size, shuffle=True)


def ragged_buckets(batch_size, seed):
    pieces = [list(bucket[k : k + batch_size]) for bucket in (range(9), range(9, 23)) for k in range(0, 14, batch_size)]
    pieces = [piece for piece in pieces if piece]
    random.Random(seed).shuffle(pieces)
    yield from (torch.tensor(piece, dtype=torch.float32).unsqueeze(1) for piece in pieces)


def endless_stream(batch_size, seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randint(1000, (batch_size, 1), generator=generator).float()


@pytest.mark.parametrize("loader", [shuffled_loader, ragged_buckets, endless_stream])
@settings(derandomize=True, deadline=None, max_examples=20)
@given(batch_size=st.integers(1, 23), cuts=st.lists(st.integers(1, 20), min_size=1, max_size=4), seed=st.integers(0, 9))
def test_a_state_may_be_cut_anywhere_in_a_loader_too(loader, batch_size, cuts, seed):
    torch.manual_seed(0)
    whole = seen([sum(cuts)], seed, batch_size, loader)
    torch.manual_seed(1)
    assert seen(cuts, seed, batch_size, loader) == whole


def test_a_pass_of_a_loader_shows_every_example_once_and_the_next_in_another_order():
    for loader in (shuffled_loader, ragged_buckets):
        steps = len(list(loader(5, 0)))
        reads = seen([3 * steps], 0, 5, loader)
        passes = [[k for read in reads[start : start + steps] for k in read] for start in (0, steps, 2 * steps)]
        assert all(sorted(one) == list(range(23)) for one in passes)
        assert passes[0] != passes[1] != passes[2]


def test_another_seed_is_another_order_and_the_same_seed_the_same():
    assert seen([10], 0, 4) == seen([10], 0, 4)
    assert seen([10], 0, 4) != seen([10], 1, 4)


def test_a_batch_larger_than_the_data_is_refused_and_one_as_large_is_not():
    work = workload()
    with pytest.raises(
        WorkloadError, match=r"batch_size=51 is larger than the data: 50 training examples\. .*at most 50"
    ):
        Stepper(work, work.complete(Trial(51, 0.1, 0)))
    stepper = Stepper(work, work.complete(Trial(50, 0.1, 0)))
    stepper.run(2)
    assert stepper.step == 2


WRONG_LOSSES = {
    "a column": (lambda model, batch: per_example(model, batch)[:, None], r"returned shape \(5, 1\) for a batch of 5"),
    "too few": (lambda model, batch: per_example(model, batch)[1:], r"returned shape \(4,\) for a batch of 5"),
    "detached": (lambda model, batch: per_example(model, batch).detach(), r"losses without a gradient"),
    "classes": (lambda model, batch: model(batch[0]).argmax(dim=1), r"losses without a gradient"),
    "a list": (lambda model, batch: list(per_example(model, batch)), r"returned a list"),
    "nothing": (lambda model, batch: None, r"returned a NoneType"),
    "no weight": (
        lambda model, batch: (per_example(model, batch).sum(), 0),
        r"a total with the weight 0, which must be",
    ),
}


@pytest.mark.parametrize(("loss", "message"), WRONG_LOSSES.values(), ids=WRONG_LOSSES.keys())
def test_a_loss_that_breaks_its_contract_is_told_what_it_returned(loss, message):
    work = workload(loss=loss)
    stepper = Stepper(work, work.complete(Trial(5, 0.1, 0)))
    with pytest.raises(WorkloadError, match=message + r".*shape \[batch_size\]"):
        stepper.run(1)


def test_an_error_of_backward_that_is_not_the_losses_fault_is_left_alone():
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(context, value):
            return value.clone()

        @staticmethod
        def backward(context, gradient):
            raise RuntimeError("the person's own backward")

    work = workload(loss=lambda model, batch: Broken.apply(per_example(model, batch)))
    stepper = Stepper(work, work.complete(Trial(5, 0.1, 0)))
    with pytest.raises(RuntimeError, match="the person's own backward"):
        stepper.run(1)


def test_the_length_of_a_stretch_changes_nothing_but_the_mean_that_is_told():
    work = workload()
    trial = work.complete(Trial(9, 0.05, 0))
    torch.manual_seed(6)
    whole = Stepper(work, trial)
    mean = whole.run(30)
    torch.manual_seed(6)
    parts = Stepper(replace(work), trial)
    means = [parts.run(steps) * steps for steps in (1, 4, 5, 20)]

    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name])
    assert sum(means) / 30 == pytest.approx(mean, rel=1e-12)
