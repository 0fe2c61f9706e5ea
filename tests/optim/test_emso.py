"""EMSO against exact proximal steps, plain SGD and the bounds of its theory; and what PyTorch's optimizers promise."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from rightbatch.errors import InputError
from rightbatch.fit.proximal import (
    lipschitz,
    lipschitz_bound,
    published,
    strongly_convex,
    strongly_convex_bound,
)
from rightbatch.optim.emso import EMSO

RIDGE, SIZE = 0.1, 4
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def batch(examples: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = torch.randn(examples, SIZE, generator=generator, dtype=torch.float64)
    return inputs, inputs.sum(1) + torch.randn(examples, generator=generator, dtype=torch.float64)


def closure_of(optimizer, weight, some):
    inputs, labels = some

    def closure():
        optimizer.zero_grad()
        value = 0.5 * (inputs @ weight - labels).square().mean() + 0.5 * RIDGE * weight.square().sum()
        value.backward()
        return value

    return closure


def exact_step(weight, some, gamma):
    """The solution of the subproblem of a ridge regression."""
    inputs, labels = some
    matrix = inputs.T @ inputs / len(labels) + (RIDGE + gamma) * torch.eye(SIZE, dtype=torch.float64)
    return torch.linalg.solve(matrix, inputs.T @ labels / len(labels) + gamma * weight)


@pytest.mark.parametrize(("inner", "inner_steps", "lr"), [("l-bfgs", 50, 1.0), ("gradient-descent", 2000, 0.1)])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 5.0])
def test_inner_solves_agree_with_an_exact_proximal_step(inner, inner_steps, lr, gamma):
    draw, weight = torch.Generator().manual_seed(0), nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))
    optimizer = EMSO([weight], lr, gamma=gamma, inner_steps=inner_steps, inner=inner, tolerance=1e-10)
    for _ in range(3):
        some = batch(10, draw)
        truth = exact_step(weight.detach(), some, gamma)
        optimizer.step(closure_of(optimizer, weight, some))
        torch.testing.assert_close(weight.detach(), truth, rtol=0, atol=1e-8)


def test_one_step_without_the_proximal_term_is_sgd_and_with_it_too():
    """The first gradient of the proximal term is zero."""
    for gamma in (0.0, 7.0):
        draw = torch.Generator().manual_seed(1)
        weight, plain = (nn.Parameter(torch.ones(SIZE, dtype=torch.float64)) for _ in range(2))
        optimizer, sgd = EMSO([weight], 0.1, gamma=gamma, inner_steps=1), torch.optim.SGD([plain], 0.1)
        for _ in range(5):
            some = batch(3, draw)
            first = optimizer.step(closure_of(optimizer, weight, some))
            assert float(first) == pytest.approx(float(sgd.step(closure_of(sgd, plain, some)).detach()))
            assert torch.equal(weight, plain)


def test_workers_solve_apart_and_are_averaged():
    draw, weight = torch.Generator().manual_seed(5), nn.Parameter(torch.ones(SIZE, dtype=torch.float64))
    optimizer = EMSO([weight], 1.0, gamma=0.7, inner="l-bfgs", inner_steps=50, tolerance=1e-10, average="uniform")
    iterates = []
    for _ in range(2):
        batches = [batch(10, draw) for _ in range(4)]
        truth = torch.stack([exact_step(weight.detach(), some, 0.7) for some in batches]).mean(0)
        losses = [float(closure_of(optimizer, weight, some)().detach()) for some in batches]
        first = optimizer.step_of_workers([closure_of(optimizer, weight, some) for some in batches])
        torch.testing.assert_close(weight.detach(), truth, rtol=0, atol=1e-8)
        assert float(first) == pytest.approx(sum(losses) / 4)
        iterates.append(truth)
    with optimizer.averaged():
        torch.testing.assert_close(weight.detach(), torch.stack(iterates).mean(0), rtol=0, atol=1e-7)
    with pytest.raises(InputError, match="At least one worker"):
        optimizer.step_of_workers([])


def test_inner_solves_stop_early_and_are_counted():
    draw, weight = torch.Generator().manual_seed(2), nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))
    some, optimizer = batch(20, draw), EMSO([weight], 0.3, gamma=1.0, inner_steps=1000, tolerance=0.05)
    optimizer.step(closure_of(optimizer, weight, some))
    assert 2 < optimizer.evaluations < 50
    counted = optimizer.evaluations
    optimizer = EMSO([weight], 0.3, gamma=1.0, inner_steps=7)
    optimizer.step(closure_of(optimizer, weight, some))
    assert (counted, optimizer.evaluations) == (counted, 7)


class Logistic:
    """Logistic regression with features on the unit sphere, 1-Lipschitz but for its ridge, and its solution."""

    def __init__(self, ridge: float) -> None:
        self.ridge = ridge
        draw = torch.Generator().manual_seed(9)
        inputs = functional.normalize(torch.randn(20_000, SIZE, generator=draw, dtype=torch.float64), dim=1)
        labels = (torch.rand(20_000, generator=draw) < torch.sigmoid(3 * inputs[:, 0])).double()
        self.population = inputs, labels
        self.best = nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))
        solver = torch.optim.LBFGS([self.best], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")
        solver.step(self.closure(solver, self.best, self.population))

    def loss(self, weight, some):
        own = functional.binary_cross_entropy_with_logits(some[0] @ weight, some[1])
        return own + 0.5 * self.ridge * weight.square().sum()

    def closure(self, optimizer, weight, some):
        def closure():
            optimizer.zero_grad()
            value = self.loss(weight, some)
            value.backward()
            return value

        return closure

    def above(self, size, steps, seed, **options) -> tuple[float, float]:
        """How much above the least loss the averaged iterates end, and how far from zero the iterates came."""
        draw, weight = torch.Generator().manual_seed(seed), nn.Parameter(torch.zeros_like(self.best))
        optimizer, reach = EMSO([weight], 1.0, inner="l-bfgs", inner_steps=30, tolerance=1e-8, **options), 0.0
        for _ in range(steps):
            chosen = torch.randint(20_000, (size,), generator=draw)
            some = self.population[0][chosen], self.population[1][chosen]
            optimizer.step(self.closure(optimizer, weight, some))
            reach = max(reach, float(weight.detach().norm()))
        with optimizer.averaged(), torch.no_grad():
            return float(self.loss(weight, self.population) - self.loss(self.best, self.population)), reach


@pytest.mark.parametrize("size", [4, 64])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_the_bounds_of_wang_et_al_hold(size, ridge):
    """Of convex Lipschitz losses for the mean of the iterates, of strongly convex ones for that weighted by t."""
    problem, steps, seeds = Logistic(ridge), 40, 10
    distance = float(problem.best.detach().norm())
    if ridge:
        how = {"gamma": strongly_convex(ridge), "average": "linear"}
    else:
        how = {"gamma": lipschitz(1.0, distance, steps, size), "average": "uniform"}
    found = [problem.above(size, steps, seed, **how) for seed in range(seeds)]
    mean, reach = sum(above for above, _ in found) / seeds, max(reach for _, reach in found)
    slope = 1 + ridge * reach  # that of the ridge too, in the ball that the iterates stay in
    bound = strongly_convex_bound(slope, ridge, steps, size) if ridge else lipschitz_bound(slope, distance, steps, size)
    assert 0 < mean < bound


def test_schedules_and_bounds_are_those_of_the_papers():
    assert published(2.0, 100, 25) == 4.0
    assert [strongly_convex(0.4)(step) for step in (1, 2, 6)] == pytest.approx([0.0, 0.2, 1.0])
    assert lipschitz(3.0, 2.0, 50, 4) == pytest.approx(15.0)
    assert lipschitz_bound(3.0, 2.0, 50, 4) == pytest.approx(8**0.5 * 6 / 200**0.5)
    assert strongly_convex_bound(2.0, 0.5, 9, 4) == pytest.approx(16 * 4 / 20)
    with pytest.raises(InputError, match="steps is a positive number, got 0"):
        published(1.0, 0, 4)


@pytest.mark.parametrize("average", ["uniform", "linear"])
def test_the_average_is_of_the_iterates_by_their_weights(average):
    draw, weight = torch.Generator().manual_seed(3), nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))
    optimizer, iterates = EMSO([weight], 0.1, gamma=0.5, average=average), []
    for _ in range(6):
        optimizer.step(closure_of(optimizer, weight, batch(5, draw)))
        iterates.append(weight.detach().clone())
    weights = torch.arange(1.0, 7.0) if average == "linear" else torch.ones(6)
    mean = (torch.stack(iterates) * (weights / weights.sum())[:, None]).sum(0)
    with optimizer.averaged():
        torch.testing.assert_close(weight.detach(), mean)
    assert torch.equal(weight, iterates[-1])
    with pytest.raises(ZeroDivisionError), optimizer.averaged():
        1 / 0  # noqa: B018
    assert torch.equal(weight, iterates[-1])
    with pytest.raises(InputError, match="No average is kept"), EMSO([weight], 0.1).averaged():
        pass


@pytest.mark.parametrize("inner", ["gradient-descent", "l-bfgs"])
def test_it_goes_on_from_its_state_as_if_nothing_had_been(inner):
    options = {"gamma": strongly_convex(0.5), "inner": inner, "average": "linear"}
    draw, weight = torch.Generator().manual_seed(4), nn.Parameter(torch.ones(SIZE, dtype=torch.float64))
    one = EMSO([weight], 0.2, **options)
    batches = [batch(8, draw) for _ in range(8)]
    for number, some in enumerate(batches):
        if number == 4:
            saved = copy.deepcopy((one.state_dict(), weight.detach()))
        one.step(closure_of(one, weight, some))
    again = nn.Parameter(saved[1].clone())
    other = EMSO([again], 0.2, **options)
    other.load_state_dict(saved[0])
    for some in batches[4:]:
        other.step(closure_of(other, again, some))
    assert torch.equal(again, weight)
    with one.averaged(), other.averaged():
        assert torch.equal(again, weight)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_groups_have_rates_of_their_own_and_what_has_no_gradient_stays(device, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).to(device, dtype)
    unused, still = (nn.Parameter(torch.ones(2, device=device, dtype=dtype)) for _ in range(2))
    groups = [{"params": [*model[0].parameters(), unused]}, {"params": model[2].parameters(), "lr": 0.01}]
    optimizer = EMSO(groups, 0.1, gamma=1.0, average="uniform")
    inputs = torch.randn(16, 4, device=device, dtype=dtype)

    def closure():
        optimizer.zero_grad()
        value = (model(inputs) - inputs[:, :1]).square().mean()
        value.backward()
        return value

    losses = [float(optimizer.step(closure)) for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]
    assert torch.equal(unused, still)


def test_groups_have_weights_of_the_proximal_term_of_their_own():
    """One with so large a gamma that it stays, one without; and a schedule sets them all."""
    free, held = (nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    optimizer = EMSO([{"params": [free]}, {"params": [held], "gamma": 9.0}], 0.1, inner_steps=500)

    def closure():
        optimizer.zero_grad()
        value = 0.5 * (free.square().sum() + held.square().sum())
        value.backward()
        return value

    optimizer.step(closure)
    torch.testing.assert_close(free.detach(), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(held.detach(), torch.full((3,), 0.9, dtype=torch.float64))
    scheduled = EMSO([free], 0.1, gamma=strongly_convex(0.5))
    seen = []
    for _ in range(3):
        scheduled.step(closure)
        seen.append(scheduled.param_groups[0]["gamma"])
    assert seen == [0.0, 0.25, 0.5]


@pytest.mark.parametrize("gamma", [0.7, strongly_convex(0.5)])
def test_a_copy_goes_on_as_the_optimizer_would(gamma):
    weight = nn.Parameter(torch.ones(SIZE, dtype=torch.float64))
    optimizer = EMSO([weight], 0.2, gamma=gamma, average="uniform")
    some = batch(8, torch.Generator().manual_seed(6))
    optimizer.step(closure_of(optimizer, weight, some))
    copied, again = copy.deepcopy((optimizer, weight))
    assert copied.param_groups[0]["params"][0] is again
    for one, parameter in ((optimizer, weight), (copied, again)):
        one.step(closure_of(one, parameter, some))
    assert torch.equal(weight, again)
    assert copied.evaluations == optimizer.evaluations == 10
    by_lbfgs = EMSO([weight], 0.2, inner="l-bfgs")
    with pytest.raises(InputError, match="one group of parameters, got 2"):
        by_lbfgs.add_param_group({"params": [again]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "rate is positive, got 0"),
        ({"inner_steps": 0}, "at least 1 inner step, got 0"),
        ({"gamma": -1.0}, "gamma is at least 0, got -1"),
        ({"gamma": float("nan")}, "gamma is at least 0, got nan"),
        ({"tolerance": -1.0}, "at least 0, got -1"),
        ({"inner": "newton"}, "inner is one of gradient-descent, l-bfgs, coordinate-descent; got 'newton'"),
        ({"average": "last"}, "average is one of none, uniform, linear; got 'last'"),
    ],
)
def test_what_cannot_be_is_told(options, message):
    with pytest.raises(InputError, match=message):
        EMSO([nn.Parameter(torch.ones(2))], **{"lr": 0.1, **options})


def test_a_step_without_closure_and_groups_for_lbfgs_are_told():
    weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    with pytest.raises(TypeError, match="closure"):
        EMSO(weights, 0.1).step()
    with pytest.raises(InputError, match="one group of parameters, got 2"):
        EMSO([{"params": [w]} for w in weights], 0.1, inner="l-bfgs")
