"""Sums over the examples of a batch from a few of them: right on average, and right at once where all are taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rightbatch.gradients.exact import per_example_gradients
from rightbatch.gradients.slopes import CHECK_EVERY, Slopes
from rightbatch.gradients.totals import Totals

EXAMPLES, FEW, DRAWS = 20, 6, 150


class Recurrent(nn.Module):
    def __init__(self, kind: Any = nn.GRU, batch_first: bool = True) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(5, 3)
        self.cell = kind(4, 5, num_layers=2, batch_first=batch_first)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        entered = self.embedding(x)
        if self.batch_first:
            return self.head(self.cell(entered)[0].tanh().sum(1))
        state = self.cell(entered.transpose(0, 1))[1]
        return self.head(state[0].sum(0) if isinstance(state, tuple) else state.sum(0))


class Attention(nn.Module):
    """Tied embedding, a parameter of its own, attention with its own projections."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.positions = nn.Parameter(torch.randn(6, 4) / 3)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        entered = self.norm(self.embedding(x) + self.positions)
        return self.head(entered + self.attention(entered, entered, entered, need_weights=False)[0]).sum(1)


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2),
                         nn.Flatten(), nn.Linear(4 * 4, 3))  # fmt: skip


def images() -> Tensor:
    return torch.randn(EXAMPLES, 2, 6, 6, dtype=torch.float64)


def tokens() -> Tensor:
    return torch.randint(7, (EXAMPLES, 6))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "convolutions": (convolutional, images),
    "GRU": (Recurrent, tokens),
    "LSTM, examples second": (lambda: Recurrent(nn.LSTM, batch_first=False), tokens),
    "attention": (Attention, tokens),
}


def prepared(name: str) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(3)
    make, enter = MODELS[name]
    return make().double(), (enter(), torch.randint(3, (EXAMPLES,)))


def loss(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def exact(model: nn.Module, batch: Any, metric: dict[nn.Parameter, Tensor] | None) -> dict[str, Tensor]:
    """[1 or 2] for each parameter, by one backward pass for each example."""
    parameters = dict(model.named_parameters())
    found = {}
    for name, each in per_example_gradients(model, loss, batch).items():
        squares = each.square()
        rows = [squares] if metric is None else [squares, squares * metric[parameters[name]]]
        found[name] = torch.stack([row.sum() for row in rows])
    return found


def totals(
    model: nn.Module, batch: Any, slopes: Slopes, metric: Any = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    model.zero_grad()
    found = Totals(model, slopes)
    found.begin(EXAMPLES, metric)
    loss(model, batch).backward()
    return by_name(found)


def by_name(found: Totals) -> tuple[dict[str, Tensor], dict[str, str]]:
    names, values, uncovered = found.finish()
    found.close()
    return dict(zip(names, values, strict=True)), uncovered


def random_metric(model: nn.Module) -> dict[nn.Parameter, Tensor]:
    return {parameter: torch.rand_like(parameter) + 0.1 for parameter in model.parameters()}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_where_all_examples_are_taken_the_layers_with_rules_are_exact(name: str, weighted: bool) -> None:
    model, batch = prepared(name)
    metric = random_metric(model) if weighted else None
    found, uncovered = totals(model, batch, Slopes(few=EXAMPLES), metric)
    assert not uncovered
    rerun = ("cell.", "attention.", "positions")
    for parameter, expected in exact(model, batch, metric).items():
        if not parameter.startswith(rerun):
            torch.testing.assert_close(found[parameter], expected)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_from_a_few_examples_it_is_right_on_average(name: str, weighted: bool) -> None:
    model, batch = prepared(name)
    metric = random_metric(model) if weighted else None
    slopes = Slopes(few=FEW)
    assert not totals(model, batch, slopes, metric)[1]  # all are taken: slopes are learned
    expected = exact(model, batch, metric)
    draws: dict[str, list[Tensor]] = {parameter: [] for parameter in expected}
    for _ in range(DRAWS):
        slopes.samples = 1  # a few are drawn
        for parameter, total in totals(model, batch, slopes, metric)[0].items():
            draws[parameter].append(total)
    for parameter, of_draws in draws.items():
        drawn = torch.stack(of_draws)
        error = drawn.std(0) / math.sqrt(DRAWS)
        assert ((drawn.mean(0) - expected[parameter]).abs() <= 4 * error + 1e-9 * expected[parameter]).all(), parameter


def test_what_stands_for_the_rest_makes_it_more_precise() -> None:
    model, batch = prepared("convolutions")

    def spread(slopes: Slopes) -> float:
        values = []
        for _ in range(100):
            slopes.samples = 1
            values.append(torch.stack(list(totals(model, batch, slopes)[0].values())).sum())
        return float(torch.stack(values).std())

    learned = Slopes(few=FEW)
    totals(model, batch, learned)
    assert spread(learned) < 0.6 * spread(Slopes(few=FEW))


def test_all_are_taken_every_now_and_then_and_a_use_elsewhere_is_noticed() -> None:
    model, batch = prepared("convolutions")
    slopes = Slopes(few=FEW)
    for _ in range(CHECK_EVERY):
        assert not totals(model, batch, slopes)[1]

    def with_more(model: nn.Module, batch: Any) -> Tensor:
        return loss(model, batch) + model[0].weight.square().sum()

    model.zero_grad()
    found = Totals(model, slopes)
    found.begin(EXAMPLES)
    with_more(model, batch).backward()
    covered, uncovered = by_name(found)
    assert uncovered == {"0.weight": "used outside its layer too, or its gradient is changed by a hook"}
    assert "0.weight" not in covered
    assert "0.weight" not in totals(model, batch, slopes)[0]  # until it is looked at again


def test_running_a_module_again_changes_no_stream_and_no_buffer() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(5))
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return nn.functional.dropout(x * self.scale, 0.5)

    torch.manual_seed(0)
    model = nn.Sequential(Noisy(), nn.Linear(5, 3))
    found = Totals(model, Slopes())
    found.begin(EXAMPLES)
    model(torch.randn(EXAMPLES, 5)).square().mean().backward()
    state = torch.get_rng_state()
    _, uncovered = by_name(found)
    assert torch.equal(torch.get_rng_state(), state)
    assert float(model[0].calls) == 1
    assert uncovered == {"0.scale": "Noisy has no rule, and run again it does something else"}
