"""`find` and `show` with the search of few runs, on loops that compute their curve instead of training."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import rightbatch
from agreement import check_agreement
from rightbatch.answer import Recommendation
from rightbatch.cli import main
from rightbatch.curves import PAUSED, REACHED
from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.lattice import rate_at, snap
from rightbatch.loops import Loop, LoopTrial
from rightbatch.pipeline.find import PROTOCOL, PROTOCOL_OF_FEW_RUNS, PROTOCOL_OF_TABLES
from rightbatch.pipeline.searching import RATES_AROUND, RATES_BEYOND, few_runs, forecast_of, guess_of, suits_few_runs
from rightbatch.pipeline.show import show
from rightbatch.question import Objective, Question
from rightbatch.records import Point, Run, Stop, StopReason, Target, Trial, WorkloadFacts
from rightbatch.store import Study
from rightbatch.tables import COLUMNS, write_rows

SIZES = (16, 128, 1024)
TARGET = Target(0.0, "valid_metric", "max")


def needed(size: int, rate: float) -> float:
    """Steps to the target: S_min (1 + B_crit / B), times what a rate costs that is not the best."""
    off = math.log(rate / (0.3 / (1 + 256 / size)))
    return 60 * (1 + 256 / size) * math.exp(0.8 * (math.hypot(off, 0.6) - 0.6))


def train(trial: LoopTrial) -> Iterator[Point]:
    whole = needed(trial.batch_size, trial.learning_rate)
    yield Point(0, valid_metric=-3.0)
    for step in itertools.count(1):
        if trial.due(step):
            yield Point(step, valid_metric=max(-3.0, math.log(step / whole)))


def loop(**changed: Any) -> Loop:
    known: dict[str, Any] = {
        "name": "laws",
        "train_examples": 4096,
        "planned_examples": 300_000,
        "direction": "max",
        "target": 0.0,
        "present": (16, 0.01),
    }
    return Loop(train, **known | changed)


@dataclass(frozen=True)
class Found:
    path: Path
    answer: Recommendation
    runs: tuple[Run, ...]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    path = tmp_path_factory.mktemp("found") / "laws.study.db"
    answer = rightbatch.find(loop(), study=path, batch_sizes=SIZES, seeds=2, objective="examples")
    with Study.open(path) as study:
        return Found(path, answer, study.runs())


# ---------------------------------------------------------------------------------------------------- find and show


def test_find_finds_the_best_cell_of_the_lattice_or_one_as_good(found: Found) -> None:
    cells = [(size, rate_at(k)) for size in SIZES for k in range(-12, 3)]
    examples = {cell: cell[0] * needed(*cell) for cell in cells}
    chosen = examples[found.answer.batch_size, found.answer.learning_rate]
    assert chosen <= 1.25 * min(examples.values())
    assert found.answer.cost.estimate == pytest.approx(chosen, rel=0.1)
    assert found.answer.protocol == PROTOCOL_OF_FEW_RUNS.format(seeds="2 seeds")
    assert len({(run.trial.batch_size, run.trial.learning_rate) for run in found.runs}) < len(cells) / 2


def test_the_last_run_is_the_winner_with_the_fresh_seed(found: Found) -> None:
    fresh = [run for run in found.runs if run.trial.seed >= FRESH_SEED]
    assert [run.trial.seed for run in fresh] == [FRESH_SEED]
    assert fresh[0].identifier == max(run.identifier for run in found.runs)
    assert (fresh[0].trial.batch_size, fresh[0].trial.learning_rate) == (
        found.answer.batch_size,
        found.answer.learning_rate,
    )
    assert found.answer.fresh_costs == pytest.approx((found.answer.cost.estimate,), rel=0.1)


def test_some_runs_are_left_where_they_were_and_all_rates_lie_on_the_lattice(found: Found) -> None:
    assert all(run.stop is not None for run in found.runs)
    left = {run.trial for run in found.runs if run.stop and run.stop.message == PAUSED}
    reached = {run.trial for run in found.runs if run.stop and run.stop.message == REACHED}
    assert left
    assert reached
    assert not left & reached
    for run in found.runs:
        assert run.trial.learning_rate == snap(run.trial.learning_rate)
        at_target = [point for point in run.points if (point.valid_metric or -1) >= 0]
        assert len(at_target) <= 2  # no run goes on beyond what confirms the target


def test_show_says_what_find_said(found: Found) -> None:
    shown, evidence = show(found.path, objective="examples")
    answer = found.answer
    assert (shown.batch_size, shown.learning_rate) == (answer.batch_size, answer.learning_rate)
    assert shown.cost.estimate == pytest.approx(answer.cost.estimate, rel=1e-9)
    assert [row.seeds for row in shown.sizes] == [row.seeds for row in answer.sizes]
    assert [row.cost.estimate for row in shown.sizes if row.cost] == pytest.approx(
        [row.cost.estimate for row in answer.sizes if row.cost], rel=1e-9
    )
    assert shown.as_good == answer.as_good
    guess = guess_of(evidence)
    assert guess is not None
    assert (guess.batch_size, guess.learning_rate) == (answer.batch_size, answer.learning_rate)


@pytest.mark.parametrize("objective", ["time", "steps", "examples"])
def test_another_objective_has_an_answer_without_contradictions(found: Found, objective: str) -> None:
    shown, _ = show(found.path, objective=objective)
    check_agreement(shown)


def test_find_made_again_runs_nothing_more_and_says_the_same(found: Found) -> None:
    again = rightbatch.find(loop(), study=found.path, batch_sizes=SIZES, seeds=2, objective="examples")
    with Study.open(found.path) as study:
        assert [run.identifier for run in study.runs()] == [run.identifier for run in found.runs]
    assert (again.batch_size, again.learning_rate) == (found.answer.batch_size, found.answer.learning_rate)
    assert again.cost.estimate == pytest.approx(found.answer.cost.estimate, rel=1e-9)


# --------------------------------------------------------------------------------------- what it does not answer


def test_a_budget_that_is_too_small_ends_with_3_and_what_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The target is far beyond what a run of any length comes to in a second: how fast the machine is does not matter.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "my.py").write_text(
        "import math, rightbatch\n"
        "def train(trial):\n"
        "    yield rightbatch.Point(0, valid_metric=0.0)\n"
        "    step = 0\n"
        "    while True:\n"
        "        step += 1\n"
        "        if trial.due(step):\n"
        "            yield rightbatch.Point(step, valid_metric=math.log1p(step * trial.learning_rate))\n"
    )
    sizes = ("--batch-sizes", "16,128", "--train-examples", "1024", "--planned-examples", "1000000000")
    goal = ("--target", "200", "--direction", "max", "--objective", "examples", "--budget", "4")
    monkeypatch.setattr(sys, "argv", ["rightbatch", "find", "my.py:train", *sizes, *goal])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    said = capsys.readouterr().err
    assert "the best batch size lies from 16 to 128 (90 % sure)" in said
    assert "are expected to make the answer" in said
    assert "larger --budget goes on" in said
    assert "Best valid_metric at equal cost, after" in said


def test_a_budget_that_buys_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(rightbatch.InsufficientEvidence, match="The budget ended before any run gave a value to judge"):
        rightbatch.find(loop(), study=tmp_path / "w.study.db", batch_sizes=SIZES, objective="examples", budget=1e-3)


@pytest.mark.parametrize("at", ["metric", "a schedule"])
def test_metrics_and_schedules_are_for_the_older_search(at: str, tmp_path: Path) -> None:
    facts = WorkloadFacts("w", 1000, 0, 1000, "m", "max", "SGD", length_bound=at == "a schedule")
    question = (
        Question(Objective.METRIC, TARGET, at_examples=500) if at == "metric" else Question(Objective.STEPS, TARGET)
    )
    evidence = Evidence(facts, (a_run((16, 0.1)),), (), question)
    assert not suits_few_runs(evidence)
    assert forecast_of(evidence) is None
    assert guess_of(evidence) is None
    assert suits_few_runs(
        replace(evidence, facts=replace(facts, length_bound=False), question=Question(Objective.TIME, TARGET))
    )
    if at == "metric":
        asked: dict[str, Any] = {"objective": "metric", "at_examples": 20_000}
        answer = rightbatch.find(loop(), study=tmp_path / "w.study.db", batch_sizes=SIZES[1:], seeds=1, **asked)
        assert answer.protocol == PROTOCOL.format(seeds="1 seed")


def test_a_recorded_table_is_taken_whole(tmp_path: Path) -> None:
    rates, steps = (0.02, 0.3), (10, 40, 80, 160, 320, 640, 1280)
    rows = []
    for size, rate, step in itertools.product(SIZES[1:], rates, steps):
        value = math.log(step / needed(size, rate))
        at = ("laws", size, rate, 0, step, step * size, step * 1e-3, None, None, value, "finished")
        rows.append(dict(zip(COLUMNS, at, strict=True)))
    write_rows(tmp_path / "laws.csv", COLUMNS, rows)
    path = tmp_path / "laws.study.db"
    answer = rightbatch.find(str(tmp_path / "laws.csv"), study=path, seeds=1, objective="examples", target=0.0)
    assert answer.protocol == PROTOCOL_OF_TABLES.format(seeds="1 seed")
    examples = {(size, rate): size * needed(size, rate) for size in SIZES[1:] for rate in rates}
    assert (answer.batch_size, answer.learning_rate) == min(examples, key=lambda cell: examples[cell])
    with Study.open(path) as study:
        assert {(run.trial.batch_size, run.trial.learning_rate) for run in study.runs()} == set(examples)


# ------------------------------------------------------------------------------------------- made for a study


def a_run(cell: tuple[int, float], *, seed: int = 0, stop: Stop | None = None, last: float = 0.5) -> Run:
    points = tuple(Point(step, step * cell[0], valid_metric=last * step / 40 - 1) for step in (0, 10, 20, 40))
    return Run(Trial(*cell, seed), points, stop, identifier=cell[0] + 10_000 * seed)


def evidence_of(*runs: Run, present: tuple[int, float] | None = None) -> Evidence:
    facts = WorkloadFacts("w", 4096, 0, 0, "m", "max", "SGD", present=present)
    return Evidence(facts, runs, (), Question(Objective.STEPS, TARGET))


def test_rates_lie_on_the_lattice_two_decades_around_the_first_choice_and_beyond_what_was_tried() -> None:
    def rates(evidence: Evidence) -> list[float]:
        return list(few_runs(evidence, (64,), lambda trial: True, seeds=1).rates(evidence))

    nothing = evidence_of(present=(64, 0.1))
    assert rates(nothing) == [rate_at(k) for k in range(-4 - RATES_AROUND, -4 + RATES_AROUND + 1)]
    far = replace(nothing, runs=(a_run((64, 100.0)),))
    assert rates(far)[-1] == rate_at(8 + RATES_BEYOND)
    assert rates(far)[0] == rates(nothing)[0]


def test_a_study_of_whole_runs_speaks_for_itself() -> None:
    whole = [a_run((size, 0.1), stop=Stop(StopReason.FINISHED)) for size in (16, 64)]
    assert forecast_of(evidence_of(*whole)) is None
    assert forecast_of(evidence_of()) is None
    # A fresh seed that was cut short belongs to no search.
    assert forecast_of(evidence_of(*whole, a_run((16, 0.1), seed=FRESH_SEED))) is None
    paused = forecast_of(evidence_of(*whole, a_run((256, 0.1))))
    assert paused is not None
    assert [size.batch_size for size in paused.sizes] == [16, 64, 256]


def test_a_target_that_no_rate_reaches_ends_the_search(tmp_path: Path) -> None:
    def train(trial: Any) -> Any:
        for step in range(1, 20):
            yield Point(step, valid_loss=1.0 + 0.1 / step)

    how: dict[str, Any] = {"target": 0.1, "present": (32, 0.1), "train_examples": 1000, "planned_examples": 1000}
    with pytest.raises(rightbatch.InsufficientEvidence, match="reached the target"):
        rightbatch.find(train, batch_sizes=[32], study=tmp_path / "it.study.db", **how)
    with Study.open(tmp_path / "it.study.db") as kept:
        rates = [run.trial.learning_rate for run in kept.runs()]
    assert 1e-8 < min(rates) < max(rates) < 1e6


FAILS_ABOVE_64 = """
import json, sys
size, rate, loss = int(sys.argv[1]), float(sys.argv[2]), 1.0
if size > 64:
    raise ValueError("too wide")
for step in range(1, 400):
    loss *= 1 - min(0.5, rate)
    print(json.dumps({"step": step, "valid_loss": loss, "seconds": step / 1000}), flush=True)
"""


def test_sizes_at_which_a_program_fails_are_named_and_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "it.py").write_text(FAILS_ABOVE_64)
    program = rightbatch.Command(
        argv=(sys.executable, str(tmp_path / "it.py"), "{batch_size}", "{learning_rate}"),
        train_examples=1000,
        present=(64, 0.1),
        target=0.1,
    )
    with pytest.warns(UserWarning, match=r"(?s)No step could be timed at batch size (128|256): .*too wide") as told:
        found = rightbatch.find(program, study=tmp_path / "a.study.db", batch_sizes=(64, 128, 256), seeds=1)
    assert len(told) == 2
    assert found.batch_size == 64
    assert "not tried: no step could be timed at batch size 128 to 256, where it failed or there was no time" in (
        found.cautions
    )


@pytest.mark.parametrize("budget", [None, "60s"])
def test_a_size_that_a_model_refuses_is_left_out(budget: str | None, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))

    def loss(model: Any, batch: Any) -> Any:
        if len(batch[0]) == 1:
            raise ValueError("Expected more than 1 value per channel when training")
        return (model(batch[0]) - batch[1]).square().mean(1)

    workload = rightbatch.Workload(
        name="normalised",
        model=lambda: torch.nn.Linear(4, 1),
        data=(x[:300], x[:300, :1]),
        valid=(x[300:], x[300:, :1]),
        loss=loss,
        optimizer=lambda parameters, trial: torch.optim.SGD(parameters, lr=trial.learning_rate),
        present=(4, 0.1),
        target=0.01,
        planned_examples=3000,
    )
    with pytest.warns(UserWarning, match="No step could be timed at batch size 1: .*more than 1 value"):
        found = rightbatch.find(
            workload, study=tmp_path / "a.study.db", batch_sizes=(1, 4, 8, 16), seeds=1, budget=budget
        )
    assert any(said.startswith("not tried: no step could be timed at batch size 1,") for said in found.cautions)
    with Study.open(tmp_path / "a.study.db") as kept:
        assert {run.trial.batch_size for run in kept.runs()} <= {4, 8, 16}
    with pytest.warns(UserWarning, match="No step could be timed at batch size 1: "):  # the same call goes on
        again = rightbatch.find(
            workload, study=tmp_path / "a.study.db", batch_sizes=(1, 4, 8, 16), seeds=1, budget=budget
        )
    assert again.batch_size == found.batch_size


def test_a_size_at_which_a_loop_raises_is_left_out(tmp_path: Path) -> None:
    def train(trial: Any) -> Any:
        if trial.batch_size == 1:
            raise ValueError("Expected more than 1 value per channel when training")
        loss, rate = 1.0, min(0.5, trial.learning_rate)
        for step in range(1, 2000):
            loss *= 1 - rate
            if trial.due(step):
                yield Point(step, valid_loss=loss)

    how: dict[str, Any] = {"target": 0.1, "present": (4, 0.1), "train_examples": 1000, "planned_examples": 4000}
    with pytest.warns(UserWarning, match="No step could be timed at batch size 1: .*more than 1 value"):
        found = rightbatch.find(train, batch_sizes=(1, 4, 8), seeds=1, study=tmp_path / "a.study.db", **how)
    assert any(said.startswith("not tried: no step could be timed at batch size 1,") for said in found.cautions)
