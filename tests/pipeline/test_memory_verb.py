"""`memory` on a workload that takes 8 MB an example: the answer has run, is kept, and accumulates what is wished."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import rightbatch
from rightbatch.cli import main
from rightbatch.errors import InputError
from rightbatch.fit.memory import fit_memory
from rightbatch.memory_answer import MemoryReport, savings
from rightbatch.pipeline.memory import fitting, memory
from rightbatch.pipeline.profile import measure_step_times
from rightbatch.pipeline.runners import as_runner
from rightbatch.pipeline.setting_up import open_study
from rightbatch.records import MemoryParts, Trial
from rightbatch.search.strategy import fixed
from rightbatch.store import Study

finding = importlib.import_module("rightbatch.pipeline.find")  # the package has the function by this name

SOURCE = '''
import torch
from torch import nn

import rightbatch

EXAMPLES, WIDTH = 512, 2**19


class Greedy(nn.Module):
    """Keeps activations of 4 MB an example in two blocks, whatever it learns."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.blocks = nn.Sequential(Block(), Block())

    def forward(self, x):
        return self.blocks(self.norm(self.first(x)))


class Block(nn.Module):
    def forward(self, x):
        return x + x.repeat(1, WIDTH // 4).sigmoid().mean(1, keepdim=True)


def make_workload():
    x = torch.randn(EXAMPLES, 4, generator=torch.Generator().manual_seed(0))
    return rightbatch.Workload(
        name="greedy",
        model=Greedy,
        data=x,
        valid=x[:16],
        loss=lambda model, batch: (model(batch) - batch).square().mean(1),
        optimizer=lambda parameters, trial: torch.optim.Adam(parameters, trial.learning_rate),
        present=(16, 0.01),
        planned_examples=512,
        target=1e-9,
        target_quantity="valid_loss",
    )
'''


@pytest.fixture(scope="module")
def name(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("greedy") / "greedy.py"
    path.write_text(SOURCE, encoding="utf-8")
    return f"{path}:make_workload"


@pytest.fixture(scope="module")
def limit(name: str) -> int:
    """Room for some 20 examples over what a new process holds that has made the workload."""
    program = (
        "import sys; from rightbatch.memory_room import held_bytes; from rightbatch.pipeline.runners import as_runner; "
        "as_runner(sys.argv[1], threads=1); print(held_bytes())"
    )
    held = subprocess.run([sys.executable, "-c", program, name], capture_output=True, text=True, check=True).stdout
    return int(held) + 260 * 2**20


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study") / "a.study.db"


@pytest.fixture(scope="module")
def found(name: str, limit: int, study: Path) -> MemoryReport:
    return memory(name, limit=limit, wish=40, instead="sqrt", study=study, threads=1)


def test_the_answer_has_run_within_the_limit_and_nothing_much_larger_can(found: MemoryReport, limit: int) -> None:
    (probe, *_) = [p for p in found.probes if p.batch_size == found.batch_size and p.accumulation_steps == 1]
    assert probe.fits
    assert found.peak_bytes == probe.peak_bytes
    assert found.limit_bytes == int(0.95 * limit)
    assert probe.peak_bytes is not None
    assert probe.peak_bytes <= found.limit_bytes
    assert 4 <= found.batch_size < 40
    assert found.at_most is not None
    assert found.batch_size >= 0.97 * found.at_most - 1
    assert len([p for p in found.probes if p.accumulation_steps == 1]) <= 12


def test_the_fit_tells_what_an_example_takes(found: MemoryReport) -> None:
    assert found.fit is not None
    example = found.fit.example_bytes
    assert example.low is not None
    assert example.high is not None
    # An allocator holds more than what is kept, or has room left from before: the interval must say so.
    assert example.high > 3e6
    assert example.low < 3e7
    assert 1e6 < example.estimate < 1e8
    assert found.parts is not None
    assert found.parts.kept_bytes == pytest.approx(2 * 2**21, rel=0.1)  # two blocks, 2^19 numbers of 4 bytes
    assert found.parts.kept_with_checkpoints_bytes == pytest.approx(2**21, rel=0.2)
    assert found.parts.optimizer_bytes > 2 * found.parts.gradient_bytes > 0
    assert found.parts.normalising == ("norm",)


def test_what_would_buy_more_is_predicted(found: MemoryReport) -> None:
    """10 MB at any size and 10 MB an example of 1,010 MB: 100 fit. Blocks keep 5 of the 10 for nothing."""
    parts = MemoryParts(2_000_000, 2_000_000, 4_000_000, 8e6, 4e6, 3e6)
    fit = fit_memory({10: 110e6, 100: 1010e6})
    report = replace(found, batch_size=100, before_bytes=0, limit_bytes=1_010_000_000, fit=fit, parts=parts)
    said = {saving.what: saving.batch_size for saving in savings(report)}
    assert said == {"activation checkpointing of every block": 200, "autocast to bfloat16": 199}
    assert savings(replace(report, parts=None)) == ()
    assert savings(replace(report, fit=None)) == ()


def test_the_wished_batch_is_accumulated_and_was_run(found: MemoryReport) -> None:
    assert found.wished is not None
    assert found.wished.batch_size == 40
    assert found.wished.micro_batch_size <= found.batch_size
    assert found.wished.accumulation_steps == -(-40 // found.wished.micro_batch_size)
    assert found.wished.peak_bytes <= found.limit_bytes
    assert found.wished.normalising == ("norm",)
    if found.wished.micro_batch_size >= 8:  # half of it can be cut into parts of two
        assert found.wished.difference is not None
        assert 0.001 < found.wished.difference < 2
    else:
        assert found.wished.difference is None


def test_the_rule_moves_what_is_trained_now(found: MemoryReport) -> None:
    assert found.plans is not None
    now, wished, instead = found.plans
    assert (now.batch_size, wished.batch_size, instead.batch_size) == (16, 40, found.batch_size)
    assert wished.learning_rate == pytest.approx(0.01 * 2.5**0.5)
    assert instead.steps == pytest.approx(512 / found.batch_size)


def test_what_was_measured_is_kept_and_not_measured_again(
    found: MemoryReport, name: str, limit: int, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Study.open(study) as kept:
        (environment,) = kept.environments().values()
        assert kept.memory_probes(environment) == found.probes
        assert kept.costs()["memory"] > 0
    tried: list[Any] = []
    again = memory(name, limit=limit, wish=40, study=study, threads=1, watch=tried.append)
    assert tried == []
    assert (again.batch_size, again.wished) == (found.batch_size, found.wished)


def test_the_command_prints_it(
    found: MemoryReport, name: str, limit: int, study: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    arguments = ["memory", name, "--limit", str(limit), "--wish", "40", "--instead", "sqrt", "--threads", "1"]
    arguments += ["--study", str(study)]
    text = run(monkeypatch, capsys, arguments)
    for said in (f"greedy: {found.batch_size} examples fit in one pass", "by the rule sqrt", "normalise over a batch"):
        assert said in text
    assert all(len(line) <= 80 for line in text.splitlines())
    told = json.loads(run(monkeypatch, capsys, [*arguments, "--json"]))
    assert told["batch_size"] == found.batch_size
    assert told["wished"]["accumulation_steps"] == found.wished.accumulation_steps  # type: ignore[union-attr]


def test_find_accumulates_what_does_not_fit(
    name: str, limit: int, study: Path, found: MemoryReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = [Trial(size, 0.1, 0, 128) for size in (4, 24)]
    monkeypatch.setattr(finding, "_strategy", lambda *given: fixed(trials, "both sizes"))
    monkeypatch.setattr(
        finding,
        "measure_step_times",
        lambda kept, runner, sizes, **how: measure_step_times(kept, runner, sizes, rounds=3),
    )
    answer = finding.find(
        name, limit=limit, study=study, target=2.3, batch_sizes=[4, 24], seeds=1, threads=1, objective="examples"
    )
    (caution,) = [text for text in answer.cautions if "do not fit in one pass" in text]
    assert "normalise over each part" in caution
    number = int(caution.split()[4].replace(",", ""))
    assert found.batch_size / 4 <= number <= found.batch_size
    with Study.open(study) as kept:
        assert {environment.micro_batch_size for environment in kept.environments().values()} == {None, number}


def test_where_no_other_process_has_room_what_ran_here_tells(name: str, tmp_path: Path) -> None:
    study = tmp_path / "d.study.db"
    with open_study(study, as_runner(name, threads=1).facts) as kept:
        with pytest.raises(InputError, match="without any model, did not fit"):
            fitting(kept, name, {"threads": 1}, "50MB")
        how: dict[str, Any] = {"threads": 1}
        runner = fitting(kept, name, how, "50MB", ran=9)
    assert how["micro_batch_size"] == 4
    assert runner.environment.micro_batch_size == 4


def test_what_cannot_be_is_told(name: str, study: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="A batch of 600 is wished, and there are 512 examples"):
        memory(name, wish=600)
    with pytest.raises(InputError, match=r"at least 0 and less than 1, got 1\.5"):
        memory(name, headroom=1.5)
    with pytest.raises(InputError, match="there are linear, sqrt"):
        memory(name, wish=100, instead="cubic")
    with pytest.raises(InputError, match="without any model, did not fit"):
        memory(name, limit="50MB", study=tmp_path / "b.study.db")

    def loop(trial: Any) -> Any:
        yield rightbatch.Point(0)

    with pytest.raises(InputError, match=r"only a rightbatch\.Workload"):
        memory(loop, study=tmp_path / "c.study.db")


def run(monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["rightbatch", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    return str(capsys.readouterr().out)


SMALL_LOADER = """
import torch
from torch import nn

import rightbatch


def batches(batch_size, seed):
    return torch.zeros(100, 2).split(batch_size) if batch_size <= 100 else []


def make_workload():
    return rightbatch.Workload(
        name="loaded",
        model=lambda: nn.Linear(2, 2),
        data=batches,
        valid=torch.zeros(4, 2),
        loss=lambda model, batch: model(batch).square().mean(1),
        optimizer=lambda parameters, trial: torch.optim.SGD(parameters, trial.learning_rate),
        train_examples=1000,
    )
"""


def test_a_loader_that_has_no_batch_of_so_many_bounds_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "loaded.py"
    path.write_text(SMALL_LOADER, encoding="utf-8")
    found = memory(f"{path}:make_workload", study=tmp_path / "a.study.db", threads=1)
    assert 97 <= found.batch_size <= 100
    assert "gave no batch" in found.refused
