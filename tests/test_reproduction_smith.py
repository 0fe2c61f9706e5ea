"""What the reproductions of Smith and Le, and of Smith et al., rest on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from rightbatch.errors import DataError
from rightbatch.loading import as_module

FOLDER = Path(__file__).parents[1] / "reproductions"
noise, noise_net = (as_module(FOLDER / f"{name}.py", f"{name}_of_tests")() for name in ("smith-le", "_smith-le_net"))
growth, growth_net = (
    as_module(FOLDER / f"{name}.py", f"{name}_of_tests")() for name in ("smith-2018", "_smith-2018_net")
)


def test_gradients_by_hand_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    parameters = noise_net.begun(2, 784, generator)
    parameters[1] += 0.1
    inputs = torch.rand(2, 5, 784, generator=generator)
    labels = torch.randint(10, (2, 5), generator=generator)
    by_hand = noise_net.gradients(parameters, inputs, labels)
    learnt = [p.clone().requires_grad_() for p in parameters]
    first, first_bias, second, second_bias = learnt
    scores = (inputs @ first + first_bias).relu() @ second + second_bias
    for found, truth in zip(
        by_hand,
        torch.autograd.grad(2 * cross_entropy(scores.flatten(0, 1), labels.flatten()), learnt),
        strict=True,
    ):
        torch.testing.assert_close(found, truth)


def test_a_peak_is_found_between_sizes_and_none_at_an_edge() -> None:
    sizes = np.array(noise.SIZES, float)
    accuracy = 0.9 - 0.01 * (np.log2(sizes) - 5.3) ** 2
    assert noise.peak(sizes, accuracy) == pytest.approx(5.3)
    assert np.isnan(noise.peak(sizes, np.log2(sizes)))
    assert noise.at_edge({str(int(b)): [float(np.log2(b))] for b in sizes})


def test_a_best_size_in_proportion_has_the_power_one() -> None:
    settings = noise.VARIED["rate"]
    peaks = {noise.named(one): np.log2(300 * one[1]) for one in settings}
    of = {
        name: {str(b): [0.9 - 0.01 * (np.log2(b) - at) ** 2 + e for e in (-1e-4, 0, 1e-4)] for b in noise.SIZES}
        for name, at in peaks.items()
    }
    found = noise.power("rate", settings, of)
    assert found.estimate == pytest.approx(1.0, abs=0.02)
    assert found.high - found.low < 0.1


def test_a_best_rate_that_is_the_last_one_tells_nothing_of_tuned_rates() -> None:
    def of(setting: tuple[int, float, float], best: float) -> list[float]:
        return [0.9 - 0.01 * abs(np.log(setting[1] / best)) + e for e in (-1e-4, 0, 1e-4)]

    measured = {
        "varied": {"rate": noise.VARIED["rate"]},
        "accuracies": {noise.named(one): {"16": of(one, 0.1), "256": of(one, 1.0)} for one in noise.VARIED["rate"]},
        "high": {noise.named(one): {"256": of(one, 1.0)} for one in noise.HIGH},
    }
    found = noise.tuned(measured, 16, 256)
    assert found.estimate == pytest.approx(0.0, abs=1e-9)
    assert noise.best_rate(measured, 256)[0] == 1.0
    measured["high"] = {noise.named(one): {} for one in noise.HIGH}
    assert noise.best_rate(measured, 256)[0] == 0.3
    assert noise.tuned(measured, 16, 256) is None


def test_phases_divide_the_rate_or_multiply_the_batch() -> None:
    assert growth.phases("rate divided", 0.4, (8, 4, 2)) == ((8, 32, 0.4), (4, 32, 0.1), (2, 32, 0.025))
    assert growth.phases("batch multiplied", 0.4, (8, 4, 2)) == ((8, 32, 0.4), (4, 128, 0.4), (2, 512, 0.4))
    assert growth.phases("both", 0.4, (1, 1)) == ((1, 32, 0.4), (1, 128, 0.1))


def test_until_the_first_change_both_ways_are_one() -> None:
    try:
        growth_net.data()
    except DataError as error:
        pytest.skip(str(error))
    divided, multiplied = (
        growth_net.trained(growth.phases(way, 0.4, (1, 1)), "SGD", 0.0, 3)
        for way in ("rate divided", "batch multiplied")
    )
    assert divided["loss"][0] == multiplied["loss"][0]
    assert divided["loss"][1] != multiplied["loss"][1]
    assert (divided["updates"], multiplied["updates"]) == (2 * 625, 625 + 156)
