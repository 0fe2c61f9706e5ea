"""Samples of gradients along a training: equal to gradients taken by hand, and the training stays what it was."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from rightbatch.errors import WorkloadError
from rightbatch.fit.noise import noise_scale
from rightbatch.gradients.training import gradient_samples
from rightbatch.parts import split
from rightbatch.records import Trial
from rightbatch.stepping import Stepper
from rightbatch.streams import RandomStreams
from rightbatch.workload import Workload

GENERATOR = torch.Generator().manual_seed(3)
TOKENS = torch.randint(0, 11, (40, 6), generator=GENERATOR)
LENGTHS = torch.randint(1, 7, (40,), generator=GENERATOR)


class Recurrent(nn.Module):
    """Embedding, GRU and a linear layer: one that no rule for single layers covers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.gru, self.head = nn.Embedding(11, 5), nn.GRU(5, 7, batch_first=True), nn.Linear(7, 11)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(self.embedding(tokens))[0])


def losses(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the tokens that count, and which they are; shapes `[batch_size, 6]`."""
    tokens, lengths = batch
    counts = torch.arange(6) < lengths[:, None]
    found = nn.functional.cross_entropy(model(tokens).transpose(1, 2), (3 * tokens + 1) % 11, reduction="none")
    return found * counts, counts


def per_example(model: nn.Module, batch: Any) -> torch.Tensor:
    found, counts = losses(model, batch)
    return found.sum(dim=1) / counts.sum(dim=1)


def total(model: nn.Module, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    found, counts = losses(model, batch)
    return found.sum(), counts.sum()


def mean(model: nn.Module, batch: Any) -> torch.Tensor:
    return per_example(model, batch).mean()


KINDS = {"of each example": per_example, "total and weight": total, "mean": mean}


def workload(**changed: Any) -> Workload:
    known: dict[str, Any] = {
        "name": "tokens",
        "model": lambda: Recurrent().double(),
        "data": (TOKENS, LENGTHS),
        "valid": (TOKENS, LENGTHS),
        "loss": per_example,
        "optimizer": lambda parameters, trial: torch.optim.SGD(parameters, lr=trial.learning_rate, momentum=0.5),
        "present": (8, 0.1),
        "planned_examples": 400,
    }
    return Workload(**known | changed)


def squared(gradients: Any) -> float:
    return sum(float((gradient**2).sum()) for gradient in gradients)


@pytest.mark.parametrize("parts", [2, 3, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_those_of_gradients_taken_by_hand(kind: str, parts: int) -> None:
    work = workload(loss=KINDS[kind])
    trial = Trial(8, 0.1, 4)
    (sample,) = gradient_samples(work, trial, 1, parts=parts)
    with RandomStreams(4).active():
        stepper = Stepper(work, work.complete(trial))
    batch = next(stepper.batches())
    parameters = list(stepper.model.parameters())
    pieces = split(batch, parts)
    weights = [float(total(stepper.model, p)[1]) if kind == "total and weight" else float(len(p[0])) for p in pieces]
    shares = [weight / sum(weights) for weight in weights]

    def mean_of(piece: Any) -> torch.Tensor:
        if kind == "total and weight":
            summed, weight = total(stepper.model, piece)
            return summed / weight
        return per_example(stepper.model, piece).mean()

    taken = [torch.autograd.grad(s * mean_of(p), parameters) for s, p in zip(shares, pieces, strict=True)]
    whole = torch.autograd.grad(mean_of(batch), parameters)
    assert sample.batch_squared == pytest.approx(squared(whole), rel=1e-10)
    assert sample.parts_squared == pytest.approx(sum(map(squared, taken)), rel=1e-10)
    assert sample.shares_squared == pytest.approx(sum(share**2 for share in shares))
    assert (sample.step, sample.batch_size, sample.learning_rate) == (0, 8, 0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_training_is_that_of_whole_batches(kind: str) -> None:
    work = workload(loss=KINDS[kind], max_gradient_norm=0.3, averaging_examples=50.0)
    trial = work.complete(Trial(8, 0.1, 1))
    with RandomStreams(1).active():
        plain = Stepper(work, trial)
        plain.run(7)
        batch = next(plain.batches())
        value = squared(torch.autograd.grad(_scalar(work, plain, batch), list(plain.model.parameters())))
    *_, last = gradient_samples(work, trial, 8)
    assert last.step == 7
    assert last.batch_squared == pytest.approx(value, rel=1e-9)


def _scalar(work: Workload, stepper: Stepper, batch: Any) -> torch.Tensor:
    loss = work.loss(stepper.model, batch)
    return loss[0] / loss[1] if isinstance(loss, tuple) else loss.mean()


def test_the_noise_of_the_noisy_quadratic_is_as_constructed() -> None:
    from rightbatch.bundled.quadratic import DIMENSIONS, hessian, quadratic

    work = quadratic(noise=2.0)
    found = noise_scale(list(gradient_samples(work, Trial(32, 1e-9, 0), 400)))
    gradient, trace = float((hessian() ** 2).sum()), 2.0 * float(hessian().sum())
    assert len(hessian()) == DIMENSIONS
    assert gradient in replace(found.gradient_squared)
    assert trace in found.noise_trace
    assert trace / gradient in found.scale
    assert found.relative_error < 0.05


def test_random_numbers_of_the_caller_are_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(gradient_samples(workload(), Trial(8, 0.1, 1), 2))
    assert torch.equal(torch.rand(3), expected)


def test_batches_of_all_shapes_are_split() -> None:
    x = torch.arange(10)
    assert [len(part) for part in split(x, 4)] == [2, 3, 2, 3]
    assert torch.cat([part["x"][1] for part in split({"x": [x, x]}, 3)]).equal(x)
    assert len(split((x[:3], x[:3]), 4)) == 3
    assert len(split(x[:1], 2)) == 1
    for batch in ((x, x[:4]), (x, "text")):
        with pytest.raises(WorkloadError, match="cannot be split"):
            split(batch, 2)


def test_a_batch_of_one_example_has_no_noise() -> None:
    with pytest.raises(WorkloadError, match="one example has no parts"):
        list(gradient_samples(workload(), Trial(1, 0.1, 1), 2))


def test_a_gradient_that_is_not_finite_is_told_from_noise() -> None:
    from rightbatch.errors import InputError

    samples = list(gradient_samples(workload(loss=lambda m, b: per_example(m, b) * math.inf), Trial(8, 0.1, 1), 4))
    with pytest.raises(InputError, match="not finite"):
        noise_scale(samples)


def test_the_noise_by_curvature_of_the_noisy_quadratic_is_as_constructed() -> None:
    from rightbatch.bundled.quadratic import hessian, quadratic

    trial = Trial(32, 1e-9, 0)
    samples = list(gradient_samples(quadratic(noise=2.0), trial, 300, curvature_steps=150))
    found = noise_scale([sample for sample in samples if sample.metric == "curvature"])
    h = hessian()
    assert found.samples == 150
    assert float((h**3).sum()) in found.gradient_squared
    assert 2.0 * float((h**2).sum()) in found.noise_trace
    assert 2.0 * float((h**2).sum()) / float((h**3).sum()) in found.scale


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_looking_at_the_curvature_changes_nothing_else(optimizer: Any) -> None:
    work = workload(optimizer=lambda parameters, trial: optimizer(parameters, lr=trial.learning_rate))
    plain = list(gradient_samples(work, Trial(8, 0.01, 1), 6))
    curved = list(gradient_samples(work, Trial(8, 0.01, 1), 6, curvature_steps=3))
    assert [sample for sample in curved if sample.metric != "curvature"] == plain
    assert [sample.step for sample in curved if sample.metric == "curvature"] == [0, 2, 4]
    metrics = {"plain"} if optimizer is torch.optim.SGD else {"plain", "preconditioned"}
    assert {sample.metric for sample in plain} == metrics
    assert [sample.step for sample in plain if sample.metric == "plain"] == list(range(6))
