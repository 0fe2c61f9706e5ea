"""Every workload that ships is made, trains, and goes on where it was saved."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from rightbatch.bundled import WORKLOADS
from rightbatch.engine import WorkloadRunner
from rightbatch.records import Point, Trial
from rightbatch.workload import Workload


@dataclass(frozen=True)
class Expected:
    """What is known of a workload: a file that it needs, sizes, optimizer, target, number of parameters."""

    file: str
    train_examples: int
    valid_examples: int
    optimizer: str
    target: float
    parameters: int


FASHION, SHAKESPEARE = "fashion-mnist/train-images-idx3-ubyte.gz", "tinyshakespeare/input.txt"
EXPECTED = {
    "digits": Expected("", 1437, 360, "SGD momentum 0.9", 0.15, 19_210),
    "fashion_mnist:mlp": Expected(FASHION, 55_000, 5000, "SGD momentum 0.9", 0.86, 101_770),
    "fashion_mnist:cnn": Expected(FASHION, 55_000, 5000, "SGD momentum 0.9", 0.88, 26_698),
    "mnist:f1": Expected("mnist/train-images-idx3-ubyte.gz", 55_000, 5000, "Adam", 0.97, 1_462_794),
    "cifar100": Expected("cifar100/cifar100-15k.npz", 12_000, 3000, "SGD momentum 0.9", 0.25, 49_396),
    "char_lm:gru": Expected(SHAKESPEARE, 15_685, 500, "AdamW", 1.8, 87_041),
    "char_lm:lstm": Expected(SHAKESPEARE, 15_685, 500, "AdamW", 1.8, 111_873),
    "char_lm:transformer": Expected(SHAKESPEARE, 15_685, 500, "AdamW", 1.95, 112_577),
    "wikitext2": Expected("wikitext2/wiki.train.tokens", 11_428, 500, "SGD", 45, 390_096),
    "tabular:wine": Expected("uci/winequality-white.csv", 4000, 898, "SGD momentum 0.9", 0.62, 4993),
    "tabular:protein": Expected("uci/CASP.csv", 40_000, 5730, "SGD momentum 0.9", 0.52, 4865),
    "tabular:a9a": Expected("libsvm/a9a", 28_000, 4561, "SGD", 0.325, 248),
    "tabular:a9a-emso": Expected("libsvm/a9a", 28_000, 4561, "EMSO", 0.325, 248),
    "letter": Expected("tabular/letter-recognition.data", 16_000, 4000, "SGD momentum 0.9", 0.93, 22_042),
    "quadratic": Expected("", 1 << 16, 1, "SGD", 0.05, 64),
}


@functools.cache
def kept(name: str) -> Workload:
    return WORKLOADS[name].make()


def made(name: str) -> Workload:
    """The workload, read once for all tests; a test whose data is not here is skipped."""
    file, folder = EXPECTED[name].file, os.environ.get("RIGHTBATCH_DATA")
    if file and (not folder or not (Path(folder) / file).is_file()):
        pytest.skip(f"RIGHTBATCH_DATA names no folder with {file}")
    return kept(name)


def small(name: str) -> WorkloadRunner:
    """The workload, judged on sixty examples, so that these tests stay short."""
    return WorkloadRunner(replace(made(name), evaluation_examples=60, test=None))


def tiny(workload: Workload) -> Trial:
    """At what people train with now, for 15 steps."""
    size, rate = workload.present
    return Trial(size, rate, 0, 15 * size)


def timeless(run, points: int) -> list[Point]:
    """The next points without their seconds, which are measured."""
    return [replace(run.advance(), seconds=0.0) for _ in range(points)]


def test_the_table_and_what_is_expected_of_it_name_the_same_workloads():
    assert list(EXPECTED) == list(WORKLOADS)


@pytest.mark.parametrize("name", WORKLOADS)
def test_its_facts_are_complete(name):
    workload, expected = made(name), EXPECTED[name]
    facts = workload.facts()
    full = Path(os.environ.get("RIGHTBATCH_DATA", "")) / "cifar100" / "cifar-100-python.tar.gz"
    if name == "cifar100" and full.is_file():
        assert (facts.name, facts.train_examples, facts.valid_examples) == ("cifar100", 45_000, 5000)
    else:
        assert facts.name == ("cifar100:15k" if name == "cifar100" else name)
        assert (facts.train_examples, facts.valid_examples) == (expected.train_examples, expected.valid_examples)
    assert (facts.optimizer, facts.target) == (expected.optimizer, expected.target)
    assert facts.present is not None
    assert facts.planned_examples >= 4 * facts.train_examples - facts.train_examples // 1000
    assert not facts.length_bound
    assert sum(parameter.numel() for parameter in workload.model().parameters()) == expected.parameters


@pytest.mark.parametrize("name", WORKLOADS)
def test_it_learns_and_two_starts_are_the_same_run(name):
    runner = small(name)
    trial = tiny(runner.workload)
    points = timeless(runner.start(trial), 16)
    assert [point.step for point in points] == list(range(16))
    assert points[-1].valid_loss < points[0].valid_loss
    assert points[-1].train_loss < points[0].valid_loss
    torch.manual_seed(1)
    assert timeless(runner.start(trial), 3) == points[:3]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_saved_run_goes_on_to_the_bit(name):
    runner = small(name)
    trial = tiny(runner.workload)
    run = runner.start(trial)
    timeless(run, 3)  # in the middle of a pass
    state = run.save()
    assert timeless(runner.start(trial, state), 3) == timeless(run, 3)


def rows_in(data: torch.Tensor | tuple[torch.Tensor, ...]) -> list[bytes]:
    inputs = data if isinstance(data, torch.Tensor) else data[0]
    return [row.tobytes() for row in inputs.numpy()]


APART = ("cifar100", "char_lm:gru", "tabular:wine", "tabular:protein", "tabular:a9a", "letter")


@pytest.mark.parametrize("name", APART)
def test_no_validation_example_is_in_the_training_data(name):
    workload = made(name)
    train = set(rows_in(workload.data))
    assert not train.intersection(rows_in(workload.valid))
    if workload.test is not None:
        assert not train.intersection(rows_in(workload.test))


@pytest.mark.parametrize("name", ["digits", "fashion_mnist:mlp"])
def test_a_random_split_has_few_examples_on_both_sides(name):
    """Images that are published twice aside: a handful of Fashion-MNIST's are."""
    workload = made(name)
    train = set(rows_in(workload.data))
    shared = sum(row in train for row in rows_in(workload.valid))
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


@pytest.mark.parametrize("name", ["tabular:wine", "tabular:protein", "letter"])
def test_tables_are_in_units_of_the_training_data(name):
    inputs = made(name).data[0]
    torch.testing.assert_close(inputs.mean(dim=0), torch.zeros(inputs.shape[1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(inputs.std(dim=0), torch.ones(inputs.shape[1]), atol=1e-4, rtol=0)


def test_a_transformer_sees_no_character_before_it_comes():
    model = made("char_lm:transformer").model()
    text = torch.arange(64)[None] % 65
    changed = text.clone()
    changed[0, 40:] = 7
    with torch.no_grad():
        torch.testing.assert_close(model(text)[:, :40], model(changed)[:, :40])
        assert not torch.allclose(model(text)[:, 40:], model(changed)[:, 40:])
