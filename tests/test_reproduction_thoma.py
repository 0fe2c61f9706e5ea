"""What the reproduction of Thoma rests on: when trainings stop, the law of seconds, tuned rates, what is trained."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from rightbatch import LoopTrial, Point, Run, Stop, StopReason, Trial
from rightbatch.loading import as_module

FOLDER = Path(__file__).parents[1] / "reproductions"
thoma = as_module(FOLDER / "thoma.py", "thoma_of_tests")()
told = sys.modules["_thoma_told"]
net = as_module(FOLDER / "_thoma_net.py", "thoma_net_of_tests")()


class Kept:
    """A store that keeps nothing."""

    folder = Path()

    def unit(self, _: str, work: Callable[[], Any]) -> Any:
        return work()


def training(batch_size: int, seed: int, valid: list[float]) -> dict[str, Any]:
    return {"batch_size": batch_size, "seed": seed, "valid": valid, "test": list(np.maximum.accumulate(valid))}


def test_a_training_stops_when_ten_epochs_brought_nothing() -> None:
    """Against a count by hand, as Keras counts."""
    generator = np.random.default_rng(0)
    for _ in range(20):
        valid = list(np.cumsum(generator.normal(0.05, 1, 200)))
        best, waited, expected = -math.inf, 0, len(valid)
        for epoch, value in enumerate(valid, start=1):
            best, waited = (value, 0) if value > best else (best, waited + 1)
            if waited == 10:
                expected = epoch
                break
        assert told.stopped(valid, 10) == expected


def test_accuracy_is_that_of_the_best_epoch_before_the_stop() -> None:
    one = training(8, 0, [0.1, 0.3, 0.2, 0.2, 0.2, 0.9])
    assert told.accuracies([one], 3) == [pytest.approx(30.0)]
    assert told.accuracies([one], 5) == [pytest.approx(90.0)]


def test_a_law_has_no_misfit_and_a_doubled_time_has() -> None:
    sizes = np.array([8.0, 16, 32, 64, 128, 512])
    seconds = 2.0 + 20 / sizes
    assert told.furthest(sizes, seconds) == pytest.approx(0.0, abs=1e-12)
    assert told.furthest(sizes, seconds * np.array([1, 1, 1, 2, 1, 1])) > 0.3


def test_patience_is_as_long_in_steps_or_in_seconds() -> None:
    measured = {
        "patience": 10,
        "train_examples": 6000,
        "epoch_seconds": {"8": [5.0] * 3, "16": [4.0] * 3, "512": [2.0] * 3},
    }
    assert told.patience_of(measured, 16, "steps") == told.patience_of(measured, 16, "seconds") == 10
    assert told.patience_of(measured, 8, "steps") == 5
    assert told.patience_of(measured, 512, "steps") == math.ceil(3750 / 12)
    assert told.patience_of(measured, 8, "seconds") == 8
    assert told.patience_of(measured, 512, "seconds") == 20


def test_a_training_that_was_interrupted_is_not_counted_beside_the_one_that_was_made_again() -> None:
    def run(seed: int, reason: StopReason, *values: float) -> Run:
        points = tuple(Point(k, valid_metric=value, test_metric=value) for k, value in enumerate(values))
        return Run(Trial(16, 1e-3, seed), points, Stop(reason))

    runs = [
        run(0, StopReason.INTERRUPTED, 0.01, 0.2),
        run(0, StopReason.STOPPED_BY_RULE, 0.01, 0.2, 0.3),
        run(1, StopReason.STOPPED_BY_RULE, 0.01, 0.25),
        run(2, StopReason.FINISHED, 0.01, 0.9),
    ]
    found = told.of_runs(runs, (16,), 1e-3, (0, 1))
    assert [(one["seed"], one["valid"]) for one in found] == [(0, [0.2, 0.3]), (1, [0.25])]


def test_a_long_patience_is_that_of_trainings_that_were_long() -> None:
    short, long = [0.3] + [0.2] * 10, [0.3] + [0.2] * 40 + [0.5] + [0.2] * 80
    measured = {
        "patience": 10,
        "train_examples": 6000,
        "one_rate": [training(128, seed, short) for seed in range(10)],
        "steady": [training(128, seed, long) for seed in range(5, 10)],
    }
    assert told.as_patient(measured, 128, "steps") == pytest.approx([50.0] * 5)
    # In seconds it is 20 epochs here: also of those that stopped then.
    measured |= {"epoch_seconds": {"16": [4.0], "128": [2.0]}, "longer": [training(128, 4, short)]}
    assert told.as_patient(measured, 128, "seconds") == pytest.approx([30.0] * 6)


@pytest.mark.parametrize(("best", "at_edge"), [(1e-3, False), (1e-2, False), (1.0, True), (1e-4, False)])
def test_rates_are_widened_until_the_best_is_inside(
    monkeypatch: pytest.MonkeyPatch, best: float, at_edge: bool
) -> None:
    def made(
        _: Path, size: str, sizes: tuple[int, ...], rate: float, seeds: Sequence[int], patience: int
    ) -> list[dict[str, Any]]:
        return [training(b, seed, [0.5 - 0.1 * abs(math.log10(rate / best))]) for b in sizes for seed in seeds]

    monkeypatch.setattr(thoma, "curves_of", made)
    known = made(Path(), "small", (8, 64), 1e-3, range(10), 10)
    found = thoma.tuned(Kept(), "small", 64, 1e-3, known)
    assert found["at_edge"] is at_edge
    if not at_edge:
        assert abs(math.log10(found["rate"] / best)) < 0.26
    assert [one["seed"] for one in found["runs"]] == list(thoma.JUDGED_BY)
    assert all(one["batch_size"] == 64 for one in found["runs"])


def test_nothing_is_told_of_a_size_whose_best_rate_is_the_last_one() -> None:
    runs = [training(8, seed, [0.3 + 0.01 * seed]) for seed in range(5)]
    of = {"rate": 1e-3, "at_edge": False, "runs": runs}
    tuned = {b: of for b in ("8", "16", "128")} | {"512": {**of, "at_edge": True}}
    found = told.of_tuned({"tuned": tuned, "patience": 10})
    assert found["16 over 512, tuned"] is None
    assert found["16 over 8, tuned"].estimate == 0.0


def test_the_whole_network_has_about_the_million_weights_of_the_thesis() -> None:
    assert sum(p.numel() for p in net.network(1).parameters()) == pytest.approx(1.0e6, rel=0.06)


def test_images_are_split_by_class_and_apart() -> None:
    labels = torch.arange(100).repeat(20)[torch.randperm(2000, generator=torch.Generator().manual_seed(0))]
    train, valid = net.stratified(labels, 12, 3)
    assert not set(train.tolist()) & set(valid.tolist())
    assert torch.equal(labels[train].bincount(), torch.full((100,), 12))
    assert torch.equal(labels[valid].bincount(), torch.full((100,), 3))


def test_drawn_images_are_shifted_and_mirrored_pixels() -> None:
    image = torch.arange(32 * 32 * 3, dtype=torch.int32).reshape(1, 32, 32, 3)
    wide = net.widened(image)
    batch = net.drawn(wide, torch.zeros(50, dtype=torch.long), torch.Generator().manual_seed(0))
    places = range(2 * net.SHIFT + 1)
    windows = {
        tuple(net.scaled(seen).flatten().tolist())
        for r in places
        for c in places
        for window in (wide[:, r : r + 32, c : c + 32],)
        for seen in (window, window.flip(2))
    }
    seen = [tuple(one.flatten().tolist()) for one in batch]
    assert set(seen) <= windows
    assert len(set(seen)) > 20


def test_two_trainings_with_one_seed_are_one_and_with_two_are_two() -> None:
    generator = torch.Generator().manual_seed(0)

    def images(n: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        return (
            torch.randint(256, (n, width, width, 3), generator=generator, dtype=torch.uint8),
            torch.randint(100, (n,), generator=generator),
        )

    data = net.Images(images(33, 32 + 2 * net.SHIFT), images(20, 32), images(20, 32))

    def curve(seed: int) -> list[float | None]:
        torch.manual_seed(seed)
        return [point.train_loss for point in net.trained(LoopTrial(Trial(16, 1e-3, seed)), data, 8, 2)]

    assert curve(0) == curve(0) != curve(1)
