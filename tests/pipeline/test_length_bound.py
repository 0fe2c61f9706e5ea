"""Loops and commands whose rate follows a schedule to its end: where that is said, only the ends of runs count."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rightbatch
from rightbatch import InputError, Point
from rightbatch.cli import main
from rightbatch.loops import Loop
from rightbatch.pipeline.asking import Ask
from rightbatch.store import Study

LONGEST, SCALE, TARGET = 32_000, 4000, 0.3
SHORTEST = SCALE * math.log(1 / TARGET)
"""Examples after which a run that ends there is at the target."""

ASKED: dict[str, Any] = {
    "target": TARGET,
    "present": (32, 0.1),
    "train_examples": 1000,
    "epochs": LONGEST / 1000,
    "objective": "examples",
    "batch_sizes": [16, 32],
    "seeds": 1,
}


def decayed(trial: Any) -> Iterator[Point]:
    """What is left of the loss, and noise that is gone with the rate, which falls to 0 at the end."""
    for step in range(1, trial.planned_steps + 1):
        off = abs(math.log10(trial.learning_rate / 0.1))
        left = math.exp(-step * trial.batch_size / SCALE) + off
        if trial.due(step):
            yield Point(step, valid_loss=left + 0.5 * (1 - step / trial.planned_steps))


PROGRAM = """
import json, math, sys
size, rate, steps = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
for step in (*range(10, steps, 10), steps):
    left = math.exp(-step * size / 4000) + abs(math.log10(rate / 0.1)) + 0.5 * (1 - step / steps)
    print(json.dumps({"step": step, "valid_loss": left, "seconds": step / 1000}), flush=True)
"""


def planned_lengths(path: Path) -> set[int | None]:
    with Study.open(path) as kept:
        return {run.trial.planned_examples for run in kept.runs()}


def test_of_a_loop_the_shortest_length_whose_end_is_at_the_target_counts(tmp_path: Path) -> None:
    found = rightbatch.find(decayed, study=tmp_path / "a.study.db", length_bound=True, **ASKED)
    assert found.cost.estimate == pytest.approx(SHORTEST, rel=0.25)  # a bracket of 1.5
    assert len(planned_lengths(tmp_path / "a.study.db")) > 2
    on_its_way = rightbatch.find(decayed, study=tmp_path / "b.study.db", **ASKED)
    assert on_its_way.cost.estimate > 2 * SHORTEST
    assert planned_lengths(tmp_path / "b.study.db") == {LONGEST}


def test_a_loop_may_say_so_itself(tmp_path: Path) -> None:
    loop = Loop(decayed, train_examples=1000, length_bound=True)
    asked = {name: value for name, value in ASKED.items() if name != "train_examples"}
    found = rightbatch.find(loop, study=tmp_path / "a.study.db", **asked)
    assert found.cost.estimate == pytest.approx(SHORTEST, rel=0.25)


def test_a_program_is_told_how_long_it_trains(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["rightbatch", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return " ".join(capsys.readouterr().out.split())

    (tmp_path / "it.py").write_text(PROGRAM)
    words = ["--target", "0.3", "--present", "32,0.1", "--train-examples", "1000", "--epochs", "32", "--seeds", "1"]
    words += ["--objective", "examples", "--batch-sizes", "16,32", "--study", str(tmp_path / "a.study.db")]
    program = [sys.executable, str(tmp_path / "it.py"), "{batch_size}", "{learning_rate}", "{planned_steps}"]
    run("find", "--length-bound", *words, "--", *program)
    assert len(planned_lengths(tmp_path / "a.study.db")) > 2
    assert "only the ends of runs count" in run("show", str(tmp_path / "a.study.db"))
    assert Ask(length_bound=True).options() == ("--length-bound",)


def test_what_cannot_be_asked_so_is_refused(tmp_path: Path) -> None:
    lengthless = {name: value for name, value in ASKED.items() if name != "epochs"}
    with pytest.raises(InputError, match="how long that is planned to be is not known"):
        rightbatch.find(decayed, study=tmp_path / "a.study.db", length_bound=True, **lengthless)
    with pytest.raises(rightbatch.WorkloadError, match=r"trial.planned_steps is None .*: --epochs or --planned"):
        rightbatch.find(decayed, study=tmp_path / "b.study.db", **lengthless)
    with pytest.raises(InputError, match=r"Put \{planned_steps\} or \{planned_examples\} into an argument"):
        rightbatch.Command(argv=("it", "{batch_size}", "{learning_rate}"), length_bound=True)
    with pytest.raises(InputError, match="length_bound is for loops and commands"):
        rightbatch.find("digits", study=tmp_path / "a.study.db", length_bound=True)


def test_a_check_sees_that_a_length_is_needed() -> None:
    asked = {name: ASKED[name] for name in ("target", "present", "train_examples")}
    report = rightbatch.check(decayed, **asked)
    (fault,) = [found for found in report.faults if "planned" in found.do]
    assert "trial.planned_steps is None" in fault.seen
    assert "trial.planned_steps" not in str(rightbatch.check(decayed, epochs=ASKED["epochs"], **asked).faults)


def test_it_is_remembered_and_cannot_be_said_once_runs_have_counted_on_their_way(tmp_path: Path) -> None:
    once = {**ASKED, "batch_sizes": [32]}
    rightbatch.find(decayed, study=tmp_path / "a.study.db", length_bound=True, **once)
    again = rightbatch.find(decayed, study=tmp_path / "a.study.db", **once)
    assert again.cost.estimate == pytest.approx(SHORTEST, rel=0.25)
    rightbatch.find(decayed, study=tmp_path / "b.study.db", **once)
    with pytest.raises(InputError, match="Leave out --length-bound, or choose a new study"):
        rightbatch.find(decayed, study=tmp_path / "b.study.db", length_bound=True, **once)
