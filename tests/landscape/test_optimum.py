"""Hessian and gradient noise of a model against what is known of a regression, and a twin by differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from diffusion import diffusion_covariance
from rightbatch.errors import InputError
from rightbatch.fit.posterior import ConstantSGD, full_preconditioner, kl_divergence
from rightbatch.landscape.optimum import optimum_of


def test_of_a_linear_regression_both_are_known_and_lead_to_the_posterior():
    torch.manual_seed(0)
    inputs, labels = torch.randn(200, 3).double(), torch.randn(200, 1).double()
    model = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(inputs, labels).solution.T)
    found = optimum_of(model, lambda m, batch: 0.5 * (m(batch[0]) - batch[1]).square().sum(1), (inputs, labels))
    np.testing.assert_allclose(found.hessian, (inputs.T @ inputs / 200).numpy(), rtol=1e-10)
    rows = inputs * (model(inputs) - labels).detach()
    np.testing.assert_allclose(found.noise, np.cov(rows.T.numpy()), rtol=1e-10)
    assert found.examples == 200
    sgd = ConstantSGD(1.0, 10, preconditioner=full_preconditioner(found, 10))
    assert kl_divergence(found, diffusion_covariance(found, sgd)) == pytest.approx(0, abs=1e-9)


def test_the_hessian_of_a_network_is_that_of_differences():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    batch = (torch.randn(30, 3).double(), torch.randint(0, 2, (30,)))

    def loss(model, batch):
        return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    found = optimum_of(model, loss, batch, examples=1000)
    assert found.examples == 1000
    start = nn.utils.parameters_to_vector(model.parameters()).detach()

    def gradient(weights):
        nn.utils.vector_to_parameters(weights, model.parameters())
        parts = torch.autograd.grad(loss(model, batch).mean(), list(model.parameters()))
        return torch.cat([part.flatten() for part in parts])

    step = 1e-5
    slow = torch.stack(
        [(gradient(start + step * e) - gradient(start - step * e)) / (2 * step) for e in torch.eye(26).double()]
    )
    np.testing.assert_allclose(found.hessian, slow.numpy(), atol=1e-8)


def test_too_many_parameters_are_told():
    with pytest.raises(InputError, match="up to 8,192"):
        optimum_of(nn.Linear(100, 100), lambda m, b: m(b).square().sum(1), torch.randn(4, 100))
