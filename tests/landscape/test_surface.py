"""The loss as a function of all weights, against PyTorch's own gradients and Hessian."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from rightbatch.bundled.digits import digits
from rightbatch.errors import InputError
from rightbatch.landscape.paths import POSITIONS, point_on
from rightbatch.landscape.surface import Surface
from rightbatch.streams import RandomStreams
from rightbatch.workload import Workload


def small(*middle: nn.Module) -> tuple[Workload, nn.Module]:
    workload = digits()
    inputs, labels = workload.data
    with RandomStreams(1).active():
        model = nn.Sequential(nn.Linear(64, 6), *middle, nn.Tanh(), nn.Linear(6, 10)).double()
    return replace(workload, data=(inputs.double(), labels)), model


def whole(workload: Workload, model: nn.Module) -> torch.Tensor:
    return workload.loss(model, workload.data).mean()


def test_value_and_gradient_are_those_of_all_examples_at_once() -> None:
    workload, model = small()
    surface = Surface(workload, model, batch_size=100)  # 1,437 examples: the last pass is shorter
    value, gradient = surface.value_and_gradient(surface.start)
    loss = whole(workload, model)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    assert value == surface.value(surface.start) == pytest.approx(float(loss.detach()), rel=1e-12)
    assert gradient == pytest.approx(expected.numpy(), abs=1e-12)
    assert surface.evaluations == 2
    moved = surface.start + 0.1
    assert surface.value(moved) != value
    assert surface.value(surface.start) == value  # nothing sticks


def test_hessian_products_are_those_of_the_hessian() -> None:
    workload, model = small()
    surface = Surface(workload, model, batch_size=500)
    vectors = np.random.default_rng(0).standard_normal((3, surface.size))
    products = surface.hessian_products(vectors)
    ahead, behind = (
        np.stack([surface.value_and_gradient(surface.start + sign * 1e-5 * v)[1] for v in vectors]) for sign in (1, -1)
    )
    assert products == pytest.approx((ahead - behind) / 2e-5, rel=1e-6, abs=1e-8)
    assert surface.evaluations == 3 * 2 + 6


def test_the_model_is_left_as_it_is_and_dropout_does_nothing() -> None:
    workload, model = small(nn.BatchNorm1d(6).double(), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for statistics in ("running", "batch", "recomputed"):
        surface = Surface(workload, model, statistics=statistics)  # type: ignore[arg-type]
        assert surface.value(surface.start + 1) > 0
        assert surface.value(surface.start) == surface.value(surface.start)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_what_batch_normalisation_divides_by_is_chosen() -> None:
    workload, model = small(nn.BatchNorm1d(6).double())
    running, batch, recomputed = (
        Surface(workload, model, statistics=statistics, batch_size=5000)  # type: ignore[arg-type]
        for statistics in ("running", "batch", "recomputed")
    )
    model.eval()
    assert running.value(running.start) == pytest.approx(float(whole(workload, model).detach()), rel=1e-12)
    model.train()
    of_the_batch = float(whole(workload, model).detach())
    assert batch.value(batch.start) == pytest.approx(of_the_batch, rel=1e-12)
    # Over all data at once the averages are those of the batch, but for the unbiased variance that is kept.
    assert recomputed.value(recomputed.start) == pytest.approx(of_the_batch, rel=1e-3)
    moved = batch.start + 0.05
    assert recomputed.value(moved) != pytest.approx(batch.value(moved), rel=1e-4)


def test_a_subset_and_frozen_weights() -> None:
    workload, model = small()
    model[0].weight.requires_grad_(False)
    surface = Surface(workload, model, examples=50)
    assert surface.size == 6 + 6 * 10 + 10
    assert surface.examples == 50
    assert surface.value(surface.start) != pytest.approx(float(whole(workload, model).detach()), rel=1e-6)
    assert Surface(workload, model, examples=10**6).examples == 1437
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(InputError, match="no parameter with a gradient"):
        Surface(workload, model)


def test_a_scalar_loss_and_totals_give_the_same_mean() -> None:
    workload, model = small()
    values = set()
    for loss in (
        workload.loss,
        lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
        lambda model, batch: (functional.cross_entropy(model(batch[0]), batch[1], reduction="sum"), len(batch[1])),
    ):
        surface = Surface(replace(workload, loss=loss), model, batch_size=500)
        values.add(round(surface.value(surface.start), 9))
        assert surface.value_and_gradient(surface.start)[0] == pytest.approx(surface.value(surface.start), rel=1e-12)
    assert len(values) == 1


def test_a_loss_that_is_not_finite_is_infinite() -> None:
    workload, model = small()
    surface = Surface(workload, model)
    value, gradient = surface.value_and_gradient(np.full(surface.size, np.nan))
    assert value == surface.value(np.full(surface.size, np.nan)) == np.inf
    assert not gradient.any()


def test_lines_between_two_minima_begin_and_end_there() -> None:
    one, other = np.array([1.0, 0.0]), np.array([0.0, 2.0])
    assert len(POSITIONS) == 25
    assert (POSITIONS[0], POSITIONS[8], POSITIONS[16], POSITIONS[-1]) == (-1, 0, 1, 2)
    for kind in ("straight", "curved"):
        assert point_on(kind, 0, one, other) == pytest.approx(one)  # type: ignore[arg-type]
        assert point_on(kind, 1, one, other) == pytest.approx(other)  # type: ignore[arg-type]
    assert point_on("straight", 0.5, one, other) == pytest.approx([0.5, 1])
    assert point_on("curved", 0.5, one, other) == pytest.approx([0.5**0.5, 2 * 0.5**0.5])
