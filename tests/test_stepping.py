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
from torch.utils.data import TensorDataset

from rightbatch.errors import WorkloadError
from rightbatch.records import Trial
from rightbatch.stepping import Stepper, check_losses, is_memory_error
from rightbatch.streams import RandomStreams
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


def seen(steps_and_sizes, seed, batch_size, examples=23):
    """The examples that a stepper saw, step by step, each stretch in a new stepper that took over the state."""
    reads: list[list[int]] = []

    def loss(model, batch):
        reads.append(batch[:, 0].long().tolist())
        return model(batch)[:, 0]

    work = Workload(
        name="order",
        model=lambda: nn.Linear(1, 1),
        data=torch.arange(float(examples)).unsqueeze(1),
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
    "one number": (lambda model, batch: per_example(model, batch).mean(), r"returned shape \(\) for a batch of 5"),
    "a column": (lambda model, batch: per_example(model, batch)[:, None], r"returned shape \(5, 1\) for a batch of 5"),
    "too few": (lambda model, batch: per_example(model, batch)[1:], r"returned shape \(4,\) for a batch of 5"),
    "detached": (lambda model, batch: per_example(model, batch).detach(), r"losses without a gradient"),
    "classes": (lambda model, batch: model(batch[0]).argmax(dim=1), r"losses without a gradient"),
    "a list": (lambda model, batch: list(per_example(model, batch)), r"returned a list"),
    "nothing": (lambda model, batch: None, r"returned a NoneType"),
}


@pytest.mark.parametrize(("loss", "message"), WRONG_LOSSES.values(), ids=WRONG_LOSSES.keys())
def test_a_loss_that_breaks_its_contract_is_told_what_it_returned(loss, message):
    work = workload(loss=loss)
    stepper = Stepper(work, work.complete(Trial(5, 0.1, 0)))
    with pytest.raises(WorkloadError, match=message + r".*shape \[batch_size\]"):
        stepper.run(1)


def test_a_scalar_loss_is_refused_even_at_batch_size_one():
    work = workload(loss=lambda model, batch: per_example(model, batch).mean())
    stepper = Stepper(work, work.complete(Trial(1, 0.1, 0)))
    with pytest.raises(WorkloadError, match=r"returned shape \(\) for a batch of 1"):
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


def test_good_losses_pass_the_check():
    check_losses(torch.ones(3, requires_grad=True) * 2, 3)


def test_memory_errors_are_told_from_others():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8)  # more than the address space: the CPU allocator's own words
    assert is_memory_error(caught.value)
    assert is_memory_error(MemoryError())
    assert is_memory_error(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_memory_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def draws() -> list[float]:
    # Three of NumPy's Gaussians: it makes them in pairs and keeps one back, which belongs to the state.
    gaussians = np.random.randn(3).tolist()  # noqa: NPY002
    return [random.random(), random.gauss(0, 1), *gaussians, *torch.rand(2).tolist()]


def seed_the_process(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def test_streams_of_one_seed_draw_what_a_seeded_process_draws_whoever_draws_in_between():
    seed_the_process(7)
    expected = [draws() for _ in range(4)]

    one, other = RandomStreams(7), RandomStreams(8)
    found = []
    for _ in range(4):
        with one.active():
            found.append(draws())
        draws()
        with other.active():
            draws()
    assert found == expected
    assert len({tuple(d) for d in expected}) == 4


def test_streams_leave_the_process_as_they_found_it():
    seed_the_process(1)
    expected = [draws(), draws()]
    seed_the_process(1)
    first = draws()
    streams = RandomStreams(9)
    with streams.active():
        draws()
    with pytest.raises(ValueError, match="inside"), streams.active():
        raise ValueError("inside")
    assert [first, draws()] == expected


def test_streams_go_on_where_their_state_was_taken():
    streams = RandomStreams(3)
    with streams.active():
        draws()
    state = streams.state()
    with streams.active():
        expected = draws()
    other = RandomStreams(4)
    other.load(state)
    with other.active():
        assert draws() == expected


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
