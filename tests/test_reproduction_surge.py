"""What the reproduction of the surge rests on: the formulas of the quadratic, and what is read off the network."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rightbatch.loading import as_module

FOLDER = Path(__file__).parents[1] / "reproductions"
as_module(FOLDER / "surge.py", "surge_of_tests")()
model, told = sys.modules["_surge_model"], sys.modules["_surge_told"]
net = as_module(FOLDER / "_surge_net.py", "surge_net_of_tests")()


def test_the_best_rate_is_the_one_that_lowers_the_loss_most() -> None:
    """In three dimensions the expectation over all eight signs is a sum."""
    one = model.Quadratic(
        np.array([0.3, 0.1, -0.2]),
        np.array([1.0, 0.5, 2.0]),
        np.array([[1.0, 0.3, 0.1], [0.3, 2.0, 0.2], [0.1, 0.2, 0.5]]),
    )
    positive = (1 + one.signs(5)) / 2
    helps = bends = 0.0
    for k in range(8):
        signs = np.array([1.0 if k >> i & 1 else -1.0 for i in range(3)])
        chance = np.prod(np.where(signs > 0, positive, 1 - positive))
        helps += chance * (signs @ one.mean)
        bends += chance * (signs @ one.hessian @ signs)
    assert one.best_rate(5) == pytest.approx(helps / bends, rel=1e-12)


def test_it_goes_to_what_it_is_without_noise_and_does_not_surge_without_coupling() -> None:
    coupled, diagonal = model.quadratic(0.5), model.quadratic(0.0)
    assert coupled.best_rate(1e12) == pytest.approx(coupled.without_noise, rel=1e-6)
    assert math.isinf(diagonal.noise_scale)
    assert coupled.best_rate(coupled.noise_scale) > 1.5 * coupled.best_rate(100 * coupled.noise_scale)


def test_the_top_of_a_parabola_is_found_between_rates() -> None:
    rates = [10 ** (k / 6) for k in range(-12, 0)]
    lowered = np.array([1 - (math.log10(rate) + 1.05) ** 2 for rate in rates])
    assert told.top(lowered, rates) == pytest.approx(10**-1.05)


def test_along_signs_the_loss_is_the_parabola_that_was_drawn(tmp_path: Path) -> None:
    """s'mu and s'Hs of a network against differences of its gradient in double precision."""
    torch.manual_seed(0)
    network = net.work().model()
    torch.save(network.state_dict(), tmp_path / "begun-2.5.pt")
    drawn = net.second_order(tmp_path, 2.5, 64, 2, 2)
    inputs, labels = (part[: net.JUDGED] for part in net.work().data)
    batch = net.drawn(64, torch.Generator().manual_seed(64))
    signs = net.signs(network, batch)
    network = network.double()
    weights = [p.detach().clone() for p in network.parameters()]

    def slope(distance: float, examples: int) -> float:
        """Of the loss along the signs, at a distance."""
        with torch.no_grad():
            for parameter, weight, sign in zip(network.parameters(), weights, signs, strict=True):
                parameter.copy_(weight + distance * sign)
        loss = net.mean_loss(network, (inputs[:examples].double(), labels[:examples]))
        return float(net.dot(signs, torch.autograd.grad(loss, list(network.parameters()))))

    assert drawn["helps"][0] == pytest.approx(slope(0.0, net.JUDGED), rel=1e-3)
    step = 1e-10  # so short that no rectifier switches
    bent = (slope(step, net.BENT) - slope(-step, net.BENT)) / (2 * step)
    assert drawn["bends"][0] == pytest.approx(bent, rel=0.01)
