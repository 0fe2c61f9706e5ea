"""Coordinate descent on batches of generalised linear models, against the exact solutions of their subproblems."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from rightbatch.errors import InputError
from rightbatch.optim import EMSO, LinearBatch
from rightbatch.optim.linear import FAMILIES

RIDGE = 0.05


def data(family: str, examples: int = 40, size: int = 5, seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(examples, size, generator=draw, dtype=torch.float64)
    inputs[:, 1] += 0.9 * inputs[:, 0]  # coordinates that are not apart
    scores = inputs.sum(1) / 2 + 0.3
    if family == "normal":
        return inputs, scores + torch.randn(examples, generator=draw)
    if family == "bernoulli":
        return inputs, (torch.rand(examples, generator=draw) < scores.sigmoid()).double()
    return inputs, torch.poisson(scores.exp(), generator=draw)


def model(size: int = 5, bias: bool = True) -> nn.Linear:
    made = nn.Linear(size, 1, bias=bias).double()
    for parameter in made.parameters():
        nn.init.constant_(parameter, 0.1)
    return made


def published_loss(family: str, scores, labels):
    """By torch's own loss functions."""
    if family == "normal":
        return 0.5 * ((scores - labels).square() - labels.square())
    if family == "bernoulli":
        return functional.binary_cross_entropy_with_logits(scores, labels, reduction="none")
    return functional.poisson_nll_loss(scores, labels, log_input=True, reduction="none")


def newton(linear: nn.Linear, inputs, labels, family: str, gamma: float) -> torch.Tensor:
    """The solution of the subproblem, weights and bias, by Newton's method on autograd's derivatives."""
    start = torch.cat([p.detach().flatten() for p in linear.parameters()])
    bias = linear.bias is not None
    weights = start.clone()

    def objective(w):
        scores = inputs @ w[: inputs.shape[1]] + (w[-1] if bias else 0)
        own = published_loss(family, scores, labels).mean() + RIDGE / 2 * w[: inputs.shape[1]].square().sum()
        return own + gamma / 2 * (w - start).square().sum()

    for _ in range(60):
        gradient = torch.autograd.functional.jacobian(objective, weights)
        step = torch.linalg.solve(torch.autograd.functional.hessian(objective, weights), gradient)
        weights = weights - step / max(1.0, float(step.norm()))
    return weights


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_coordinate_descent_agrees_with_newton(family, bias, gamma):
    inputs, labels = data(family)
    linear = model(bias=bias)
    optimizer = EMSO(
        linear.parameters(), 1.0, gamma=gamma, inner="coordinate-descent", inner_steps=2000, tolerance=1e-10
    )
    for _ in range(2):
        truth = newton(linear, inputs, labels, family, gamma)
        batch = LinearBatch(linear, inputs, labels, family, RIDGE)
        before = float(batch.loss().detach())
        assert float(optimizer.step(batch)) == pytest.approx(before)
        found = torch.cat([p.detach().flatten() for p in linear.parameters()])
        torch.testing.assert_close(found, truth, rtol=0, atol=1e-8)
    assert optimizer.evaluations < 1000


@pytest.mark.parametrize("family", FAMILIES)
def test_the_families_are_those_of_torch_and_their_derivatives_right(family):
    inputs, labels = data(family)
    linear = model()
    batch = LinearBatch(linear, inputs, labels, family, RIDGE)
    scores = batch.scores().detach().requires_grad_()
    torch.testing.assert_close(batch.losses(scores), published_loss(family, scores, labels))
    (slope,) = torch.autograd.grad(batch.losses(scores).sum(), scores, create_graph=True)
    torch.testing.assert_close(batch.family.mean(scores) - labels, slope)
    if family != "normal":  # whose slope is linear: autograd has nothing to go on with
        (curvature,) = torch.autograd.grad(slope.sum(), scores)
        torch.testing.assert_close(batch.family.variance(scores), curvature)
    loss = batch()
    again = published_loss(family, linear(inputs)[:, 0], labels).mean() + RIDGE / 2 * linear.weight.square().sum()
    torch.testing.assert_close(loss, again.detach())
    for left, truth in zip(linear.parameters(), torch.autograd.grad(again, list(linear.parameters())), strict=True):
        torch.testing.assert_close(left.grad, truth)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_pass_descends_even_from_far_away(family):
    """Where Newton's step along a coordinate goes too far it is halved."""
    inputs, labels = data(family)
    linear = model()
    with torch.no_grad():
        linear.weight.mul_(-40)
    optimizer = EMSO(linear.parameters(), 1.0, inner="coordinate-descent", inner_steps=1)
    batch = LinearBatch(linear, inputs, labels, family, RIDGE)
    losses = [float(optimizer.step(batch)) for _ in range(60)]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(losses))
    assert losses[-1] - losses[-2] == pytest.approx(0, abs=1e-5)


def test_other_solvers_take_the_same_batch():
    inputs, labels = data("bernoulli")
    found = []
    for inner in ("coordinate-descent", "l-bfgs", "gradient-descent"):
        linear = model()
        optimizer = EMSO(linear.parameters(), 0.5, gamma=0.5, inner=inner, inner_steps=500, tolerance=1e-9)
        optimizer.step(LinearBatch(linear, inputs, labels, "bernoulli", RIDGE))
        found.append(torch.cat([p.detach().flatten() for p in linear.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-7)
    torch.testing.assert_close(found[0], found[2], rtol=0, atol=1e-7)


def test_what_cannot_be_is_told():
    inputs, labels = data("normal")
    with pytest.raises(InputError, match="one of normal, bernoulli, poisson; got 'gamma'"):
        LinearBatch(model(), inputs, labels, "gamma")
    with pytest.raises(InputError, match="one output, got 3"):
        LinearBatch(nn.Linear(5, 3), inputs, labels, "normal")
    with pytest.raises(InputError, match=r"Inputs are \[b, 4\] and labels \[b\], got \[40, 5\] and \[40\]"):
        LinearBatch(model(4), inputs, labels, "normal")
    with pytest.raises(InputError, match="ridge is at least 0, got -1"):
        LinearBatch(model(), inputs, labels, "normal", -1.0)
    one, other = model(), model()
    optimizer = EMSO(one.parameters(), 1.0, inner="coordinate-descent")
    with pytest.raises(InputError, match="of another model"):
        optimizer.step(LinearBatch(other, inputs, labels, "normal"))
    with pytest.raises(InputError, match="step\\(\\) takes a LinearBatch, got function"):
        optimizer.step(lambda: 0.0)
