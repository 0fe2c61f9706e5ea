"""Metric 2.1 against closed forms, every corner of small boxes, and a slow ascent of its own."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from quadratics import quadratic, random_hessian
from torch import nn

from rightbatch.bundled.digits import digits
from rightbatch.landscape.box import in_adaptive_box, in_box, in_subspace, maximum, one_step
from rightbatch.landscape.subspace import RandomMatrix
from rightbatch.landscape.surface import Surface
from rightbatch.minima import Choices
from rightbatch.streams import RandomStreams

USUAL = Choices()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("solver", ["l-bfgs-b", "signed-ascent"])
def test_of_a_diagonal_hessian_it_is_the_closed_form(seed: int, solver: str) -> None:
    draw = np.random.default_rng(seed)
    h, b, x = draw.uniform(0, 5, 50), draw.standard_normal(50), draw.standard_normal(50)
    surface = quadratic(np.diag(h), b, x)
    half = USUAL.epsilon * (np.abs(x) + 1)
    rise = np.sum(np.abs(b + h * x) * half + h * half**2 / 2)
    start = b @ x + h @ x**2 / 2
    found = in_box(surface, replace(USUAL, solver=solver))
    assert found.rise == pytest.approx(rise, rel=1e-9)
    assert found.sharpness() == pytest.approx(100 * rise / (1 + start), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_of_any_convex_quadratic_it_is_the_highest_corner(seed: int) -> None:
    draw = np.random.default_rng(seed)
    h = random_hessian(draw.uniform(0, 5, 8), draw)
    x = draw.standard_normal(8)
    surface = quadratic(h, -h @ x, x)  # at its exact minimum, where nothing points uphill
    assert in_box(surface, USUAL).rise == pytest.approx(0, abs=1e-13)  # but for the rounding of a machine
    half = USUAL.epsilon * (np.abs(x) + 1)
    highest = max((half * signs) @ h @ (half * signs) / 2 for signs in itertools.product([-1.0, 1.0], repeat=8))
    found = in_box(surface, replace(USUAL, start="random", restarts=120))
    assert found.rise == pytest.approx(highest, rel=1e-6)
    assert len(found.values) == 120
    assert max(found.values) > min(found.values)  # corners differ: that is what restarts are for


def test_of_a_concave_quadratic_it_is_the_peak_inside() -> None:
    h, x, peak = np.array([-1.0, -4.0]), np.array([0.5, -0.2]), np.array([5e-4, -3e-4])
    surface = quadratic(np.diag(h), -h * (x + peak), x)
    assert in_box(surface, USUAL).rise == pytest.approx(float(-h @ peak**2 / 2), rel=1e-6)


@pytest.mark.parametrize("law", ["normal", "uniform", "unit-normal", "unit-uniform"])
def test_of_a_line_the_subspace_gives_the_closed_form(law: str) -> None:
    draw = np.random.default_rng(1)
    b, x = draw.standard_normal(300), draw.standard_normal(300)
    choices = replace(USUAL, dimensions=7, law=law)
    matrix = RandomMatrix(300, 7, law, choices.seed)
    half = choices.epsilon * (np.abs(matrix.pseudo_inverse_times(x)) + 1)
    found = in_subspace(quadratic(np.zeros((300, 300)), b, x), choices)
    assert found.rise == pytest.approx(float(np.abs(matrix.transposed_times(b)) @ half), rel=1e-5)


def test_one_step_of_sam_on_a_quadratic() -> None:
    h, x = np.array([1.0, 3.0]), np.array([0.4, 0.3])
    gradient = h * x
    step = x + 0.05 * gradient / np.linalg.norm(gradient)
    expected = (h @ step**2 - h @ x**2) / 2
    assert one_step(quadratic(np.diag(h), np.zeros(2), x), USUAL).rise == pytest.approx(expected, rel=1e-9)
    assert one_step(quadratic(np.diag(h), np.zeros(2), np.zeros(2)), USUAL).rise == 0


# ----------------------------------------------------------------------------------------------- a small network


@pytest.fixture(scope="module")
def trained() -> Surface:
    """A small network on the digits after a few passes, in double precision."""
    workload = digits()
    inputs, labels = workload.data
    with RandomStreams(0).active():
        model = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)).double()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(150):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs.double()), labels).backward()
            optimizer.step()
    return Surface(replace(workload, data=(inputs.double(), labels)), model)


def test_on_a_network_a_slow_projected_ascent_agrees(trained: Surface) -> None:
    x = trained.start
    half = USUAL.epsilon * (np.abs(x) + 1)
    y = np.zeros_like(x)
    for _ in range(400):  # plain gradient steps, projected: nothing in common with L-BFGS-B
        _, gradient = trained.value_and_gradient(x + y)
        y = np.clip(y + 0.5 * gradient, -half, half)
    slow = trained.value(x + y) - trained.value(x)
    assert in_box(trained, replace(USUAL, iterations=60)).rise == pytest.approx(slow, rel=0.02)
    assert 0.8 * slow < in_box(trained, USUAL).rise <= 1.001 * slow  # ten iterations find most of it


def test_more_room_and_more_restarts_never_lower_it(trained: Surface) -> None:
    rises = [in_box(trained, replace(USUAL, epsilon=epsilon)).rise for epsilon in (2.5e-4, 5e-4, 1e-3)]
    assert rises == sorted(rises)
    assert rises[0] > 0
    once = in_box(trained, USUAL)
    thrice = in_box(trained, replace(USUAL, restarts=3))
    assert thrice.values[0] == once.values[0]
    assert thrice.rise >= once.rise
    # The subspace is a part of the space, but its box may reach beyond: only the seed's result is the same twice.
    assert in_subspace(trained, USUAL) == in_subspace(trained, USUAL)
    assert in_subspace(trained, USUAL) != in_subspace(trained, replace(USUAL, seed=1))


def test_rescaled_weights_of_the_same_function_change_the_box_and_not_the_adaptive_one(trained: Surface) -> None:
    """Dinh et al. 2017: a rectifier's inputs times ten and its outputs divided by ten are the same function."""
    first, second = 64 * 12 + 12, 12 * 10
    scale = np.concatenate([np.full(first, 10.0), np.full(second, 0.1), np.ones(10)])
    before = in_box(trained, USUAL), in_adaptive_box(trained, USUAL)
    rescaled = Surface.__new__(Surface)
    rescaled.__dict__.update(trained.__dict__, start=trained.start * scale)
    after = in_box(rescaled, USUAL), in_adaptive_box(rescaled, USUAL)
    assert after[0].start == pytest.approx(before[0].start, rel=1e-9)
    assert after[1].rise == pytest.approx(before[1].rise, rel=1e-6)
    assert after[0].rise > 1.5 * before[0].rise


def test_a_loss_that_overflows_is_infinitely_sharp_and_does_not_break_the_solver() -> None:
    def function(y: np.ndarray) -> tuple[float, np.ndarray]:
        return (np.inf, np.zeros(1)) if y[0] > 0.5 else (float(y[0]), np.ones(1))

    assert maximum(function, np.ones(1), USUAL).sharpness() == np.inf
