"""The metric of an optimizer is what its steps show: without momentum a step is -rate P g."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rightbatch.gradients.metrics import PRECONDITIONERS, metric_of, preconditions

KINDS: list[tuple[type[torch.optim.Optimizer], dict[str, Any]]] = [
    (torch.optim.Adam, {"betas": (0.0, 0.9)}),
    (torch.optim.Adam, {"betas": (0.0, 0.9), "amsgrad": True}),
    (torch.optim.AdamW, {"betas": (0.0, 0.9), "weight_decay": 0.0}),
    (torch.optim.NAdam, {"betas": (0.0, 0.9)}),
    (torch.optim.Adamax, {"betas": (0.0, 0.9)}),
    (torch.optim.RMSprop, {"alpha": 0.9}),
    (torch.optim.RMSprop, {"alpha": 0.9, "centered": True}),
    (torch.optim.Adagrad, {}),
]


@pytest.mark.parametrize(("kind", "settings"), KINDS, ids=lambda value: getattr(value, "__name__", None))
def test_a_step_is_the_gradient_in_the_metric(kind: Any, settings: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = nn.Parameter(torch.randn(50, generator=generator, dtype=torch.float64))
    optimizer = kind([weights], lr=0.1, **settings)
    assert metric_of(optimizer) is None
    for _ in range(5):
        before = weights.detach().clone()
        weights.grad = torch.randn(50, generator=generator, dtype=torch.float64)
        optimizer.step()
        metric = metric_of(optimizer)
        assert metric is not None
        torch.testing.assert_close(weights.detach() - before, -0.1 * metric[weights] * weights.grad)


def test_every_metric_is_tried() -> None:
    assert {kind for kind, _ in KINDS} == set(PRECONDITIONERS)


def test_plain_sgd_has_none() -> None:
    weights = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weights], lr=0.1, momentum=0.9)
    weights.grad = torch.ones(3)
    optimizer.step()
    assert metric_of(optimizer) is None
    assert not preconditions(optimizer)
