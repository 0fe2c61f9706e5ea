"""Batches of a changing size in a loop of one's own: counted by hand, gone on with, and led by real gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import BatchSampler, DataLoader, TensorDataset

import rightbatch
from rightbatch.adaptive_sampler import AdaptiveBatchSampler
from rightbatch.controllers import Choice, Goodput, InnerProductTest, Limits, NoiseFollowing, NormTest, Planned

PLAN = "10@64, 20@150*2, 5@300"


def optimizer_of(model: nn.Module | None = None) -> torch.optim.SGD:
    parameters = model.parameters() if model is not None else [nn.Parameter(torch.zeros(1))]
    return torch.optim.SGD(parameters, lr=0.05)


def order(examples: int, seed: int) -> list[int]:
    return torch.randperm(examples, generator=torch.Generator().manual_seed(seed)).tolist()


def trained(batches: AdaptiveBatchSampler, optimizer: torch.optim.Optimizer, steps: int) -> Iterator[tuple[Any, ...]]:
    """Each batch with what was in force when it was trained on."""
    while steps:
        for batch in batches:
            yield batch, batches.batch_size, optimizer.param_groups[0]["lr"]
            optimizer.step()
            steps -= 1
            if not steps:
                return


def test_sizes_and_rates_are_those_planned_and_passes_are_cut_as_they_come() -> None:
    optimizer = optimizer_of()
    batches = AdaptiveBatchSampler(Planned(PLAN), optimizer, 50, batch_size=8, seed=7)
    found = list(trained(batches, optimizer, 40))

    schedule, seen, epoch, left = Planned(PLAN).schedule(8), 0, 0, order(50, 7)
    for batch, size, rate in found:
        phase = schedule.at(seen)
        if len(left) < phase.batch_size:
            epoch, left = epoch + 1, order(50, 8 + epoch)
        assert (batch, size, rate) == (left[: phase.batch_size], phase.batch_size, 0.05 * phase.rate_factor)
        seen, left = seen + size, left[size:]
    assert (batches.examples, batches.steps, batches.epoch) == (seen, 40, epoch)


@pytest.mark.parametrize("drop_last", [True, False])
def test_one_size_is_as_a_batch_sampler_of_pytorch(drop_last: bool) -> None:
    optimizer = optimizer_of()
    batches = AdaptiveBatchSampler(Planned(""), optimizer, 50, batch_size=8, drop_last=drop_last, seed=3)
    for epoch in range(3):
        plain = BatchSampler(order(50, 3 + epoch), 8, drop_last)
        assert len(batches) == len(plain)
        found = []
        for batch in batches:
            found.append(batch)
            optimizer.step()
        assert found == list(plain)
    assert batches.epoch == 3
    assert batches.examples == (144 if drop_last else 150)


@pytest.mark.parametrize("after", range(0, 41))
def test_it_goes_on_where_it_was(after: int) -> None:
    def made() -> tuple[torch.optim.Optimizer, Any, AdaptiveBatchSampler]:
        optimizer = optimizer_of()
        schedule = lr_scheduler.CosineAnnealingLR(optimizer, 60)
        return optimizer, schedule, AdaptiveBatchSampler(Planned(PLAN), optimizer, 50, batch_size=8, schedule=schedule)

    optimizer, _, batches = made()
    whole = list(trained(batches, optimizer, 45))
    optimizer, schedule, batches = made()
    first = list(trained(batches, optimizer, after)) if after else []
    saved = [part.state_dict() for part in (optimizer, schedule, batches)]
    optimizer, schedule, batches = made()
    for part, state in zip((optimizer, schedule, batches), saved, strict=True):
        part.load_state_dict(state)
    assert [*first, *trained(batches, optimizer, 45 - after)] == whole


def test_a_schedule_has_seen_the_examples_that_it_would_have_seen() -> None:
    optimizer = optimizer_of()
    schedule = lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    batches = AdaptiveBatchSampler(Planned("16@80, 4@240"), optimizer, 50, batch_size=8, schedule=schedule)
    for _, _, rate in trained(batches, optimizer, 50):
        assert rate == pytest.approx(0.05 / (1 + batches.examples // 8))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_reads_every_example_once_a_pass(workers: int) -> None:
    optimizer = optimizer_of()
    batches = AdaptiveBatchSampler(Planned("16@40"), optimizer, 50, batch_size=5, drop_last=False)
    loader = DataLoader(TensorDataset(torch.arange(50)), batch_sampler=batches, num_workers=workers)
    for epoch in range(2):
        read: list[int] = []
        for (numbers,) in loader:
            read += numbers.tolist()
            optimizer.step()
            assert batches.examples == 50 * epoch + len(read)
        assert sorted(read) == list(range(50))
        assert batches.epoch == epoch + 1
    assert batches.batch_size == 16


def test_batches_follow_the_gradients_of_a_training() -> None:
    torch.manual_seed(0)
    x = torch.randn(2000, 10)
    y = (x[:, :5].sum(1) > 0).float()
    model = nn.Linear(10, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    monitor = rightbatch.NoiseScale(model, optimizer, overhead=float("inf"))
    limits = Limits(8, 1000, most_change=1.5)
    batches = AdaptiveBatchSampler(
        NoiseFollowing(memory_examples=2000, limits=limits), optimizer, 2000, batch_size=16, monitor=monitor
    )
    loader = DataLoader(TensorDataset(x, y), batch_sampler=batches)
    sizes = []
    for _ in range(20):
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(model(inputs)[:, 0], labels)
            batches.saw(loss)
            loss.backward()
            optimizer.step()
            sizes.append(batches.batch_size)
    early, late = sizes[: len(sizes) // 10], sizes[-len(sizes) // 10 :]
    assert sum(late) / len(late) > 2 * sum(early) / len(early)  # gradients agree less and less
    assert 8 <= min(sizes) <= max(sizes) <= 1000


def test_losses_are_told() -> None:
    optimizer, told = optimizer_of(), []

    class Listener:
        limits = Limits()
        needs: frozenset[Any] = frozenset({"loss"})

        def begin(self) -> dict[str, Any]:
            return {}

        def choose(self, state: Any, seen: Any) -> Any:
            told.append(seen.loss)
            return Choice(seen.batch_size), state

    batches = AdaptiveBatchSampler(Listener(), optimizer, 50, batch_size=10)  # type: ignore[arg-type]
    for k, _ in enumerate(batches):
        if k != 1:
            batches.saw(torch.tensor(float(k)))
            batches.saw(k + 1.0)
        optimizer.step()
    assert told == [None, 0.5, None, 2.5, 3.5, 4.5]


def test_what_is_missing_or_too_large_is_said() -> None:
    optimizer = optimizer_of()
    for controller, words in (
        (NormTest(), r"add monitor=NoiseScale\(model, optimizer\)\."),
        (InnerProductTest(), "inner_products=True"),
        (Goodput(), "seconds"),
    ):
        with pytest.raises(rightbatch.InputError, match=words):
            AdaptiveBatchSampler(controller, optimizer, 50, batch_size=8)
    with pytest.raises(rightbatch.InputError, match="from 1 to 50 examples"):
        AdaptiveBatchSampler(Planned(""), optimizer, 50, batch_size=51)
    batches = AdaptiveBatchSampler(Planned("80@10"), optimizer, 50, batch_size=10)
    optimizer.step()
    assert batches.batch_size == 50  # of a plan for more data than there is, all of it


def test_after_closing_no_step_counts() -> None:
    optimizer = optimizer_of()
    batches = AdaptiveBatchSampler(Planned(""), optimizer, 50, batch_size=10)
    batches.close()
    optimizer.step()
    assert batches.steps == 0
