"""The sampler against the posterior of a linear regression, and what PyTorch's own optimizers promise."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from rightbatch.errors import InputError
from rightbatch.fit.posterior import ConstantSGD, Optimum, posterior_covariance, stationary_covariance, temperature
from rightbatch.optim.constant_sgd import ConstantSGDSampler

EXAMPLES, SIZE = 400, 3
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


class Regression:
    """Linear regression with unit noise: its Hessian is X^T X / N, its gradient noise known, its optimum at hand."""

    def __init__(self, *, device: str = "cpu", dtype: torch.dtype = torch.float64) -> None:
        draw = torch.Generator().manual_seed(1)
        inputs = torch.randn(EXAMPLES, SIZE, generator=draw, dtype=torch.float64) * torch.tensor([1.0, 0.5, 2.0])
        labels = inputs.sum(1) + torch.randn(EXAMPLES, generator=draw, dtype=torch.float64)
        self.weight = nn.Parameter(torch.linalg.lstsq(inputs, labels[:, None]).solution[:, 0].to(device, dtype))
        rows = inputs * (inputs @ self.weight.detach().cpu().double() - labels)[:, None]
        hessian = (inputs.T @ inputs / EXAMPLES).numpy()
        self.optimum = Optimum(hessian, np.cov(rows.T.numpy(), bias=True), EXAMPLES)
        self.inputs, self.labels = inputs.to(device, dtype), labels.to(device, dtype)
        self._order = torch.Generator().manual_seed(2)

    def backward(self, batch_size: int) -> torch.Tensor:
        some = torch.randint(EXAMPLES, (batch_size,), generator=self._order).to(self.inputs.device)
        self.weight.grad = None
        loss = 0.5 * (self.inputs[some] @ self.weight - self.labels[some]).square().mean()
        loss.backward()
        return loss


def sampled(samples: int = 150, **options) -> tuple[Regression, ConstantSGDSampler]:
    problem = Regression()
    sampler = ConstantSGDSampler([problem.weight], examples=EXAMPLES, batch_size=10, **options)
    for _ in range(sampler.steps_for(samples)):
        problem.backward(10)
        sampler.step()
    return problem, sampler


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("preconditioner", ["none", "diagonal", "full"])
def test_samples_have_the_covariance_that_the_theory_says(preconditioner, momentum):
    problem, sampler = sampled(300, preconditioner=preconditioner, momentum=momentum, estimate_steps=2000)
    group, by = sampler.param_groups[0], sampler.state[problem.weight].get("preconditioner")
    sgd = ConstantSGD(group["lr"], 10, momentum, None if by is None else by.numpy())
    predicted = stationary_covariance(problem.optimum, sgd)
    seen = np.cov(sampler.samples.T.numpy())
    assert np.linalg.norm(seen - predicted) < 0.25 * np.linalg.norm(predicted)  # of 300 samples
    assert sampler.temperature == pytest.approx(1)
    assert temperature(problem.optimum, sgd) == pytest.approx(1, abs=0.1)  # by the exact noise, not that estimated
    if preconditioner == "full":
        truth = posterior_covariance(problem.optimum)
        assert np.linalg.norm(seen - truth) < 0.35 * np.linalg.norm(truth)
    assert not sampler.tests().failures


def test_weights_stay_while_the_noise_is_estimated_and_then_move():
    problem = Regression()
    sampler = ConstantSGDSampler([problem.weight], examples=EXAMPLES, batch_size=10, estimate_steps=30, burn_in_steps=5)
    before, phases = problem.weight.detach().clone(), []
    with pytest.raises(InputError, match="step 0 of 30"):
        sampler.temperature  # noqa: B018
    for _ in range(sampler.steps_for(2)):
        phases.append(sampler.phase)
        problem.backward(10)
        sampler.step()
        if sampler.param_groups[0]["steps"] == 30:
            assert torch.equal(problem.weight, before)
    assert phases == ["estimating"] * 30 + ["burning in"] * 5 + ["sampling"] * 80
    assert sampler.samples.shape == (2, SIZE)
    assert torch.equal(sampler.samples[-1], problem.weight.detach())


def test_the_cap_holds_and_the_temperature_tells_of_it():
    for preconditioner in ("none", "diagonal", "full"):
        free = sampled(0, preconditioner=preconditioner)[1]
        by = free.state[free.param_groups[0]["params"][0]].get("preconditioner")
        largest = (
            free.param_groups[0]["lr"] if by is None else float(torch.linalg.norm(by, 2 if by.ndim == 2 else torch.inf))
        )
        problem, capped = sampled(0, preconditioner=preconditioner, max_lr=largest / 2)
        assert 0.2 < capped.temperature < 0.99
        by = capped.state[problem.weight].get("preconditioner")
        highest = 1.0 if by is None else float(torch.linalg.norm(by, 2 if by.ndim == 2 else torch.inf))
        assert capped.param_groups[0]["lr"] * highest == pytest.approx(largest / 2)


def test_predictions_are_over_the_samples_and_leave_the_weights():
    problem, sampler = sampled(12)
    before, at = problem.weight.detach().clone(), torch.ones(4, SIZE, dtype=torch.float64)
    found = sampler.predict(lambda: at @ problem.weight)
    each = sampler.samples @ at.T
    torch.testing.assert_close(found.each, each)
    torch.testing.assert_close(found.mean, each.mean(0))
    torch.testing.assert_close(found.deviation, each.std(0))
    with pytest.raises(ZeroDivisionError):
        sampler.predict(lambda: 1 / 0)
    assert torch.equal(problem.weight, before)
    with pytest.raises(InputError, match="no sample yet"):
        ConstantSGDSampler([problem.weight], examples=10, batch_size=2).predict(lambda: at)


def test_a_start_away_from_the_optimum_is_found_out():
    problem = Regression()
    with torch.no_grad():
        problem.weight += 3
    sampler = ConstantSGDSampler(
        [problem.weight], examples=EXAMPLES, batch_size=10, burn_in_steps=0, thin_steps=2, max_lr=1e-3
    )
    for _ in range(sampler.steps_for(40)):
        problem.backward(10)
        sampler.step()
    assert any("on their way to the optimum" in failure for failure in sampler.tests().failures)


# ------------------------------------------------------------------------------- what PyTorch's own optimizers promise


@pytest.mark.parametrize("preconditioner", ["none", "diagonal", "full"])
@pytest.mark.parametrize("stop", [20, 60, 100])  # while estimating, burning in, sampling
def test_it_goes_on_from_its_state_as_if_nothing_had_been(preconditioner, stop):
    options = {"examples": EXAMPLES, "batch_size": 10, "preconditioner": preconditioner, "momentum": 0.3}
    straight = Regression()
    one = ConstantSGDSampler([straight.weight], **options)
    for step in range(170):
        if step == stop:
            saved = copy.deepcopy((one.state_dict(), straight.weight.detach(), straight._order.get_state()))
        straight.backward(10)
        one.step()
    again = Regression()
    other = ConstantSGDSampler([again.weight], **options)
    other.load_state_dict(saved[0])
    with torch.no_grad():
        again.weight.copy_(saved[1])
    again._order.set_state(saved[2])
    for _ in range(170 - stop):
        again.backward(10)
        other.step()
    assert torch.equal(again.weight, straight.weight)
    assert torch.equal(other.samples, one.samples)
    assert len(one.samples) == 2
    assert other.temperature == one.temperature


@pytest.mark.parametrize("preconditioner", ["none", "diagonal", "full"])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_closures_groups_and_missing_gradients(preconditioner, device, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).to(device, dtype)
    unused = nn.Parameter(torch.ones(2, device=device, dtype=dtype))
    groups = [
        {"params": [*model[0].parameters(), unused], "momentum": 0.9},
        {"params": model[2].parameters(), "weight_decay": 0.1},
    ]
    sampler = ConstantSGDSampler(groups, examples=64, batch_size=8, preconditioner=preconditioner, max_lr=0.1)
    inputs = torch.randn(64, 4, device=device, dtype=dtype)

    def closure():
        sampler.zero_grad()
        some = torch.randint(64, (8,))
        loss = (model(inputs[some]) - inputs[some, :1]).square().mean()
        loss.backward()
        return loss

    for _ in range(sampler.steps_for(3)):
        assert torch.is_tensor(sampler.step(closure))
    assert sampler.samples.shape == (3, 4 * 3 + 3 + 2 + 3 + 1)
    assert sampler.samples.dtype == dtype
    assert torch.isfinite(sampler.samples).all()
    assert torch.equal(unused, torch.ones_like(unused))
    assert sampler.step() is None
    assert 0 < sampler.temperature <= 1 + 1e-4


def test_weight_decay_is_a_prior():
    """A parameter that the data say nothing of is only pulled to zero."""
    weight = nn.Parameter(torch.ones(2))
    sampler = ConstantSGDSampler(
        [weight], examples=8, batch_size=2, weight_decay=0.5, estimate_steps=2, burn_in_steps=0, thin_steps=1
    )
    for noise in (1.0, -1.0):
        weight.grad = torch.tensor([noise, 0.0])
        sampler.step()
    lr = sampler.param_groups[0]["lr"]
    assert lr == pytest.approx(2 * 2 / (8 * 2))  # 2 S d / (N tr C) with C / S = 2
    weight.grad = torch.tensor([1.0, 0.0])
    sampler.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([1 - 1.5 * lr, 1 - 0.5 * lr]))


def test_a_full_covariance_is_estimated_from_enough_steps_and_has_no_step_where_there_is_no_noise():
    weight = nn.Parameter(torch.zeros(30))
    assert ConstantSGDSampler([weight], examples=100, batch_size=10, preconditioner="full").steps_for(0) == 300 + 10
    with pytest.raises(InputError, match=r"more than 30 steps.*got estimate_steps=30"):
        ConstantSGDSampler([weight], examples=100, batch_size=10, preconditioner="full", estimate_steps=30)
    weight = nn.Parameter(torch.zeros(3))
    sampler = ConstantSGDSampler([weight], examples=100, batch_size=10, preconditioner="full")
    torch.manual_seed(0)
    for _ in range(sampler.steps_for(20)):
        noise = torch.randn(2)
        weight.grad = weight.detach() * 0.1 + torch.stack([noise[0], noise[0] + noise[1], -2 * noise[0] - noise[1]])
        sampler.step()
    assert torch.isfinite(weight).all()
    assert float(sampler.samples.sum(1).abs().max()) < 1e-2 * float(sampler.samples.abs().max())  # (1, 1, 1) is calm


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "from 1 to the examples, 10; got 0"),
        ({"batch_size": 11}, "from 1 to the examples, 10; got 11"),
        ({"preconditioner": "adam"}, "one of none, diagonal, full; got 'adam'"),
        ({"momentum": 1.0}, "below 1, got 1"),
        ({"weight_decay": -1.0}, "at least 0, got -1"),
        ({"estimate_steps": 1}, "estimate_steps is a whole number of at least 2, got 1"),
        ({"thin_steps": 0}, "thin_steps is a whole number of at least 1, got 0"),
        ({"max_lr": 0.0}, "max_lr is positive, got 0"),
    ],
)
def test_what_cannot_be_is_told(options, message):
    with pytest.raises(InputError, match=message):
        ConstantSGDSampler([nn.Parameter(torch.ones(2))], **{"examples": 10, "batch_size": 2, **options})
