"""From the gradients to the next batch: clipping, precision and averages, each against a loop written by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from rightbatch.records import Trial
from rightbatch.stepping import Stepper
from rightbatch.update import Update, under_autocast
from rightbatch.workload import Workload

X = torch.randn(50, 4, generator=torch.Generator().manual_seed(5))
Y = (X.sum(dim=1) > 0).long()
STEPS = 25


def per_example(model, batch):
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs), labels, reduction="none")


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def workload(**changes: Any) -> Workload:
    parts = {
        "name": "signs",
        "model": network,
        "data": (X, Y),
        "valid": (X[:10], Y[:10]),
        "loss": per_example,
        "optimizer": lambda parameters, trial: torch.optim.SGD(parameters, lr=trial.learning_rate, momentum=0.9),
    }
    return Workload(**{**parts, **changes})


def trained(work: Workload, steps: int = STEPS, batch_size: int = 8) -> Stepper:
    torch.manual_seed(1)
    stepper = Stepper(work, work.complete(Trial(batch_size, 0.1, 3)))
    stepper.run(steps)
    return stepper


def by_hand(
    work: Workload,
    *,
    step: Callable[[nn.Module, torch.optim.Optimizer, torch.Tensor], None],
    precision: torch.dtype | None = None,
    after: Callable[[nn.Module], None] = lambda model: None,
) -> nn.Module:
    """The independent twin: a plain loop over the same batches, `step` from the mean loss to the optimizer's step."""
    torch.manual_seed(1)
    model = work.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(3)
    order: list[int] = []
    for _ in range(STEPS):
        if len(order) < 8:
            order = torch.randperm(50, generator=generator).tolist()
        now, order = order[:8], order[8:]
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
            loss = work.loss(model, (X[now], Y[now])).mean()
        step(model, optimizer, loss)
        after(model)
    return model


def plain_step(model, optimizer, loss):
    loss.backward()
    optimizer.step()


def clip(model: nn.Module, limit: float) -> None:
    """Gradients divided by their norm over the limit, where it is above it (Pascanu et al. 2013, algorithm 1)."""
    norm = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in model.parameters()))
    if norm > limit:
        for parameter in model.parameters():
            parameter.grad *= limit / norm


def assert_same(one: nn.Module, other: nn.Module, tolerance: float) -> None:
    """Parameters and buffers."""
    for (name, ours), (_, theirs) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance, msg=name)


def far_apart(one: nn.Module, other: nn.Module) -> bool:
    return any(
        (ours - theirs).abs().max() > 1e-3 for ours, theirs in zip(one.parameters(), other.parameters(), strict=True)
    )


# ------------------------------------------------------------------------------------------------------------ clipping


def test_clipped_gradients_are_those_of_a_loop_by_hand():
    def step(model, optimizer, loss):
        loss.backward()
        clip(model, 0.2)
        optimizer.step()

    work = workload(max_gradient_norm=0.2)
    ours = trained(work).model
    assert_same(ours, by_hand(work, step=step), 1e-5)
    assert far_apart(ours, by_hand(work, step=plain_step))


def test_a_norm_that_is_never_reached_changes_no_bit():
    assert_same(trained(workload(max_gradient_norm=1e6)).model, trained(workload()).model, 0)


# ----------------------------------------------------------------------------------------------------------- precision


def test_bfloat16_is_autocast_around_the_loss_and_nothing_else():
    work = workload(autocast="bfloat16")
    ours = trained(work).model
    assert_same(ours, by_hand(work, step=plain_step, precision=torch.bfloat16), 1e-5)
    assert far_apart(ours, by_hand(work, step=plain_step))
    assert {p.dtype for p in ours.parameters()} == {torch.float32}


def test_without_autocast_a_function_is_itself():
    def loss(model, batch):
        return model(batch[0]).square()

    assert under_autocast(loss, workload()) is loss
    assert under_autocast(loss, workload(autocast="bfloat16")) is not loss


def test_a_person_sees_autocast_in_the_loss_only():
    seen = []

    def loss(model, batch):
        seen.append(("loss", torch.is_autocast_enabled("cpu"), model(batch[0]).dtype))
        return per_example(model, batch)

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(("step", torch.is_autocast_enabled("cpu"), self.param_groups[0]["params"][0].grad.dtype))
            return super().step(closure)

    for precision, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        seen.clear()
        trained(workload(autocast=precision, loss=loss, optimizer=lambda p, trial: Watched(p, lr=0.1)), 3)
        assert set(seen) == {("loss", True, dtype), ("step", False, torch.float32)}


def scaled_by_hand(limit: float | None = None):
    """Gradients of a scaled loss, unscaled, clipped; no step where they overflowed (Micikevicius et al. 2018)."""
    scale = 2.0**16

    def step(model, optimizer, loss):
        nonlocal scale
        (loss * scale).backward()
        for parameter in model.parameters():
            parameter.grad /= scale
        finite = all(torch.isfinite(p.grad).all() for p in model.parameters())
        if finite and limit is not None:
            clip(model, limit)
        if finite:
            optimizer.step()
        else:
            scale /= 2

    return step


@pytest.mark.parametrize("limit", [None, 0.2])
def test_float16_is_a_loop_by_hand_with_a_scale(limit):
    work = workload(autocast="float16", max_gradient_norm=limit)
    ours = trained(work)
    assert_same(ours.model, by_hand(work, step=scaled_by_hand(limit), precision=torch.float16), 1e-4)
    assert far_apart(ours.model, by_hand(work, step=plain_step))
    assert ours.update.scale is not None


def overflowing(model, batch):
    """Losses whose scaled gradients are beyond 65504, the largest number of half precision, at the first scales."""
    return per_example(model, batch) * 128


def test_a_step_that_overflows_is_left_out_and_the_scale_halved():
    work = workload(autocast="float16", loss=overflowing, optimizer=lambda p, trial: torch.optim.SGD(p, lr=0.1 / 128))
    torch.manual_seed(1)
    stepper = Stepper(work, work.complete(Trial(8, 0.1, 3)))
    before = [p.detach().clone() for p in stepper.model.parameters()]
    scales = [2.0**16]
    moved = []
    for _ in range(12):
        stepper.run(1)
        scales.append(stepper.update.state()["scaler"]["scale"])
        moved.append(any(not torch.equal(p, b) for p, b in zip(stepper.model.parameters(), before, strict=True)))
    left_out = moved.index(True)
    assert 1 <= left_out < 12
    assert scales[: left_out + 1] == [2.0 ** (16 - k) for k in range(left_out + 1)]
    assert scales[left_out + 1] == scales[left_out]
    assert not any(moved[:left_out])


def test_a_first_step_that_overflows_is_no_warning_of_the_schedule():
    trained(workload(autocast="float16", loss=overflowing, schedule=lambda o, t: lr_scheduler.ConstantLR(o, 1.0)), 3)


# ------------------------------------------------------------------------------------------------------------- average


class Average:
    """An exponential average by hand, of parameters and buffers; the first iterate is where it begins."""

    def __init__(self, horizon_examples: float, batch_size: int) -> None:
        self.decay = math.exp(-batch_size / horizon_examples)
        self.values: dict[str, torch.Tensor] = {}

    def __call__(self, model: nn.Module) -> None:
        for name, value in model.state_dict().items():
            new = value.detach().clone()
            if name in self.values and value.is_floating_point():
                new = self.decay * self.values[name] + (1 - self.decay) * new
            self.values[name] = new


@pytest.mark.parametrize("precision", [None, "float16"])
def test_averaged_weights_and_buffers_are_those_of_a_loop_by_hand(precision):
    work = workload(averaging_examples=60.0, autocast=precision, max_gradient_norm=0.5)
    average = Average(60.0, 8)

    def clipped_step(model, optimizer, loss):
        loss.backward()
        clip(model, 0.5)
        optimizer.step()

    step = clipped_step if precision is None else scaled_by_hand(0.5)
    model = by_hand(work, step=step, precision=torch.float16 if precision else None, after=average)
    ours = trained(work)
    assert_same(ours.model, model, 1e-4)
    judged = ours.judged.state_dict()
    assert [name for name in judged if "running" in name] == ["1.running_mean", "1.running_var"]
    for name, value in average.values.items():
        if value.is_floating_point():
            torch.testing.assert_close(judged[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert far_apart(ours.judged, ours.model)


def test_averaging_leaves_training_as_it_is():
    assert_same(trained(workload(averaging_examples=60.0)).model, trained(workload()).model, 0)


def test_without_an_average_the_model_itself_is_judged():
    stepper = trained(workload(), 1)
    assert stepper.judged is stepper.model
    assert stepper.update.averaged is None
    assert stepper.update.scale is None


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_the_horizon_is_in_examples_at_every_batch_size(batch_size):
    """After a jump of the weights the average has gone 1 - exp(-examples / horizon) of the way, whatever the size."""
    work = workload(model=lambda: nn.Linear(1, 1, bias=False), averaging_examples=100.0)
    model = work.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    update = Update(work, work.complete(Trial(batch_size, 0.1, 0)), model, optimizer)

    def move(value: float, examples: int) -> None:
        nn.init.constant_(model.weight, value)
        for _ in range(examples // batch_size):
            update()

    move(1.0, 16)
    assert update.averaged.weight.item() == 1.0
    for examples in (64, 128):
        before = update.averaged.weight.item()
        move(0.0, examples)
        assert update.averaged.weight.item() == pytest.approx(before * math.exp(-examples / 100), rel=1e-5)


class WithTable(nn.Module):
    """A model with whole numbers among its buffers, as tables of positions are."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 2)
        self.register_buffer("positions", torch.arange(100))
        self.register_buffer("mask", torch.arange(100) % 2 == 0)

    def forward(self, inputs):
        return self.inner(inputs)


def test_whole_numbers_among_the_buffers_are_copied_and_not_averaged():
    judged = trained(workload(model=WithTable, averaging_examples=300.0)).judged
    assert judged.positions.tolist() == list(range(100))
    assert judged.mask.tolist() == [k % 2 == 0 for k in range(100)]


class Sized(nn.Linear):
    """A model with a length, which makes it false where it is asked for its truth."""

    def __len__(self):
        return 0


def test_a_model_with_a_length_of_zero_is_averaged_too():
    stepper = trained(workload(model=lambda: Sized(4, 2), averaging_examples=60.0), 3)
    assert stepper.judged is stepper.update.averaged


# --------------------------------------------------------------------------------------------------------------- state

ASKED = {
    "nothing": {},
    "clipping": {"max_gradient_norm": 0.2},
    "average": {"averaging_examples": 60.0},
    "bfloat16": {"autocast": "bfloat16"},
    "float16": {"autocast": "float16"},
    "all": {"max_gradient_norm": 0.2, "averaging_examples": 60.0, "autocast": "float16"},
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
def test_a_state_goes_on_to_the_bit(asked):
    work = workload(**asked)
    whole = trained(work)
    first = trained(work, 11)
    state = copy.deepcopy(first.state())
    torch.manual_seed(77)
    second = Stepper(work, work.complete(Trial(8, 0.1, 3)))
    second.load(state)
    second.run(STEPS - 11)
    assert_same(second.model, whole.model, 0)
    assert_same(second.judged, whole.judged, 0)
    assert second.update.state()["scaler"] == whole.update.state()["scaler"]
