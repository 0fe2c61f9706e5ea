"""Optimizers that take a closure, in our loop: each against a loop written by hand, and with all that surrounds it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import rightbatch
from rightbatch.closures import needs_closure
from rightbatch.errors import WorkloadError
from rightbatch.gradients.training import gradient_samples
from rightbatch.records import Trial
from rightbatch.schedules import probe_rates
from rightbatch.stepping import Stepper
from rightbatch.workload import Workload

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(5))
Y = (X.sum(dim=1) > 0).long()


def per_example(model, batch):
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs), labels, reduction="none")


def emso(parameters, trial):
    return rightbatch.EMSO(parameters, trial.learning_rate, gamma=0.5, inner_steps=4)


def lbfgs(parameters, trial):
    return torch.optim.LBFGS(parameters, lr=trial.learning_rate, max_iter=3)


OPTIMIZERS = pytest.mark.parametrize("optimizer", [emso, lbfgs])


def workload(**changes: Any) -> Workload:
    parts = {
        "name": "signs",
        "model": lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)),
        "data": (X, Y),
        "valid": (X[:16], Y[:16]),
        "loss": per_example,
        "optimizer": emso,
    }
    return Workload(**{**parts, **changes})


def stepper(work: Workload, batch_size: int = 8, rate: float = 0.1, micro: int | None = None) -> Stepper:
    torch.manual_seed(1)
    return Stepper(work, work.complete(Trial(batch_size, rate, 3)), micro_batch_size=micro)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_which_optimizers_need_one():
    parameter = nn.Parameter(torch.zeros(1))
    assert [needs_closure(optimizer([parameter], Trial(8, 0.1, 0))) for optimizer in (emso, lbfgs)] == [True, True]
    for without in (torch.optim.SGD, torch.optim.Adam, torch.optim.Adagrad):
        assert not needs_closure(without([parameter], lr=0.1))
    scheduled = lbfgs([parameter], Trial(8, 0.1, 0))
    lr_scheduler.ConstantLR(scheduled)  # which puts another step in its place
    assert needs_closure(scheduled)


@OPTIMIZERS
@pytest.mark.parametrize("norm", [None, 0.05])
def test_steps_are_those_of_a_loop_by_hand(optimizer, norm):
    work = workload(optimizer=optimizer, max_gradient_norm=norm)
    ours = stepper(work)
    loss = ours.run(20)
    torch.manual_seed(1)
    model = work.model()
    by_hand, losses = optimizer(model.parameters(), ours.trial), []
    batches = work.source("data").epoch(8, order := torch.Generator().manual_seed(3))
    for step in range(20):
        if step % 8 == 0:
            batches = work.source("data").epoch(8, order) if step else batches
        batch = next(batches)

        def closure(batch=batch):
            by_hand.zero_grad()
            value = per_example(model, batch).mean()
            value.backward()
            if norm:
                nn.utils.clip_grad_norm_(model.parameters(), norm)
            return value.detach()

        losses.append(float(by_hand.step(closure)))
    torch.testing.assert_close(weights(ours.model), weights(model))
    assert loss == pytest.approx(sum(losses) / 20, rel=1e-5)
    assert ours.step == 20


def test_emso_of_one_step_trains_as_sgd_to_the_bit():
    one = stepper(workload(optimizer=lambda p, trial: rightbatch.EMSO(p, trial.learning_rate, inner_steps=1)))
    other = stepper(workload(optimizer=lambda p, trial: torch.optim.SGD(p, trial.learning_rate)))
    assert one.run(30) == other.run(30)
    assert torch.equal(weights(one.model), weights(other.model))


@OPTIMIZERS
def test_an_accumulated_batch_is_the_same_step(optimizer):
    whole, parts = (stepper(workload(optimizer=optimizer), micro=micro) for micro in (None, 3))
    assert parts.accumulation_steps == 3
    assert whole.run(5) == pytest.approx(parts.run(5), rel=1e-4)
    torch.testing.assert_close(weights(whole.model), weights(parts.model), rtol=1e-3, atol=1e-4)


@OPTIMIZERS
def test_schedules_averages_and_states_go_on_to_the_bit(optimizer):
    work = workload(
        optimizer=optimizer, averaging_examples=100, schedule=lambda o, t: lr_scheduler.ExponentialLR(o, 0.97)
    )
    one = stepper(work)
    one.run(10)
    saved = copy.deepcopy(one.state())
    one.run(10)
    other = stepper(work)
    other.load(saved)
    other.run(10)
    assert torch.equal(weights(one.judged), weights(other.judged))
    assert not torch.equal(weights(one.judged), weights(one.model))
    assert one.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.97**20)
    assert probe_rates(work)[:3] == pytest.approx([0.1, 0.097, 0.09409])


@OPTIMIZERS
def test_gradients_are_sampled_along_the_same_training(optimizer):
    work = workload(optimizer=optimizer)
    trial = Trial(8, 0.1, 3)
    samples = list(gradient_samples(work, trial, 6))
    assert len(samples) == 6
    assert samples[-1].step == 5
    assert samples[0].batch_squared > samples[-1].batch_squared


def test_float16_is_refused():
    with pytest.raises(
        WorkloadError, match=r'EMSO computes the gradients of a batch several times.*autocast="bfloat16"'
    ):
        stepper(workload(autocast="float16"))
    assert stepper(workload(autocast="bfloat16")).run(3) > 0
