"""Seconds and memory are measured with the settings that were asked for, and kept apart from those of others."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import rightbatch
from rightbatch.cli.arguments import asked
from rightbatch.commands import Command
from rightbatch.loops import Loop
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.runners import as_runner
from rightbatch.records import Point, Settings, Trial
from rightbatch.store import Study
from rightbatch.workload import Workload

X = torch.randn(256, 3, generator=torch.Generator().manual_seed(0))
Y = X.sum(1)
SEEN: list[object] = []


def optimizer(parameters, trial):
    SEEN.append(trial.settings["inner_steps"])
    return rightbatch.EMSO(parameters, trial.learning_rate, inner_steps=int(trial.settings["inner_steps"]))


def workload() -> Workload:
    return Workload(
        name="line",
        model=lambda: nn.Linear(3, 1),
        data=(X, Y),
        valid=(X[:64], Y[:64]),
        loss=lambda model, batch: (model(batch[0])[:, 0] - batch[1]).square(),
        optimizer=optimizer,
        settings={"inner_steps": 2},
        present=(32, 0.1),
        target=0.05,
        planned_examples=4096,
    )


def line(trial):
    SEEN.append(trial.settings["inner_steps"])
    for step in range(1, 10_000):
        if trial.due(step):
            yield Point(step, valid_loss=1 / step)


PROGRAM = """\
import json, sys, pathlib
pathlib.Path(sys.argv[4]).open("a").write(sys.argv[3] + "\\n")
for step in range(40):
    print(json.dumps({"step": step, "valid_loss": 1 / (1 + step), "seconds": 0.1 * step}), flush=True)
"""


def command(folder: Path) -> Command:
    script = folder / "train.py"
    script.write_text(PROGRAM)
    words = ("{batch_size}", "{learning_rate}", "{inner_steps}", str(folder / "seen"))
    argv = (sys.executable, "-I", "-S", str(script), *words)
    return Command(argv=argv, train_examples=256, planned_examples=1024, settings={"inner_steps": 2})


@pytest.mark.parametrize("kind", ["workload", "loop", "command"])
@pytest.mark.parametrize("wanted", [{}, {"inner_steps": 7}])
def test_every_runner_measures_as_asked(tmp_path, kind, wanted):
    SEEN.clear()
    given = {
        "workload": workload,
        "loop": lambda: Loop(line, settings={"inner_steps": 2}, train_examples=256),
        "command": lambda: command(tmp_path),
    }[kind]()
    runner = as_runner(given, ask=Ask(settings=wanted))
    SEEN.clear()  # what facts were asked with
    assert [r.batch_size for r in runner.step_times([8], rounds=3) if not r.unfinished] == [8]
    seen = {int(word) for word in (tmp_path / "seen").read_text().split()} if kind == "command" else set(SEEN)
    assert seen == {wanted.get("inner_steps", 2)}
    assert runner.environment.settings == (Settings(wanted) if wanted else None)
    assert runner.facts.settings == Settings({"inner_steps": 2})


def test_a_study_keeps_them_apart(tmp_path):
    """As declared for who asks for nothing, even where more sizes were measured otherwise."""
    path = tmp_path / "line.study.db"
    rightbatch.sweep(workload(), [16, 64], study=path, seeds=1, rates=[0.1], settings={"inner_steps": 5})
    with Study.open(path) as study:
        assert [one.settings for one in study.environments().values()] == [Settings({"inner_steps": 5})]
        slow = study.step_times()
        assert {record.batch_size for record in slow} >= {16, 64}
    rightbatch.sweep(workload(), [16], study=path, seeds=1, rates=[0.1])
    with Study.open(path) as study:
        environments = tuple(study.environments().values())
        assert [one.settings for one in environments] == [Settings({"inner_steps": 5}), None]
        assert study.step_times(environments[0]) == slow
        assert study.step_times(environments[1]) == study.step_times() != slow
        assert study.step_times_by_settings() == {Settings({"inner_steps": 5}): slow, Settings(): study.step_times()}


def test_only_what_is_not_as_declared_counts():
    assert Settings({"a": 1, "b": 2, "x": 1}).other_than({"a": 1, "b": 3, "c": 4}) == Settings({"b": 2})
    assert Settings({"a": 1}).other_than({"a": 1}) == Settings()
    trial = replace(Trial(8, 0.1, 0), settings=Settings({"inner_steps": 5}))
    assert workload().complete(trial).settings == Settings({"inner_steps": 5})


def test_whole_numbers_that_are_typed_stay_whole():
    typed = asked(settings=["inner_steps=5", "momentum=0.9", "kind=plain"])["settings"]
    assert typed == {"inner_steps": 5, "momentum": 0.9, "kind": "plain"}
    assert [type(value) for value in typed.values()] == [int, float, str]
