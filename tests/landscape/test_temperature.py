"""Batch size and rate as a temperature: a linear regression whose Hessian and noise are known, and known optimizers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rightbatch import Trial, Workload
from rightbatch.errors import InputError
from rightbatch.fit.posterior import ConstantSGD, Optimum
from rightbatch.fit.posterior import temperature as exact_temperature
from rightbatch.landscape.temperature import GAINS, gains, temperature
from rightbatch.minima import Choices
from rightbatch.records import Settings

EXAMPLES, SIZE = 2000, 4


class Linear(nn.Module):
    """A linear regression that begins at its solution."""

    def __init__(self, solution: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(solution.clone())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ self.weight


def regression(**sgd) -> tuple[Workload, Optimum]:
    draw = torch.Generator().manual_seed(3)
    inputs = torch.randn(EXAMPLES, SIZE, generator=draw, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.7, 1.5])
    labels = inputs.sum(1) + torch.randn(EXAMPLES, generator=draw, dtype=torch.float64)
    solution = torch.linalg.lstsq(inputs, labels[:, None]).solution[:, 0]
    rows = inputs * (inputs @ solution - labels)[:, None]
    workload = Workload(
        name="regression",
        model=lambda: Linear(solution),
        data=(inputs, labels),
        valid=(inputs[:10], labels[:10]),
        loss=lambda model, batch: 0.5 * (model(batch[0]) - batch[1]).square(),
        optimizer=lambda parameters, trial: torch.optim.SGD(parameters, lr=trial.learning_rate, **sgd),
        schedule=lambda optimizer, trial: torch.optim.lr_scheduler.ConstantLR(optimizer, 0.0),  # is left out
        planned_examples=EXAMPLES,
    )
    return workload, Optimum((inputs.T @ inputs / EXAMPLES).numpy(), np.cov(rows.T.numpy()), EXAMPLES)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_of_a_regression_it_is_that_of_the_theory_and_the_one_that_the_loss_shows(momentum):
    workload, optimum = regression(momentum=momentum)
    rate = 0.02 * (1 - momentum)
    trial = Trial(batch_size=5, learning_rate=rate, seed=0, planned_examples=EXAMPLES)
    choices = Choices(passes=60, noise_examples=None)
    found = {name: (value, low, high) for name, value, low, high in temperature(workload, trial, choices)}
    value, low, high = found["temperature"]
    assert value == pytest.approx(exact_temperature(optimum, ConstantSGD(rate, 5, momentum)), rel=1e-6)
    assert low < value < high
    assert found["seen"][0] == pytest.approx(value, rel=0.3)  # of 60 weights, batches without replacement
    assert (found["parameters"][0], found["examples"][0], found["samples"][0]) == (SIZE, EXAMPLES, 60)
    assert found["trend_p_value"][0] > 0.001


def test_the_noise_of_a_subset_is_that_of_all_within_its_interval():
    workload, optimum = regression()
    trial, inside = Trial(batch_size=5, learning_rate=0.02, seed=0, planned_examples=EXAMPLES), 0
    truth = exact_temperature(optimum, ConstantSGD(0.02, 5))
    for some in range(40, 240, 20):
        _, _, low, high = next(iter(temperature(workload, trial, Choices(passes=8, noise_examples=some))))
        inside += low <= truth <= high
    assert inside >= 8


def holding(*weights: nn.Parameter) -> nn.Module:
    return nn.ParameterList(weights)


def test_gains_are_in_the_order_of_the_model_whatever_that_of_the_groups():
    first, second, unused, left = (nn.Parameter(torch.zeros(size)) for size in (2, 3, 1, 2))
    optimizer = torch.optim.AdamW([{"params": [second, unused], "lr": 0.1}, {"params": [first], "lr": 0.2}])
    for _ in range(30):
        first.grad, second.grad = torch.ones(2), torch.full((3,), 2.0)
        optimizer.step()
    found = gains(holding(first, second, unused, left), optimizer)
    torch.testing.assert_close(found, torch.tensor([0.2, 0.2, 0.05, 0.05, 0.05, 0.0, 0.0, 0.0]))


def test_groups_in_another_order_give_the_same_temperature():
    """Weights and biases at one rate, but the biases first, as groups with and without weight decay often have them."""
    draw = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(64, 3, generator=draw), torch.randn(64, 2, generator=draw)

    def grouped(parameters, trial):
        given = list(parameters)
        biases = [p for p in given if p.ndim == 1]
        groups = [{"params": biases}, {"params": [p for p in given if p.ndim > 1]}]
        return torch.optim.SGD(groups if trial.settings["grouped"] else given, lr=trial.learning_rate)

    def model():
        torch.manual_seed(1)
        return nn.Linear(3, 2)

    workload = Workload(
        name="groups",
        model=model,
        data=(inputs, labels),
        valid=(inputs, labels),
        loss=lambda model, batch: (model(batch[0]) - batch[1]).square().sum(1),
        optimizer=grouped,
        settings={"grouped": 0},
    )
    found = [
        list(temperature(workload, Trial(4, 0.01, 0, 64, Settings({"grouped": on})), Choices(passes=8)))
        for on in (0, 1)
    ]
    assert found[0] == found[1]


def test_steps_of_optimizers_are_what_a_gradient_does_in_the_end():
    """A gradient that comes once moves the weights by the gain times itself, all later steps together."""
    for make in (
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.7),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.7, dampening=0.5),
        lambda p: torch.optim.SGD([{"params": p, "lr": 0.3}], lr=0.1),
    ):
        weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = make([weight])
        weight.grad = torch.zeros_like(weight)  # the first step is not dampened
        optimizer.step()
        for step in range(200):
            weight.grad = torch.ones_like(weight) if step == 0 else torch.zeros_like(weight)
            optimizer.step()
        assert -weight.item() == pytest.approx(float(gains(holding(weight), optimizer)))
    for kind in (torch.optim.Adam, torch.optim.AdamW):
        weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        optimizer = kind([weight], lr=0.01)
        for _ in range(50):
            weight.grad = torch.tensor([1.0, 4.0], dtype=torch.float64)
            optimizer.step()
        torch.testing.assert_close(gains(holding(weight), optimizer), torch.tensor([0.01, 0.0025], dtype=torch.float64))
    assert set(GAINS) == {torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW}


def test_the_noise_of_one_example_is_told():
    workload, _ = regression()
    trial = Trial(batch_size=5, learning_rate=0.02, seed=0, planned_examples=EXAMPLES)
    with pytest.raises(InputError, match="at least 2 examples, got 1"):
        list(temperature(workload, trial, Choices(passes=8, noise_examples=1)))


def test_another_optimizer_is_told():
    workload, _ = regression()
    object.__setattr__(workload, "optimizer", lambda parameters, trial: torch.optim.RMSprop(parameters, lr=0.01))
    trial = Trial(batch_size=5, learning_rate=0.02, seed=0, planned_examples=EXAMPLES)
    with pytest.raises(InputError, match="SGD, Adam, AdamW, not for RMSprop"):
        list(temperature(workload, trial, Choices(passes=8)))
