"""The noise along the gradient: right on average over all possible batches, and as loops over examples have it."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rightbatch.fit.noise import terms
from rightbatch.gradients.exact import per_example_gradients
from rightbatch.gradients.factors import Vectors
from rightbatch.gradients.inner_products import InnerProducts
from rightbatch.gradients.monitor import NoiseScale
from rightbatch.gradients.slopes import Slopes
from rightbatch.gradients.totals import Totals


def found(gradients: Tensor) -> tuple[float, float]:
    """|G|^4 and G^T Sigma G from the gradients of the examples of a batch, [examples, d]."""
    products = InnerProducts(len(gradients))
    contributions = gradients / len(gradients)
    products.take("w", contributions.shape[1:], lambda group: [Vectors(contributions[group])])
    return products.terms(["w"])


def twin(gradients: Tensor) -> tuple[float, float]:
    """As the module says it: every example of a group with every pair from the two others, one by one."""
    fourth = variance = 0.0
    groups = [range(k, len(gradients), 3) for k in range(3)]
    for mine, one, other in (groups, groups[1:] + groups[:1], groups[2:] + groups[:2]):
        dots = [
            (float(gradients[i] @ gradients[j]), float(gradients[i] @ gradients[k]), i, j, k)
            for i in mine
            for j in one
            for k in other
        ]
        by = {(i, j): a for a, _, i, j, _ in dots} | {(i, k): b for _, b, i, _, k in dots}
        u = {i: sum(by[i, j] for j in one) / len(one) for i in mine}
        v = {i: sum(by[i, k] for k in other) / len(other) for i in mine}
        # E[u_i v_i] = G^T (Sigma + G G^T) G, and of two examples E[u_i v_j] = |G|^4.
        same = sum(u[i] * v[i] for i in mine) / len(mine)
        pairs = [u[i] * v[j] for i in mine for j in mine if i != j]
        different = sum(pairs) / len(pairs)
        fourth, variance = fourth + different / 3, variance + (same - different) / 3
    return fourth, variance


@pytest.mark.parametrize("examples", [6, 7, 8])
def test_over_all_batches_there_could_be_both_terms_are_right(examples: int) -> None:
    population = torch.tensor([[1.0, 0.5, -2.0], [0.2, -1.0, 3.0]], dtype=torch.float64)
    batches = list(itertools.product(range(2), repeat=examples))
    average = torch.tensor([found(population[list(batch)]) for batch in batches], dtype=torch.float64).mean(0)
    mean = population.mean(0)
    covariance = (population - mean).T @ (population - mean) / 2
    assert average.tolist() == pytest.approx([float(mean @ mean) ** 2, float(mean @ covariance @ mean)], rel=1e-12)


def test_the_variance_along_the_gradient_of_the_batch_would_be_too_large() -> None:
    """The published test, with the batch's own gradient: its noise and each example itself count as agreement."""
    torch.manual_seed(0)
    gradients = torch.randn(400, 24, 50, dtype=torch.float64)
    gradients[:, :, 0] += 0.3
    truth = 0.3**2
    published = torch.stack([(batch @ batch.mean(0)).var() for batch in gradients]).mean()
    unbiased = torch.tensor([found(batch)[1] for batch in gradients])
    assert published > 20 * truth
    assert abs(float(unbiased.mean()) - truth) < 4 * float(unbiased.std()) / math.sqrt(400)


class Tokens(nn.Module):
    """Every kind of rule: a table that is tied to the last layer, vectors, matrices with positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.norm, self.linear = nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.linear(self.embedding(x)).tanh())).sum(1)


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2),
                         nn.Flatten(), nn.Linear(4 * 4, 3))  # fmt: skip


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "an MLP": (
        lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)),
        lambda: torch.randn(11, 6, dtype=torch.float64),
    ),
    "convolutions": (convolutional, lambda: torch.randn(11, 2, 6, 6, dtype=torch.float64)),
    "tokens": (Tokens, lambda: torch.randint(7, (11, 5))),
}


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize("name", MODELS)
def test_loops_over_the_examples_of_a_model_agree(name: str) -> None:
    torch.manual_seed(3)
    make, enter = MODELS[name]
    model, batch = make().double(), (enter(), torch.randint(3, (11,)))
    each = per_example_gradients(model, loss, batch)
    expected = twin(11 * torch.cat([gradient.flatten(1) for gradient in each.values()], 1))
    totals = Totals(model, Slopes(few=4), inner_products=True)
    for _ in range(3):  # with all examples checked, and without
        model.zero_grad()
        totals.begin(11)
        loss(model, batch).backward()
        totals.finish()
        assert totals.along_gradient == pytest.approx(expected, rel=1e-9)
    totals.close()


X = torch.randn(60, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
Y = (X[:, :2].sum(1) > 0).long()


def trained(model: nn.Module, *, passes: int = 1, watched: bool = True, scale: float = 1.0) -> NoiseScale | None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale != 1.0)
    made = {"overhead": math.inf, "inner_products": True, "scaler": scaler}
    monitor = NoiseScale(model, optimizer, **made) if watched else None
    for k in range(4):
        optimizer.zero_grad()
        for part in torch.arange(12 * k, 12 * k + 12).chunk(passes):
            scaler.scale(loss(model, (X[part], Y[part])) / passes).backward()
        scaler.step(optimizer)
        scaler.update()
    return monitor


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).double()


@pytest.mark.parametrize(("passes", "scale"), [(1, 1.0), (2, 1.0), (1, 64.0)])
def test_a_monitor_keeps_it_as_samples_of_a_metric_of_its_own(passes: int, scale: float) -> None:
    monitor = trained(network(), passes=passes, scale=scale)
    assert monitor is not None
    samples = monitor.samples_after(-1)
    assert [(s.step, s.metric) for s in samples] == [(k, m) for k in range(4) for m in ("plain", "along")]
    assert monitor.samples_after(2) == samples[6:]
    model = network()
    parts = [slice(start, start + 12 // passes) for start in range(0, 12, 12 // passes)]
    each = [per_example_gradients(model, loss, (X[part], Y[part])) for part in parts]
    expected = [twin(12 // passes * torch.cat([g.flatten(1) for g in of.values()], 1)) for of in each]
    fourth, variance = terms([samples[1]])
    assert float(fourth[0]) == pytest.approx(sum(a for a, _ in expected) / passes, rel=1e-9)
    assert float(variance[0]) == pytest.approx(sum(b for _, b in expected) / passes, rel=1e-9)
    again = NoiseScale(model, torch.optim.SGD(model.parameters(), lr=0.1), inner_products=True)
    again.load_state_dict(monitor.state_dict())
    assert again.samples_after(-1) == samples


def test_training_stays_the_same_to_the_bit() -> None:
    plain, watched = network(), network()
    trained(plain, watched=False)
    trained(watched)
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("model", "passes", "why"),
    [
        (lambda: nn.Sequential(Scaled(), nn.Linear(6, 2)), 1, "Scaled has no rule"),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), 2, "not defined"),
        (network, 3, "a pass has 4 examples, and 6 are the fewest"),
    ],
)
def test_where_it_is_not_had_it_is_said_once(model: Callable[[], nn.Module], passes: int, why: str) -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        monitor = trained(model().double(), passes=passes)
    assert monitor is not None
    assert [why in str(warning.message) for warning in said] == [True]
    assert {sample.metric for sample in monitor.samples_after(-1)} == {"plain"}
    assert len(monitor.samples) == 4


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale
