"""Means of iterates: what is kept, how it goes on, and that they are as wide as the theory says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rightbatch.errors import InputError
from rightbatch.fit.averaging import averaged_covariance
from rightbatch.fit.posterior import ConstantSGD, Optimum
from rightbatch.optim.iterate_average import IterateAverage


def test_means_are_of_blocks_and_go_on_from_a_state():
    first, second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1, 2, dtype=torch.float64))
    averages, other = (IterateAverage([first, second], steps=3) for _ in range(2))
    iterates = np.random.default_rng(0).normal(size=(8, 4))
    for number, row in enumerate(iterates):
        with torch.no_grad():
            first.copy_(torch.from_numpy(row[:2]))
            second.copy_(torch.from_numpy(row[2:])[None])
        (averages if number < 5 else other).update()
        if number == 4:
            other.load_state_dict(averages.state_dict())
    assert len(averages.samples) == 1
    np.testing.assert_allclose(other.samples, [iterates[:3].mean(0), iterates[3:6].mean(0)], rtol=1e-6)
    assert other.predict(lambda: second.sum()).each.shape == (2,)
    torch.testing.assert_close(second.detach(), torch.from_numpy(iterates[7:, 2:]))


def test_means_over_a_pass_are_as_wide_as_the_posterior():
    """The synthetic experiment of the paper at a tenth of its size: unit Hessian and noise."""
    torch.manual_seed(0)
    examples, rate = 1000, 0.05
    weight = nn.Parameter(torch.zeros(10, dtype=torch.float64))
    averages, seen = IterateAverage([weight], steps=examples), []
    optimizer = torch.optim.SGD([weight], lr=rate)
    for _ in range(60 * examples):
        weight.grad = weight.detach() + torch.randn(10, dtype=torch.float64)
        optimizer.step()
        averages.update()
        seen.append(weight.detach().clone())
    known, sgd = Optimum(np.eye(10), np.eye(10), examples), ConstantSGD(rate, 1)
    assert torch.stack(seen).square().mean() * examples == pytest.approx(25.6, rel=0.1)
    predicted = np.trace(averaged_covariance(known, sgd, examples)) / 10
    assert averages.samples.square().mean() == pytest.approx(predicted, rel=0.25)
    assert predicted * examples == pytest.approx(0.98, abs=0.01)
    failures = averages.tests().failures
    assert not failures


def test_what_cannot_be_is_told():
    with pytest.raises(InputError, match="no parameters"):
        IterateAverage([], steps=3)
    with pytest.raises(InputError, match="at least 1 step, got 0"):
        IterateAverage([nn.Parameter(torch.zeros(2))], steps=0)
    averages = IterateAverage([nn.Parameter(torch.zeros(2))], steps=1)
    with pytest.raises(InputError, match="no sample yet"):
        averages.predict(lambda: torch.zeros(1))
    with pytest.raises(InputError, match="of 3 parameters, not of 2"):
        averages.load_state_dict(IterateAverage([nn.Parameter(torch.zeros(3))], steps=1).state_dict())
