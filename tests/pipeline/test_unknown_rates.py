"""`find` where nobody says with which rate a loop is trained, nor by which optimizer: it goes where the rates are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import rightbatch
from rightbatch.errors import InputError, InsufficientEvidence
from rightbatch.loops import Loop, LoopTrial
from rightbatch.records import Point


def quadratic(scale: float) -> Loop:
    """Noisy descent that is the same at a rate of r / scale, whatever the scale: the best is about 0.5 / scale."""

    def train(trial: LoopTrial) -> Iterator[Point]:
        curvatures, weights = np.array([1.0, 0.1]), np.array([1.0, 3.0])
        noise, rate = np.random.default_rng(trial.seed), scale * trial.learning_rate
        for step in range(1, 40_000 // trial.batch_size):
            slope = curvatures * weights + noise.normal(size=2) / np.sqrt(trial.batch_size)
            weights = np.clip(weights - rate * slope, -1e9, 1e9)
            if trial.due(step):
                yield Point(step, valid_loss=float(curvatures @ weights**2 / 2))

    return Loop(train, name=f"quadratic {scale:g}", train_examples=40_000, planned_examples=40_000, target=0.03)


@pytest.mark.parametrize("scale", [0.01, 1e3, 1e5])
def test_rates_far_from_the_first_one_are_found(scale: float, tmp_path: Path) -> None:
    path = tmp_path / "far.study.db"
    answer = rightbatch.find(quadratic(scale), study=path, batch_sizes=[8, 64], objective="steps", seeds=1)
    assert 0.1 < scale * answer.learning_rate < 2
    with rightbatch.Study.open(path) as kept:
        runs = kept.runs()
    assert len(runs) < 30
    # To where nothing is learned one goes but to find that out.
    assert sum(scale * run.trial.learning_rate < 0.01 for run in runs) < 12


@pytest.mark.parametrize(("present", "scale"), [((32, 0.001), 0.01), ((8, 100.0), 1.0)])
def test_a_present_rate_far_from_the_best_one_is_left(present: tuple[int, float], scale: float, tmp_path: Path) -> None:
    loop = replace(quadratic(scale), present=present)
    answer = rightbatch.find(loop, study=tmp_path / "p.study.db", batch_sizes=[8, 64], objective="steps", seeds=1)
    assert 0.1 < scale * answer.learning_rate < 2


def test_no_target_is_taken_from_a_rate_that_nobody_trains_with(tmp_path: Path) -> None:
    loop = quadratic(1.0)
    unsaid = Loop(loop.train, train_examples=40_000, planned_examples=40_000)
    with pytest.raises(InputError, match=r"Give --target, or --present"):
        rightbatch.find(unsaid, study=tmp_path / "none.study.db", batch_sizes=[8, 64])
    answer = rightbatch.find(
        Loop(loop.train, train_examples=40_000, planned_examples=40_000, present=(8, 0.1)),
        study=tmp_path / "present.study.db",
        batch_sizes=[8, 64],
        objective="steps",
        seeds=1,
    )
    assert "what batch size 8 at rate 0.1 reaches" in answer.target.origin


def resting(floor: float) -> Loop:
    """Noisy descent without an end, to a floor; no length is planned."""

    def train(trial: LoopTrial) -> Iterator[Point]:
        weight, noise = 5.0, np.random.default_rng(trial.seed)
        for step in itertools.count(1):
            weight -= trial.learning_rate * (weight + noise.normal() / np.sqrt(trial.batch_size))
            if trial.due(step):
                yield Point(step, valid_loss=floor + min(weight**2 / 2, 1e9))

    return Loop(train, name="resting", present=(8, 0.1), target=0.5)


def test_a_target_below_where_endless_runs_rest_is_told_to_be_out_of_reach(tmp_path: Path) -> None:
    path = tmp_path / "rest.study.db"
    with pytest.raises(InsufficientEvidence, match="have come to rest short of this one"):
        rightbatch.find(resting(1.0), study=path, batch_sizes=[8, 64], objective="steps")
    # The same loop with a target that it reaches is answered: it is not the length that is missing.
    assert rightbatch.find(resting(0.0), study=tmp_path / "reached.study.db", batch_sizes=[8, 64], objective="steps")
