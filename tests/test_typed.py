"""What a study remembers of what was typed: commands that it prints can be typed, and its question is asked again."""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import rightbatch
from rightbatch.cli import app, main
from rightbatch.cli import memory as memory_verb
from rightbatch.commands import Command
from rightbatch.errors import InputError
from rightbatch.pipeline.asking import Ask, asked_before
from rightbatch.pipeline.runners import as_given
from rightbatch.pipeline.sheets import sheet_of
from rightbatch.records import WorkloadFacts
from rightbatch.report.figures import FIGURES
from rightbatch.report.figures.figure import measuring
from rightbatch.store import Study
from rightbatch.typed import command

MY = """\
import torch
import rightbatch

def make():
    x = torch.linspace(-1, 1, 64)[:, None]
    return rightbatch.Workload(
        name="mine", model=lambda: torch.nn.Linear(1, 1), data=(x, 2 * x), valid=(x, 2 * x),
        loss=lambda model, batch: ((model(batch[0]) - batch[1]) ** 2)[:, 0],
        optimizer=lambda parameters, trial: torch.optim.SGD(parameters, trial.learning_rate),
        planned_examples=640, settings={"width": 1},
    )

def train(trial):
    loss, step = 1.0, 0
    while True:
        loss, step = loss * (1 - min(trial.learning_rate, 0.5) / 20), step + 1
        if trial.due(step):
            yield rightbatch.Point(step, valid_metric=1 - loss)
"""
SMALL = {
    "sweep": ["--batch-sizes", "4,8", "--seeds", "1", "--planned-examples", "64", "--rates", "0.1,0.3162"],
    "find": ["--batch-sizes", "4,8", "--seeds", "1", "--budget", "1"],
    "profile": ["--batch-sizes", "4,8", "--rounds", "3"],
    "noise": ["--steps", "64"],
    "posterior": ["--passes", "8"],
    "sharpness": ["--measures", "ends"],
}
PRESENT = (4, 0.1)
FACTS = WorkloadFacts("mine", 64, 64, 640, "validation loss", "min", "SGD")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text(MY)
    return tmp_path


@pytest.fixture
def run(folder, monkeypatch, capsys):  # type: ignore[no-untyped-def]
    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["rightbatch", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return call


def printed(study: str) -> list[str]:
    """Every command that the page and the rule book name, one for each verb with each set of options."""
    sheet = sheet_of(study, easier=False)
    assert sheet.verdicts is not None
    of_page = [
        *(measuring(figure, sheet) for figure in FIGURES),
        sheet.command("memory"),
        sheet.command("find", "b.db"),
    ]
    told = [one.command for one in sheet.verdicts.judgements if one.command]
    commands = [part.strip() for text in (*of_page, *told) for part in text.split("&&") if "RUN,RUN" not in part]
    return list({" ".join([*text.split()[1:3], *re.findall(r" (--\S+)", text)]): text for text in commands}.values())


def test_every_command_that_is_printed_can_be_typed(run, monkeypatch) -> None:
    # What fits is looked for in processes of their own, which is another test's: here it only has to find its workload.
    monkeypatch.setattr(memory_verb.fitting, "memory", _fits)
    monkeypatch.setattr(memory_verb, "print_memory", lambda *_: None)
    asked = {"target": 0.2, "objective": "examples", "present": PRESENT, "settings": {"width": 1}}
    rightbatch.sweep("my.py:make", (4, 8), study="a b.study.db", seeds=1, rates=(0.1, 0.3162), **asked)
    commands = printed("a b.study.db")
    assert {shlex.split(text)[1] for text in commands} >= {"sweep", "find", "profile", "noise", "memory", "sharpness"}
    of_question = "--objective examples --target 0.2 --present 4,0.1 --set width="
    assert all(of_question in text for text in commands if " sweep " in text or " find " in text)
    typed = [shlex.split(text.replace("FLOPS", "1e12").replace("TOKENS", "8"))[1:] for text in commands]
    for verb, *words in typed:
        get_command(app).commands[verb].make_context(verb, list(words))  # type: ignore[attr-defined]  # it is a group
    once = {words[0]: words for words in sorted(typed, key=lambda words: "--keep-models" in words)}
    for verb, *words in (once.pop("sweep"), *once.values()):
        code, said = run(verb, *words, *SMALL.get(verb, []))
        assert code in (0, 3), (verb, words, said)  # 3: nothing is near a target with these few steps


class _Fits:
    batch_size = wished = 1


def _fits(name: str, **_: object) -> _Fits:
    assert name == "my.py:make"
    return _Fits()


def test_a_program_stays_behind_its_dashes_with_its_own_options() -> None:
    words = ("python", "train.py", "--lr", "{learning_rate}", "{batch_size}")
    given = as_given(Command(argv=words, pattern="(?P<step>.) (?P<valid_loss>.)", timeout_seconds=60))
    facts = WorkloadFacts("train", 0, 0, 0, "valid_metric", "min", "unknown", given=given)
    text = command("sweep", facts, "--batch-sizes 8,16", "--study x.db")
    options = ["--pattern", "(?P<step>.) (?P<valid_loss>.)", "--timeout", "60", "--batch-sizes", "8,16"]
    assert shlex.split(text) == ["rightbatch", "sweep", *options, "--study", "x.db", "--", *words]
    assert command("noise", facts) == ""  # a program does not show its gradients


def test_what_was_made_in_python_goes_by_its_name() -> None:
    assert as_given(lambda trial: trial) == as_given(Command(argv=("a", "{batch_size}{learning_rate}"), name="b")) == ()
    assert command("profile", FACTS) == "rightbatch profile mine"


# ------------------------------------------------------------------------------------------------ the question asked


def test_a_search_that_was_interrupted_leaves_its_question(folder, run, monkeypatch) -> None:
    asked = ["--target", "0.86", "--direction", "max", "--present", "4,0.1", "--objective", "steps"]
    words = ["my.py:train", *asked, "--train-examples", "64", "--planned-examples", "20000", "--batch-sizes", "4,8"]

    def killed(*_: object, **__: object) -> None:
        os.kill(os.getpid(), 2)

    monkeypatch.setattr("rightbatch.pipeline.find.drive", killed)
    assert run("find", *words)[0] == 130
    monkeypatch.undo()
    os.chdir(folder)
    code, said = run("export", "my-train.study.db", "runs.csv")
    assert code == 0, said
    assert "has no target" not in run("show", "my-train.study.db")[1]
    monkeypatch.chdir(folder)
    code, said = run("sweep", *words, "--seeds", "1", "--rates", "0.3162,1")
    assert code == 0, said
    before = json.loads(run("show", "my-train.study.db", "--json")[1])
    assert (before["target"]["value"], before["objective"]) == (0.86, "steps")
    assert before["present"] is None or before["present"]["batch_size"] == 4
    other = json.loads(run("show", "my-train.study.db", "--target", "0.5", "--objective", "examples", "--json")[1])
    assert (other["target"]["value"], other["objective"]) == (0.5, "examples")


def test_what_is_said_now_goes_before_what_was_said_and_takes_its_place() -> None:
    before = Ask("metric", target=0.3, target_on="loss", at_examples=500.0, planned_examples=640, present=PRESENT)
    assert Ask().over(before) == before
    assert Ask(target=0.2).over(before).target_on == "loss"
    assert Ask(objective="time").over(before).at_examples is None
    assert Ask(at_seconds=2.0).over(before).at_examples is None
    assert Ask(epochs=2.0).over(before).planned_examples is None
    assert Ask(first_touch=False).over(Ask(first_touch=True)).first_touch is False


def test_a_question_is_kept_once_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    ask = Ask(target=0.3, present=PRESENT, settings={"width": 4, "kind": "a"})
    with Study.create(path, FACTS) as study:
        assert study.asked is None
        for _ in range(2):
            study.add_asked(json.loads(json.dumps(ask.said())))
        assert asked_before(study) == ask
        study.add_asked({"target": 0.2})
        assert asked_before(study) == Ask(target=0.2)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM questions").fetchone() == (2,)


def test_a_question_that_cannot_be_asked_is_not_kept(folder: Path) -> None:
    with pytest.raises(InputError, match="compares at given seconds"):
        rightbatch.sweep("my.py:make", (4,), study="a.study.db", target=0.2, objective="metric")
    with Study.open("a.study.db") as study:
        assert study.asked is None


def test_a_study_of_before_takes_the_target_of_its_last_answer(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    target = {"value": 0.3, "quantity": "valid_loss", "direction": "min", "rule": "first_touch", "origin": "given"}
    with Study.create(path, FACTS) as study:
        study.add_answer({"target": target})
        assert asked_before(study) == Ask(target=0.3, target_on="loss", first_touch=True)
        study.add_answer({"target": {**target, "origin": "workload", "rule": "confirmed"}})
        assert asked_before(study).target is None


@pytest.mark.parametrize("name", ["target", "at_seconds", "at_examples"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_asked_for_is_a_finite_number(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} is a finite number, got {value}"):
        Ask(**{name: value})
