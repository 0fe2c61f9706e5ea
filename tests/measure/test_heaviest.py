"""The batches that memory is measured with are the heaviest of the data, and what a model keeps is counted."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from rightbatch.batches import as_source
from rightbatch.measure.activations import blocks_of, parts_of
from rightbatch.measure.heaviest import elements, heaviest_first
from rightbatch.records import Trial
from rightbatch.stepping import Stepper
from rightbatch.streams import RandomStreams
from rightbatch.workload import Workload

CPU = torch.device("cpu")
LENGTHS = [3, 9, 1, 7, 9, 2, 8, 4]


class Sentences:
    def __len__(self) -> int:
        return len(LENGTHS)

    def __getitem__(self, k: int) -> torch.Tensor:
        return torch.full((LENGTHS[k],), k)


def padded(examples: list[torch.Tensor]) -> torch.Tensor:
    return nn.utils.rnn.pad_sequence(examples, batch_first=True, padding_value=-1)


def test_a_batch_has_the_longest_sequences() -> None:
    source = heaviest_first(as_source(Sentences(), device=CPU, collate=padded))
    batches = source.epoch(3, torch.Generator())
    for _ in range(2):  # as often as they are asked for
        assert sorted(next(batches)[:, 0].tolist()) == [1, 4, 6]
    assert next(source.epoch(8, torch.Generator())).shape == (8, 9)
    assert len(source) == 8


def test_of_a_loader_its_heaviest_batch_is_taken() -> None:
    def loader(batch_size: int, seed: int) -> list[torch.Tensor]:
        return [torch.zeros(batch_size, length) for length in (4, 9, 6)]

    source = heaviest_first(as_source(loader, device=CPU, examples=6))
    batches = source.epoch(2, torch.Generator())
    assert [tuple(next(batches).shape) for _ in range(3)] == [(2, 9)] * 3


def test_tensors_are_all_alike() -> None:
    source = as_source(torch.zeros(10, 3), device=CPU)
    assert heaviest_first(source) is source


@pytest.mark.parametrize(
    ("example", "count"),
    [(torch.zeros(2, 3), 6), ({"a": torch.zeros(4), "b": [1, 2]}, 6), (("word", torch.zeros(2)), 6), (7, 1)],
)
def test_elements_are_counted(example: Any, count: int) -> None:
    assert elements(example) == count


class Model(nn.Module):
    """Two blocks that each keep the output of a sigmoid of 1,000 numbers an example."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Wide(), Wide()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * torch.sigmoid(x.unsqueeze(1).expand(-1, 1000) + self.scale).mean(1)


def test_what_is_kept_for_the_backward_pass_is_counted() -> None:
    x = torch.linspace(-1, 1, 64)
    work = Workload(
        name="kept", model=Model, data=x, valid=x, loss=lambda model, batch: model(batch).square(),
        optimizer=lambda parameters, trial: torch.optim.Adam(parameters, trial.learning_rate), planned_examples=64,
    )  # fmt: skip
    with RandomStreams(0).active():
        stepper = Stepper(work, Trial(16, 0.1, 0, 64))
        stepper.run(1)
        parts = parts_of(stepper)
    assert parts.kept_bytes == pytest.approx(2 * 4000, rel=0.01)  # and a few single numbers
    assert parts.kept_with_checkpoints_bytes == pytest.approx(4000, rel=0.02)
    assert (parts.model_bytes, parts.gradient_bytes) == (8, 8)
    assert parts.optimizer_bytes == 2 * (4 + 4 + 4)  # two moments and a counter of each parameter
    assert parts.normalising == ()


def test_blocks_are_the_members_of_the_longest_list() -> None:
    model = Model()
    assert blocks_of(model) == list(model.blocks)
    assert [type(block) for block in blocks_of(nn.Sequential(nn.Linear(2, 2), nn.Tanh()))] == [nn.Linear, nn.Tanh]
