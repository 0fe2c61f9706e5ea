"""Micro-batches of one size, and steps of more or fewer of them: as by hand, and as the sampler of whole batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

import rightbatch
from rightbatch.controllers import AdaDamp, InnerProductTest, Limits, NormTest, Planned

X = torch.randn(90, 6, generator=torch.Generator().manual_seed(2))
Y = (X[:, :2].sum(1) > 0).long()


def parts() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def micro_batches(size: int, passes: int) -> Iterator[Tensor]:
    for _ in range(passes):
        yield from torch.arange(90).split(size)


def loss_of(model: nn.Module, chosen: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(X[chosen]), Y[chosen])


def train(batches: Any, model: nn.Module, optimizer: Any, micro: Iterator[Tensor]) -> list[tuple[int, float]]:
    """Each step with its examples so far, and its rate."""
    steps = []
    for chosen in micro:
        batches.scaled(loss_of(model, chosen), len(chosen)).backward()
        if batches.due:
            rate = optimizer.param_groups[0]["lr"]
            optimizer.step()
            optimizer.zero_grad()
            steps.append((batches.examples, rate))
    return steps


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_size_that_is_held_is_a_fixed_accumulation_to_the_bit() -> None:
    by_hand, optimizer = parts()
    schedule = lr_scheduler.CosineAnnealingLR(optimizer, 20)
    for k, chosen in enumerate(micro_batches(5, 3)):
        (loss_of(by_hand, chosen) / 3).backward()
        if k % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    model, optimizer = parts()
    schedule = lr_scheduler.CosineAnnealingLR(optimizer, 20)
    held = rightbatch.AdaptiveAccumulation(Planned(""), optimizer, 5, batch_size=15, schedule=schedule)
    steps = train(held, model, optimizer, micro_batches(5, 3))
    assert (held.micro_batches, held.batch_size, held.steps, held.examples) == (3, 15, 18, 270)
    assert len(steps) == 18
    assert same(model, by_hand)


def test_sizes_and_rates_are_those_planned_and_the_schedule_sees_the_same_examples() -> None:
    model, optimizer = parts()
    schedule = lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    controller = Planned("20@60, 40@140*2, 2@300")
    batches = rightbatch.AdaptiveAccumulation(controller, optimizer, 5, batch_size=10, schedule=schedule)
    seen = 0
    for examples, rate in train(batches, model, optimizer, micro_batches(5, 4)):
        phase = controller.schedule(10).at(seen)
        assert rate == pytest.approx(0.05 * phase.rate_factor / (1 + seen // 10))
        assert examples - seen == max(5, phase.batch_size)  # a micro-batch at least
        seen = examples
    assert seen == 360


def test_it_trains_as_whole_batches_do() -> None:
    plan = Planned("30@60, 15@180")
    one, optimizer = parts()
    train(rightbatch.AdaptiveAccumulation(plan, optimizer, 5, batch_size=10), one, optimizer, micro_batches(5, 3))
    whole, second = parts()
    at, order = 0, torch.arange(90).repeat(3)
    while at < 270:
        size = plan.schedule(10).at(at).batch_size
        second.zero_grad()
        loss_of(whole, order[at : at + size]).backward()
        second.step()
        at += size
    for a, b in zip(one.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_smaller_micro_batches_and_steps_before_they_are_due_are_means_over_their_examples() -> None:
    model, optimizer = parts()
    batches = rightbatch.AdaptiveAccumulation(Planned(""), optimizer, 8, batch_size=24)
    batches.scaled(loss_of(model, torch.arange(8))).backward()
    batches.scaled(loss_of(model, torch.arange(8, 11)), 3).backward()
    assert not batches.due
    optimizer.step()
    other, alike = parts()
    loss_of(other, torch.arange(11)).backward()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    alike.step()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert (batches.examples, batches.steps) == (11, 1)


@pytest.mark.parametrize("after", [0, 1, 4, 7])
def test_it_goes_on_where_it_was_to_the_bit(after: int) -> None:
    def made() -> tuple[nn.Module, Any, Any, Any]:
        model, optimizer = parts()
        schedule = lr_scheduler.CosineAnnealingLR(optimizer, 40)
        plan = Planned("20@60, 15@140*2")
        return model, optimizer, schedule, rightbatch.AdaptiveAccumulation(
            plan, optimizer, 5, batch_size=10, schedule=schedule
        )  # fmt: skip

    whole, optimizer, _, batches = made()
    micro = list(micro_batches(5, 3))
    steps = train(batches, whole, optimizer, iter(micro))
    first = made()
    done = steps[after - 1][0] // 5 if after else 0
    train(first[3], first[0], first[1], iter(micro[:done]))
    second = made()
    for part, old in zip(second, first, strict=True):
        part.load_state_dict(old.state_dict())
    assert train(second[3], second[0], second[1], iter(micro[done:])) == steps[after:]
    assert same(second[0], whole)


@pytest.mark.parametrize("controller", [NormTest, InnerProductTest])
def test_steps_grow_by_the_gradients_of_their_micro_batches(controller: Any) -> None:
    model, optimizer = parts()
    monitor = rightbatch.NoiseScale(model, optimizer, overhead=math.inf, inner_products=controller is InnerProductTest)
    grows = controller(theta=0.2, memory_examples=500, limits=Limits(10, 60, most_change=1.2))
    batches = rightbatch.AdaptiveAccumulation(grows, optimizer, 10, batch_size=10, monitor=monitor)
    found = []
    for chosen in micro_batches(10, 60):
        batches.scaled(loss_of(model, chosen)).backward()
        if batches.due:
            found.append(batches.micro_batches)
            optimizer.step()
            optimizer.zero_grad()
    assert found[0] == 1
    assert found == sorted(found)  # by a fifth a step, of what the controller chose and not of whole micro-batches
    assert found[-1] == 6


def test_losses_are_told_by_what_they_are_scaled_with() -> None:
    _, optimizer = parts()
    batches = rightbatch.AdaptiveAccumulation(AdaDamp(), optimizer, 5, batch_size=10)
    for loss in (4.0, 2.0, 1.0, 0.5):
        batches.scaled(torch.tensor(loss))
        if batches.due:
            optimizer.step()
    assert batches.chosen == 40  # the mean of 3 has fallen to 0.75


def test_a_step_that_a_scaler_leaves_out_is_no_step() -> None:
    model, optimizer = parts()
    batches = rightbatch.AdaptiveAccumulation(Planned(""), optimizer, 5, batch_size=10)
    for k in range(6):
        batches.scaled(loss_of(model, torch.arange(5))).backward()
        if batches.due and k > 1:
            optimizer.step()
    assert (batches.steps, batches.examples) == (2, 20)


def test_what_cannot_be_is_refused() -> None:
    _, optimizer = parts()
    with pytest.raises(rightbatch.InputError, match="at least one example, got 8 and 0"):
        rightbatch.AdaptiveAccumulation(Planned(""), optimizer, 0, batch_size=8)
    with pytest.raises(rightbatch.InputError, match="monitor=NoiseScale"):
        rightbatch.AdaptiveAccumulation(NormTest(), optimizer, 8, batch_size=8)
    batches = rightbatch.AdaptiveAccumulation(Planned(""), optimizer, 8, batch_size=8)
    with pytest.raises(rightbatch.InputError, match="no loss went through `scaled`"):
        optimizer.step()
    batches.close()
    optimizer.step()
    assert batches.steps == 0
