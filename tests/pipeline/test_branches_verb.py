"""`branches`: the report is that of the branches, costs are bounded and said, what cannot be branched is told so."""

from __future__ import annotations

import io
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from rich.console import Console

from rightbatch.bundled.digits import digits
from rightbatch.bundled.quadratic import quadratic
from rightbatch.cli import main
from rightbatch.engine import WorkloadRunner
from rightbatch.errors import InputError, InsufficientEvidence
from rightbatch.fit.branches import BEST, LEVEL, Fork, LocalCriticalSize, fork_of
from rightbatch.pipeline import branches as branching
from rightbatch.pipeline.branch_plan import BranchPlan
from rightbatch.pipeline.branches import branches
from rightbatch.pipeline.sweep import sweep
from rightbatch.records import Interval, Trial, to_json
from rightbatch.report.branches import print_branches, size_text
from rightbatch.store import Study
from rightbatch.workload import Workload

SMALL: dict[str, Any] = {"batch_size": 8, "learning_rate": 0.3, "factors": (2, 4), "seeds": 2, "branch_examples": 64}


def noisy() -> Workload:
    """The noisy quadratic with fewer examples: all are alike, and fewer are shuffled faster."""
    whole = quadratic()
    return replace(whole, data=whole.data[:512])


def test_the_report_is_that_of_the_branches_themselves(tmp_path: Path) -> None:
    path, told = tmp_path / "q.study.db", list[tuple[BranchPlan, int]]()
    report = branches(noisy(), study=path, at=(20, 0), seed=5, watch=lambda *one: told.append(one), **SMALL)
    assert [fork.step for fork in report.forks] == [0, 20]
    assert report.plan.seeds == (6, 7)
    trunk = WorkloadRunner(noisy()).trunk(Trial(8, 0.3, 5), 4)
    for fork in report.forks:
        assert trunk.advance(fork.step) == fork.loss
        assert fork.learning_rate == 0.3
        for rate, cell in fork.base_losses.items():
            assert cell[1] == trunk.branch(1, rate, 7, 64)
        for factor, times in ((2, 2.0), (4, 4.0)):
            if factor in fork.losses["linear"]:
                assert fork.losses["linear"][factor][1] == trunk.branch(factor, times, 7, 64)
        assert set(fork.base_losses) == {1.0, 0.5, round(math.sqrt(0.5), 12), 0.25} or fork.losses["sqrt"].keys() == {2}
        assert [found.rule for found in fork.sizes] == ["linear", "sqrt", "constant", BEST]
        assert fork == fork_of(
            step=fork.step,
            learning_rate=0.3,
            loss=fork.loss,
            batch_size=8,
            base=fork.base_losses,
            losses=fork.losses,
            tolerance=None,
        )
    cells = sum(len(fork.base_losses) + sum(map(len, fork.losses.values())) for fork in report.forks)
    assert report.branched_examples == cells * 2 * 64
    assert told[0] == (report.plan, 0)
    assert [examples for _, examples in told] == list(range(0, report.branched_examples + 1, 64))
    assert report.branched_examples <= report.plan.most_examples == 2 * (4 + 6) * 2 * 64
    assert report.plan.trunk_examples == 160
    with Study.open(path) as study:
        assert study.costs()["branches"] == pytest.approx(report.wall_seconds)


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    def numbers(seed: int) -> tuple[Fork, ...]:
        return branches("digits", study=tmp_path / "d.study.db", at=(5,), seed=seed, **SMALL).forks

    assert numbers(1) == numbers(1) != numbers(2)


def test_a_rule_that_surely_failed_is_not_tried_at_larger_sizes(tmp_path: Path) -> None:
    given = {**SMALL, "learning_rate": 1.5, "seeds": 3, "factors": (2, 4, 8), "branch_examples": 256}
    report = branches(noisy(), study=tmp_path / "q.study.db", at=(3,), **given)
    (fork,) = report.forks
    assert fork.losses["linear"] == {2: (math.inf,) * 3}  # a rate of 3, where 2 is the limit
    assert len(fork.losses["constant"]) > 1
    assert report.branched_examples < report.plan.most_examples
    linear = fork.sizes[0]
    assert (linear.size.low, linear.size.high, linear.largest_tried) == (8, 16, 16)
    json.dumps(to_json(report), allow_nan=False)


def plan_of(workload: Any, **given: Any) -> BranchPlan:
    """What would be trained, without training it."""

    class Told(Exception):
        pass

    def stop(plan: BranchPlan, examples: int) -> None:
        raise Told(plan)

    with pytest.raises(Told) as told:
        branches(workload, watch=stop, **given)
    return told.value.args[0]  # type: ignore[no-any-return]


def test_without_a_word_it_goes_to_the_target_that_the_study_knows(tmp_path: Path) -> None:
    path = tmp_path / "q.study.db"
    answer = sweep(noisy(), [32], study=path, rates=[0.1], seeds=1, until="target", objective="examples")
    own = {"batch_size": 32, "learning_rate": 0.1}
    plan = plan_of(noisy(), study=path, objective="examples", **own)
    assert answer.steps is not None
    assert plan.at[-1] == pytest.approx(answer.steps, rel=0.5)
    assert plan.at == tuple(max(1, round(plan.at[-1] * share)) for share in (1 / 16, 1 / 4, 1))
    fresh = plan_of(noisy(), study=tmp_path / "fresh.study.db")
    assert fresh == BranchPlan(
        batch_size=32,
        at=(19, 75, 300),
        factors=(2, 4, 8, 16),
        rules=("linear", "sqrt", "constant"),
        seeds=(1, 2, 3),
        branch_examples=16 * 16 * 32,
    )
    # Twelve larger branches, and of the trunk's own size one at each of 1, 2^-1/2, 2^-1, ... 2^-2, 2^-3, 2^-4.
    assert fresh.most_examples == 3 * 3 * (12 + 7) * 8192
    short = plan_of(noisy(), study=tmp_path / "fresh.study.db", branch_examples=1, factors=(2, 6))
    assert short.branch_examples == 6 * 32


def test_sizes_beyond_the_data_are_left_out(tmp_path: Path) -> None:
    few = replace(noisy(), data=torch.ones(100, 1, dtype=torch.float64))
    report = branches(few, study=tmp_path / "q.study.db", at=(2,), **{**SMALL, "factors": (2, 4, 8, 16, 32)})
    assert report.plan.factors == (2, 4, 8)
    with pytest.raises(InputError, match="2 times the batch size 64 is more than all 100"):
        branches(few, study=tmp_path / "q.study.db", **{**SMALL, "batch_size": 64})


def test_branches_from_a_checkpoint_of_ones_own(tmp_path: Path) -> None:
    def small() -> Workload:
        return replace(digits(), model=lambda: torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.Linear(8, 10)))

    run = WorkloadRunner(small(), "last").start(Trial(32, 0.05, 1, 6400))
    while hasattr(point := run.advance(), "step"):
        last = point
    assert run.write_weights(tmp_path / "mine.pt")
    report = branches(
        small(), study=tmp_path / "m.study.db", start_from=tmp_path / "mine.pt", **{**SMALL, "learning_rate": 0.01}
    )
    (fork,) = report.forks
    assert (fork.step, report.plan.trunk_examples) == (0, 0)
    assert fork.loss == last.valid_loss
    assert "optimizer state" in report.cautions[0]
    with pytest.raises(InputError, match="begin there, at step 0"):
        branches(small(), study=tmp_path / "m.study.db", start_from=tmp_path / "mine.pt", at=(3,), **SMALL)


# ------------------------------------------------------------------------------------------- time and memory


def test_when_the_budget_ends_what_was_measured_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves a second a branch."""
    clock = {"now": 0.0}
    branch = branching._Measured.cell

    def cell(self: Any, factor: int, rate_factor: float) -> Any:
        found = branch(self, factor, rate_factor)
        clock["now"] += 1.0
        return found

    monkeypatch.setattr(branching._Measured, "cell", cell)
    monkeypatch.setattr(branching.time, "monotonic", lambda: clock["now"])

    def measured(budget: float | None) -> Any:
        clock["now"] = 0.0
        given = {**SMALL, "learning_rate": 0.01, "tolerance": 0.5, "rules": ("linear", "constant")}
        return branches(noisy(), study=tmp_path / "q.study.db", at=(2, 4), budget=budget, **given)

    whole = measured(None)
    assert whole.stopped == ""
    assert [len(fork.base_losses) for fork in whole.forks] == [3, 3]
    # A checkpoint takes 1 cell of its own, then 3 for each factor: in the middle of the second one's first factor.
    first = measured(9.5)
    assert (first.forks, first.stopped) == (whole.forks[:1], "the budget ended")
    # In the middle of the larger factor: of that nothing is told, of the smaller one all.
    (part,) = measured(5.5).forks
    assert {rule: set(cells) for rule, cells in part.losses.items()} == {"linear": {2}, "constant": {2}}
    assert part.losses["constant"][2] == whole.forks[0].losses["constant"][2]
    assert part.best.largest_tried == 16
    with pytest.raises(InsufficientEvidence, match="the budget ended before a checkpoint was compared"):
        measured(2.5)


def test_a_size_that_does_not_fit_into_memory_is_left_out(tmp_path: Path) -> None:
    plain = noisy()

    def hungry(model: Any, batch: Any) -> Any:
        if len(batch) >= 32:
            raise MemoryError
        return plain.loss(model, batch)

    report = branches(replace(plain, loss=hungry), study=tmp_path / "q.study.db", at=(2, 3), tolerance=0.5, **SMALL)
    assert [fork.best.largest_tried for fork in report.forks] == [16, 16]
    assert report.stopped == "batch size 32 did not fit into memory"
    with pytest.raises(InputError, match="The trunk with batch size 32 does not fit into memory"):
        branches(replace(plain, loss=hungry), study=tmp_path / "q.study.db", at=(2,), **{**SMALL, "batch_size": 32})


# ------------------------------------------------------------------------------------------ what cannot be done


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workload": "loop"}, "only one of a rightbatch.Workload can"),
        ({"factors": (2, 3)}, "each a multiple of the one before"),
        ({"factors": ()}, "each a multiple of the one before"),
        ({"factors": (1, 2)}, "whole numbers from 2"),
        ({"seeds": 1}, "At least 2 seeds"),
        ({"at": (-1,)}, "whole numbers from 0"),
        ({"at": ()}, "whole numbers from 0"),
        ({"rules": ("cubic",)}, "linear, sqrt, constant; got cubic"),
        ({"rules": ()}, "got none"),
        ({"branch_examples": 0}, "at least one example, got 0"),
        ({"tolerance": -1.0}, "positive difference of losses, got -1"),
        ({"budget": 0.0}, "positive number of wall seconds, got 0"),
        ({"learning_rate": 1e200, "at": (50,)}, "diverges. Choose a lower --learning-rate"),
        ({"learning_rate": 2.5, "at": (0,), "branch_examples": 800}, "own batch size 8 and rate diverges after step 0"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    (tmp_path / "my.py").write_text("def train(trial):\n    yield None\n")
    workload = f"{tmp_path}/my.py:train" if given.pop("workload", None) else noisy()
    with pytest.raises(InputError, match=said):
        branches(workload, study=tmp_path / "a.study.db", **{**SMALL, **given})


# --------------------------------------------------------------------------------------------------- the report


def local(low: float, estimate: float, high: float, telling: bool = True) -> LocalCriticalSize:
    return LocalCriticalSize(BEST, Interval(estimate, low, high, LEVEL), 512, 0.1, telling)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (local(64, 90.5, 128), "90 [64, 128]"),
        (local(32, 40.2, 64), "40 [32, 64]"),
        (local(256, 300, math.inf), "at least 256"),
        (local(256, math.inf, math.inf, False), "at least 256 *"),
        (local(32, 40, math.inf), "not told"),
    ],
)
def test_sizes_in_words(found: LocalCriticalSize, text: str) -> None:
    assert size_text(found, 32) == text


def printed(*found: LocalCriticalSize) -> str:
    base = {1.0: (1.0, 1.1), 0.5: (0.5, 0.6)}
    forks = [Fork(40 * k, 0.1, 2.0, base, {}, 0.01, (one,)) for k, one in enumerate(found)]
    console = Console(file=io.StringIO(), width=200)
    print_branches(
        console,
        "mine",
        forks,
        batch_size=32,
        learning_rate=0.1,
        seeds=3,
        branch_examples=2048,
        cost="much",
        cautions=("beware",),
    )
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_what_is_said_follows_from_the_intervals() -> None:
    grew = printed(local(32, 40, 64), local(128, 200, 256))
    assert "it grew between steps 0 and 40" in grew
    assert "from step 40 on, over 2,048 examples, batches up to 128 waste nothing" in grew
    assert "at step 0, 40 a lower rate is better" in grew
    assert "at step 40 a branch is longer than the training before it" in grew
    assert "caution   beware" in grew
    assert "*:" not in grew
    assert "it shrank between" in printed(local(128, 200, 256), local(32, 40, 64))
    assert "cannot be told" in printed(local(32, 40, 128), local(64, 90, 256))
    unsure = printed(local(32, 40, 64), local(128, 200, 256, telling=False))
    assert "needs two checkpoints" in unsure
    assert "no batch larger than 32 was shown to keep up" in unsure
    assert "*: branches at the trunk's own size gained less than the tolerance" in unsure


def test_the_command_line_prints_and_its_json_is_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    words = "branches digits --at 2,20 --factors 2,4 --seeds 2 --branch-examples 1 --rules sqrt,linear --threads 1"
    for options in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["rightbatch", *words.split(), *options])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        said = capsys.readouterr()
        # Three rates of the trunk's own size, two rules at two sizes.
        assert "branches of at most 3,584 examples, 5.60x the trunk" in said.err
        if not options:
            assert "digits: local critical batch size, by branches of 128 examples, 2 seeds" in said.out
            assert said.out.split("\n\n")[1].splitlines()[0].split()[2:] == ["sqrt", "linear", "best"]
            assert "caution" in said.out
            continue
        found = json.loads(said.out)
        assert [fork["step"] for fork in found["forks"]] == [2, 20]
        assert found["plan"]["rules"] == ["sqrt", "linear"]
        assert found["forks"][0]["sizes"][-1]["rule"] == "best"


def test_steps_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["rightbatch", "branches", "digits", "--at", "1.5"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "whole numbers as 20,80,300" in capsys.readouterr().err
