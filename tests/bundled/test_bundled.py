"""Every workload that ships is made, and trains."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from rightbatch.bundled import WORKLOADS
from rightbatch.engine import WorkloadRunner
from rightbatch.records import Point, Trial

FACTS = {
    "digits": (1437, 360, "SGD momentum 0.9", 0.15),
    "fashion_mnist:mlp": (55_000, 5000, "SGD momentum 0.9", 0.86),
    "fashion_mnist:cnn": (55_000, 5000, "SGD momentum 0.9", 0.88),
    "quadratic": (1 << 16, 1, "SGD", 0.05),
}
PARAMETERS = {"digits": 19_210, "fashion_mnist:mlp": 101_770, "fashion_mnist:cnn": 26_698, "quadratic": 64}


def made(name: str):
    if name.startswith("fashion_mnist"):
        folder = os.environ.get("RIGHTBATCH_DATA")
        if not folder or not (Path(folder) / "fashion-mnist").is_dir():
            pytest.skip("RIGHTBATCH_DATA names no folder with fashion-mnist")
    return WORKLOADS[name].make()


@pytest.mark.parametrize("name", WORKLOADS)
def test_it_is_made_and_learns_over_two_rungs(name):
    workload = made(name)
    runner = WorkloadRunner(workload)
    facts = runner.facts
    assert facts.name == name
    assert (facts.train_examples, facts.valid_examples, facts.optimizer, facts.target) == FACTS[name]

    size, rate = workload.present
    run = runner.start(Trial(size, rate, 0))
    assert sum(parameter.numel() for parameter in run.model.parameters()) == PARAMETERS[name]
    start, first, second = (run.advance() for _ in range(3))
    assert all(isinstance(point, Point) for point in (start, first, second))
    assert 0 == start.step < first.step < second.step
    assert second.valid_loss < start.valid_loss
    assert second.train_loss < start.valid_loss


@pytest.mark.parametrize("name", ["digits", "fashion_mnist:mlp"])
def test_training_and_validation_examples_do_not_overlap(name):
    """Images that are published twice aside: a handful of Fashion-MNIST's are."""
    workload = made(name)
    train = {image.numpy().tobytes() for image in workload.data[0]}
    shared = sum(image.numpy().tobytes() in train for image in workload.valid[0])
    assert shared <= 0.002 * len(workload.valid[0])


def test_digits_are_the_published_ones():
    workload = WORKLOADS["digits"].make()
    labels = torch.cat([workload.data[1], workload.valid[1]])
    assert torch.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    images = torch.cat([workload.data[0], workload.valid[0]])
    assert images.shape == (1797, 64)
    assert (images.min(), images.max()) == (0, 1)


def test_a_split_is_the_same_each_time():
    one, other = WORKLOADS["digits"].make(), WORKLOADS["digits"].make()
    assert torch.equal(one.data[0], other.data[0])
    assert torch.equal(one.valid[1], other.valid[1])
