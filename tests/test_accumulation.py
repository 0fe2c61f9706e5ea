"""A batch that is accumulated from micro-batches is the same training as the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.nn import functional

from rightbatch.accumulation import accumulate, normalising_over_batch
from rightbatch.errors import WorkloadError
from rightbatch.parts import split
from rightbatch.records import Trial
from rightbatch.stepping import Stepper, accumulation_steps
from rightbatch.streams import RandomStreams
from rightbatch.workload import Workload

EXAMPLES, FEATURES, WORDS, LENGTH, STEPS = 96, 5, 11, 7, 20


def per_example(model: nn.Module, batch: Any) -> Any:
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def mean(model: nn.Module, batch: Any) -> Any:
    return per_example(model, batch).mean()


def tokens(model: nn.Module, batch: Any) -> Any:
    """The sum over tokens that are not masked, and how many they are: between 1 and 7 an example."""
    text, mask = batch
    losses = functional.cross_entropy(model(text).transpose(1, 2), (text + 1) % WORDS, reduction="none")
    return (losses * mask).sum(), mask.sum()


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.gru, self.out = nn.Embedding(WORDS, 4), nn.GRU(4, 6, batch_first=True), nn.Linear(6, WORDS)

    def forward(self, text: Any) -> Any:
        return self.out(self.gru(self.table(text))[0])


def dense(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), *middle, nn.Tanh(), nn.Linear(8, 3)).double()


def vectors() -> Any:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(EXAMPLES, FEATURES, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(3, (EXAMPLES,), generator=generator)


def texts() -> Any:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, LENGTH + 1, (EXAMPLES, 1), generator=generator)
    return torch.randint(WORDS, (EXAMPLES, LENGTH), generator=generator), torch.arange(LENGTH) < lengths


def workload(model: Callable[[], nn.Module], data: Any, loss: Any, optimizer: Any, **more: Any) -> Workload:
    return Workload(
        name="accumulated", model=model, data=data, valid=data, loss=loss,
        optimizer=lambda parameters, trial: optimizer(parameters, trial.learning_rate), planned_examples=960, **more,
    )  # fmt: skip


def trained(problem: Workload, batch_size: int, micro_batch_size: int | None) -> tuple[list[Any], float]:
    """Its parameters after 20 steps, and the mean of its losses."""
    random = RandomStreams(0)
    with random.active():
        stepper = Stepper(problem, Trial(batch_size, 0.05, 0, 960), micro_batch_size=micro_batch_size)
        loss = stepper.run(STEPS)
    return [parameter.detach() for parameter in stepper.judged.parameters()], loss


def momentum(parameters: Any, rate: float) -> Any:
    return torch.optim.SGD(parameters, rate, momentum=0.9)


def adam(parameters: Any, rate: float) -> Any:
    return torch.optim.Adam(parameters, rate)


CASES: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "losses of examples": (dense, vectors, per_example, {}),
    "scalar mean": (dense, vectors, mean, {}),
    "unequal token weights": (lambda: Words().double(), texts, tokens, {}),
    "clipped": (lambda: Words().double(), texts, tokens, {"max_gradient_norm": 0.1}),
    "averaged": (dense, vectors, per_example, {"averaging_examples": 200.0}),
}


@pytest.mark.parametrize("optimizer", [momentum, adam])
@pytest.mark.parametrize("micro_batch_size", [16, 13, 5, 1])
@pytest.mark.parametrize("case", CASES)
def test_it_is_the_training_of_the_whole_batch(case: str, micro_batch_size: int, optimizer: Any) -> None:
    model, data, loss, more = CASES[case]
    if case == "scalar mean" and micro_batch_size == 1:
        micro_batch_size = 2
    problem = workload(model, data(), loss, optimizer, **more)
    whole, whole_loss = trained(problem, 32, None)
    accumulated, accumulated_loss = trained(problem, 32, micro_batch_size)
    scale = max(float(parameter.abs().max()) for parameter in whole)
    for one, other in zip(whole, accumulated, strict=True):
        assert float((one - other).abs().max()) <= 1e-9 * scale  # the bar is 1e-6
    assert accumulated_loss == pytest.approx(whole_loss, rel=1e-9)


def test_averaging_the_means_of_micro_batches_would_be_another_training() -> None:
    """The mistake that true weights avoid: it can be seen in these data."""
    problem = workload(lambda: Words().double(), texts(), tokens, momentum)
    whole, _ = trained(problem, 32, None)

    def mean_of_part(model: nn.Module, batch: Any) -> Any:
        total, weight = tokens(model, batch)
        return total / weight

    wrong, _ = trained(workload(lambda: Words().double(), texts(), mean_of_part, momentum), 32, 5)
    assert max(float((one - other).abs().max()) for one, other in zip(whole, wrong, strict=True)) > 1e-4


def test_batchnorm_normalises_each_micro_batch_and_is_named() -> None:
    def model() -> nn.Module:
        return dense(nn.BatchNorm1d(8))

    problem = workload(model, vectors(), per_example, momentum)
    whole, accumulated = trained(problem, 32, None)[0], trained(problem, 32, 8)[0]
    assert max(float((one - other).abs().max()) for one, other in zip(whole, accumulated, strict=True)) > 1e-3
    assert normalising_over_batch(model()) == ["1"]
    assert normalising_over_batch(dense()) == []


def test_a_part_whose_tokens_are_all_masked_adds_nothing() -> None:
    model, (text, mask) = Words().double(), texts()
    mask = mask.clone()
    mask[:8] = False
    model.zero_grad()
    whole_total, whole_weight = tokens(model, (text[:24], mask[:24]))
    (whole_total / whole_weight).backward()
    wanted = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    found = accumulate(tokens, model, split((text[:24], mask[:24]), 3), model.parameters())
    assert float(found) == pytest.approx(float((whole_total / whole_weight).detach()))
    for one, parameter in zip(wanted, model.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)
    with pytest.raises(WorkloadError, match="nothing in it to learn from"):
        accumulate(tokens, model, [(text[:8], mask[:8])], model.parameters())


@pytest.mark.parametrize(
    ("batch_size", "micro", "steps"), [(32, None, 1), (32, 32, 1), (32, 31, 2), (33, 8, 5), (5, 1, 5)]
)
def test_there_are_no_more_parts_than_needed(batch_size: int, micro: int | None, steps: int) -> None:
    assert accumulation_steps(batch_size, micro) == steps
