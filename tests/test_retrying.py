"""A training that runs out of memory goes on with smaller micro-batches, and becomes the same model."""

from __future__ import annotations

import gc
import logging
import sys
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.nn import functional

import rightbatch
from rightbatch.errors import InputError
from rightbatch.retrying import Attempt, attempts, within_memory

BATCH, STEPS = 48, 6
DATA = torch.randn(BATCH * STEPS, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Small(RuntimeError):
    """What an allocator says that has no more than so many examples' worth of memory."""

    def __init__(self) -> None:
        super().__init__("DefaultCPUAllocator: can't allocate memory: you tried to allocate 12345 bytes.")


class Device:
    """Runs out of memory in passes of more than `room` examples."""

    def __init__(self, room: int) -> None:
        self.room, self.passes = room, 0

    def loss(self, model: nn.Module, batch: Any) -> Any:
        if len(batch) > self.room:
            raise Small
        self.passes += 1
        return functional.mse_loss(model(batch), batch.flip(1), reduction="none").mean(1)


def built() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 5)).double()
    return model, torch.optim.Adam(model.parameters(), 0.01)


def plain() -> list[Any]:
    model, optimizer = built()
    for batch in DATA.split(BATCH):
        optimizer.zero_grad()
        Device(BATCH).loss(model, batch).mean().backward()
        optimizer.step()
    return list(model.parameters())


def assert_same(one: Any, other: Any) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("room", [48, 47, 16, 5, 1])
def test_a_step_that_runs_out_of_memory_is_made_in_smaller_passes(room: int) -> None:
    device, (model, optimizer) = Device(room), built()
    for attempt in attempts(BATCH):
        with attempt:
            for batch in DATA.split(BATCH):
                optimizer.zero_grad()
                attempt.backward(device.loss, model, batch)
                optimizer.step()
    assert attempt.micro_batch_size <= room
    assert attempt.micro_batch_size > room / 2  # not halved again and again
    assert_same(model.parameters(), plain())


def test_what_was_trained_is_kept_when_the_function_is_called_again() -> None:
    called: list[tuple[int, int]] = []

    @within_memory(BATCH)
    def train(attempt: Attempt, room: int) -> nn.Module:
        model, optimizer = built()
        done = attempt.resume(model=model, optimizer=optimizer) or 0
        called.append((attempt.micro_batch_size, done))
        for step, batch in enumerate(DATA.split(BATCH)):
            if step < done:
                continue
            if step == 3 and attempt.micro_batch_size > room:
                raise Small
            optimizer.zero_grad()
            attempt.backward(Device(BATCH).loss, model, batch)
            optimizer.step()
            attempt.save(step + 1, model=model, optimizer=optimizer)
        return model

    assert_same(train(20).parameters(), plain())
    assert called == [(48, 0), (24, 3), (16, 3)]


def test_each_retry_is_told(caplog: pytest.LogCaptureFixture) -> None:
    model, _ = built()
    with caplog.at_level(logging.WARNING, "rightbatch"):
        for attempt in attempts(BATCH):
            with attempt:
                attempt.backward(Device(24).loss, model, DATA[:BATCH])
    (record,) = caplog.records
    assert record.getMessage() == (
        "Out of memory with micro-batches of 48. Next: 2 passes of at most 24 for each batch of 48; the rate, the "
        "schedule and the number of steps stay as they are."
    )


def test_it_ends_at_the_smallest_and_says_so() -> None:
    model, _ = built()

    @within_memory(BATCH, smallest=10)
    def train(attempt: Attempt) -> None:
        attempt.backward(Device(3).loss, model, DATA[:BATCH])

    with pytest.raises(Small) as raised:
        train()
    assert raised.value.__notes__ == ["rightbatch: micro-batches of 12 of a batch of 48 are the smallest."]


def test_other_errors_pass() -> None:
    tried: list[int] = []

    @within_memory(BATCH)
    def train(attempt: Attempt) -> float:
        tried.append(attempt.micro_batch_size)
        return 1 / (attempt.micro_batch_size - BATCH)

    with pytest.raises(ZeroDivisionError):
        train()
    assert tried == [BATCH]


def test_buffers_are_moved_once_a_step() -> None:
    """The running means of BatchNorm are not those of passes that were given up."""
    model = nn.Sequential(nn.BatchNorm1d(5)).double()
    fails = [True]

    def loss(model: nn.Module, batch: Any) -> Any:
        out = model(batch).square().sum(1)
        if fails:
            fails.clear()
            raise Small
        return out

    for attempt in attempts(BATCH):
        with attempt:
            attempt.backward(loss, model, DATA[:BATCH])
    assert model[0].num_batches_tracked == attempt.accumulation_steps == 2


def test_it_begins_where_it_is_told() -> None:
    for attempt in attempts(BATCH, micro_batch_size=10):
        with attempt:
            assert (attempt.accumulation_steps, attempt.micro_batch_size) == (5, 10)
    with pytest.raises(InputError, match="at least 1"):
        next(iter(attempts(0)))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit of data is Linux's")
def test_on_a_cpu_an_allocation_beyond_the_limit_fails_instead_of_the_process() -> None:
    from rightbatch.memory_room import held_bytes

    held: list[int] = []
    gc.collect()  # what earlier tests left would be given back meanwhile, and be room
    for attempt in attempts(64, limit=held_bytes() + 768 * 2**20):
        with attempt:
            torch.empty(attempt.micro_batch_size, 2**22)  # 16 MB an example: 64 are 256 MB too many, 32 as much below
            held.append(attempt.micro_batch_size)
    assert held == [32]
    assert torch.empty(64, 2**22).numel() == 2**28  # the limit is gone


def test_it_is_public() -> None:
    assert rightbatch.attempts is attempts
    assert rightbatch.within_memory is within_memory
