"""The covariance of gradients against one made slowly of the gradient of every example."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from rightbatch.errors import InputError
from rightbatch.gradients import rows
from rightbatch.gradients.covariance import gradient_covariance
from rightbatch.gradients.exact import exact_noise, per_example_gradients


def problem(kind: str = "per example"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    model[0].bias.requires_grad_(False)  # only what is trained counts
    batch = (torch.randn(40, 5).double(), torch.randint(0, 3, (40,)), torch.rand(40).double())

    def loss(model, batch):
        inputs, labels, weights = batch
        losses = functional.cross_entropy(model(inputs), labels, reduction="none")
        return (weights @ losses, weights.sum()) if kind == "weighted" else losses

    return model, loss, batch


def slow(model, loss, batch):
    parts = per_example_gradients(model, loss, batch)
    return 40 * torch.cat([part.flatten(1) for part in parts.values()], dim=1)


@pytest.mark.parametrize("kind", ["per example", "weighted"])
@pytest.mark.parametrize("numbers", [1 << 24, 200])
def test_it_is_that_of_the_rows(kind, numbers, monkeypatch):
    monkeypatch.setattr(rows, "NUMBERS", numbers)
    model, loss, batch = problem(kind)
    truth = slow(model, loss, batch)
    found = gradient_covariance(model, loss, batch)
    torch.testing.assert_close(found, torch.cov(truth.T))
    assert float(found.trace()) == pytest.approx(exact_noise(model, loss, batch).covariance_trace)


def test_layers_that_cannot_be_vectorized_are_gone_through_one_by_one():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))

        def forward(self, inputs):
            return inputs * self.weight[int(inputs[0, 0].item() > 0)]

    model, batch = Stubborn(), torch.randn(20, 1, dtype=torch.float64)

    def loss(model, batch):
        return model(batch).square().sum(1)

    found = gradient_covariance(model, loss, batch)
    truth = 20 * torch.cat([part.flatten(1) for part in per_example_gradients(model, loss, batch).values()], dim=1)
    torch.testing.assert_close(found, torch.cov(truth.T))


def test_what_cannot_be_is_told(monkeypatch):
    model, loss, batch = problem()
    with pytest.raises(InputError, match="at least 2 examples, got 1"):
        gradient_covariance(model, loss, tuple(tensor[:1] for tensor in batch))
    mixing = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)).double()
    with pytest.raises(InputError, match="not defined"):
        gradient_covariance(mixing, loss, batch)
    monkeypatch.setattr("rightbatch.gradients.covariance.LARGEST", 10)
    with pytest.raises(InputError, match=r"35 parameters.*up to 10\. Take a smaller model"):
        gradient_covariance(model, loss, batch)
