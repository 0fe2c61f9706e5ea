"""`posterior`: trains once, measures, keeps it, and says what it means; the page and the table know of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner

import rightbatch
from rightbatch import Loop, plots
from rightbatch.cli import app
from rightbatch.errors import InputError, InsufficientEvidence
from rightbatch.fit.iterates import IterateTests
from rightbatch.records import Interval, Trial
from rightbatch.report.posterior import lines
from rightbatch.store import Study
from rightbatch.temperatures import Temperature

MAIN = """
from dataclasses import replace
from rightbatch.bundled.digits import digits

def make():
    return replace(digits(), name="short digits", planned_examples=3000, target=0.5)

def diverging():
    return replace(make(), name="diverging digits", present=(32, 1e12))
"""
FEW = ["--passes", "8", "--noise-examples", "50", "--examples", "200"]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my.py"
    path.write_text(MAIN, encoding="utf-8")
    return path


def run_cli(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments])
    return result.exit_code, result.output


def test_it_trains_once_and_keeps_what_it_measured(file: Path) -> None:
    code, said = run_cli("posterior", f"{file}:make", *FEW)
    assert code == 0, said
    assert "size 32 at rate 0.1 as a temperature" in said.replace("\n", "")
    for word in ("temperature", "seen", "optimal", "posterior of", "Rank-deficient: 8 samples"):
        assert word in said
    (study,) = file.parent.glob("*.study.db")
    with Study.open(study) as seen:
        runs, records = seen.runs(), seen.weights_records()
    assert len(runs) == 1
    code, again = run_cli("posterior", f"{file}:make", *FEW, "--json")
    found = json.loads(again)
    with Study.open(study) as seen:
        assert seen.runs() == runs
        assert seen.weights_records() == records  # nothing was trained or measured again
    assert found["parameters"] == 19210
    assert found["temperature"]["low"] < found["temperature"]["estimate"] < found["temperature"]["high"]
    longer = rightbatch.posterior(f"{file}:make", passes=9, noise_examples=50, examples=200)
    assert longer.tests.samples == 9  # not what was measured before by other choices
    few = {"passes": 8, "noise_examples": 50, "examples": 200}
    other = rightbatch.posterior(f"{file}:make", batch_size=64, learning_rate=0.08, **few)
    assert (other.trial.batch_size, other.trial.learning_rate) == (64, 0.08)  # as asked, on no lattice
    rows = plots.temperature(study).to_dict()
    assert "temperature" in json.dumps(rows)
    code, said = run_cli("report", str(study), "--out", str(file.with_suffix(".html")))
    assert code == 0, said
    assert "Batch size and rate as a temperature" in file.with_suffix(".html").read_text(encoding="utf-8")


def test_a_training_that_diverges_is_told(file: Path) -> None:
    with pytest.raises(InsufficientEvidence, match=r"batch size 32 at rate 1e\+12 has left no weights: it .*diverged"):
        rightbatch.posterior(f"{file}:diverging", passes=8)


def test_what_cannot_be_is_told_before_anything_is_trained(file: Path) -> None:
    with pytest.raises(InputError, match="at least 8, got 3"):
        rightbatch.posterior(f"{file}:make", passes=3)
    loop = Loop(lambda trial: iter(()), name="loop", present=(32, 0.1), train_examples=100)
    with pytest.raises(InputError, match=r"Only the models of a rightbatch\.Workload can be kept"):
        rightbatch.posterior(loop)
    with pytest.raises(InputError, match="5000 is larger than the data: 1437"):
        rightbatch.posterior(f"{file}:make", batch_size=5000)
    with pytest.raises(InputError, match="positive number, got -1"):
        rightbatch.posterior(f"{file}:make", learning_rate=-1.0)
    assert not list(file.parent.glob("*.study.db"))


def temperature(estimate: float, seen: float) -> Temperature:
    tests = IterateTests(60, 5, 1.0, 0.1, 1.0, 1.0, 0)
    return Temperature(
        1, Trial(32, 0.1, 0, 1000), Interval(estimate, 0.9 * estimate, 1.1 * estimate, 0.95), seen, 1000, 5, tests
    )


def test_what_is_said_follows_the_numbers() -> None:
    hot, cold, even = (dict(lines(temperature(value, value))) for value in (8.0, 0.01, 1.05))
    assert "noisier than Bayes; a larger batch or a smaller rate" in hot["temperature"]
    assert "rate 0.0125 at this batch size, or batch size 256 at this rate" in hot["optimal"]
    assert "colder than Bayes" in cold["temperature"]
    assert "below 1 (there is none)" in cold["optimal"]
    assert "about that of Bayes" in even["temperature"]
    assert "caution" not in hot
    assert "(more than all 1,000 examples)" in dict(lines(temperature(50.0, 50.0)))["optimal"]
    assert "shows a temperature of 1, not of 8" in dict(lines(temperature(8.0, 1.0)))["caution"]
