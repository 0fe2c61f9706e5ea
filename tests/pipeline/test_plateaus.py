"""A plateau on which every run stays for a while, as recurrent networks do, is no floor: the search goes beyond it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import rightbatch
from rightbatch.loops import Loop, LoopTrial
from rightbatch.records import Point

SIZES = (8, 32, 128)


def way(batch_size: int, learning_rate: float) -> float:
    """What a step brings: more with the rate, until noise takes it back, which it does later for a larger batch."""
    return learning_rate / (1 + (learning_rate / (0.02 * math.sqrt(batch_size))) ** 2)


def loss(gone: float) -> float:
    """Down to 0.5 at once, and further only after a long way."""
    return 0.1 + 0.5 * math.exp(-2 * gone) + 0.4 / (1 + (gone / 20) ** 4)


def plateau(planned_examples: int) -> Loop:
    def train(trial: LoopTrial) -> Iterator[Point]:
        noise, gone = np.random.default_rng(trial.seed), 0.0
        for step in range(1, 4_000_000 // trial.batch_size):
            gone += way(trial.batch_size, trial.learning_rate) * noise.uniform(0.95, 1.05)
            if trial.due(step):
                yield Point(step, valid_loss=loss(gone) + noise.normal(0, 0.002))

    return Loop(train, name="plateau", present=(32, 0.01), planned_examples=planned_examples, target=0.2)


@pytest.mark.parametrize("planned_examples", [0, 400_000])
def test_the_best_size_beyond_a_plateau_is_found(planned_examples: int, tmp_path: Path) -> None:
    answer = rightbatch.find(
        plateau(planned_examples), study=tmp_path / "p.study.db", batch_sizes=SIZES, objective="steps"
    )
    best = max(way(size, 10 ** (k / 4)) for size in SIZES for k in range(-16, 5))
    assert answer.batch_size == 128
    assert way(answer.batch_size, answer.learning_rate) > 0.8 * best
    # Sizes that were not trained are expected to go beyond it as well: at the target they have gone 26 in all.
    told = {row.batch_size: row.cost.estimate for row in answer.sizes if row.cost is not None}
    needed = {size: 26 / max(way(size, 10 ** (k / 4)) for k in range(-16, 5)) for size in SIZES}
    assert all(told[size] < 5 * needed[size] for size in SIZES)
