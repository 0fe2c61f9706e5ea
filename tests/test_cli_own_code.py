"""The command line with a person's own code: loops, programs, changed code, kept models, looking on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from rightbatch.cli import app, main
from rightbatch.store import Study

LOOP = """\
import rightbatch

def train(trial):
    loss, step = 1.0, 0
    yield rightbatch.Point(0, valid_loss=loss)
    while True:
        loss, step = loss * (1 - min(trial.learning_rate, 0.5) / (20 + 1 / trial.batch_size)), step + 1
        if trial.due(step):
            yield rightbatch.Point(step, valid_loss=loss)
"""
PROGRAM = """\
import json, sys
size, rate = int(sys.argv[1]), float(sys.argv[2])
loss = 1.0
for step in range(41):
    print(json.dumps({"step": step, "seconds": step * 0.001 * (size + 16), "valid_loss": loss}), flush=True)
    loss *= 1 - min(rate, 0.5) / 2
"""
ASK = ["--target", "0.5", "--present", "8,0.1", "--batch-sizes", "4..16", "--seeds", "1"]
OF_LOOP = ["my.py:train", *ASK, "--planned-examples", "4000", "--train-examples", "500"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    (tmp_path / "my.py").write_text(LOOP)
    (tmp_path / "train.py").write_text(PROGRAM)
    return tmp_path


@pytest.fixture
def run(folder, monkeypatch, capsys):  # type: ignore[no-untyped-def]
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rightbatch", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def words(said: str) -> str:
    """What was said, without the line breaks that the width of the console makes."""
    return " ".join(said.split())


def runs_of(path: str) -> int:
    with Study.open(path) as study:
        return len(study.runs())


def test_a_loop_in_a_file_is_found_and_what_it_cannot_have_is_said(run) -> None:
    code, out, err = run("find", *OF_LOOP)
    assert code == 0, err
    assert "my:train: train with batch size" in out
    assert "caution a killed run is repeated, not continued: the state of a generator cannot be saved" in words(out)
    before = runs_of("my-train.study.db")
    assert run("find", *OF_LOOP)[0] == 0
    assert runs_of("my-train.study.db") == before  # nothing was left to run


def test_a_program_is_found_and_its_own_seconds_are_believed(run) -> None:
    command = ["--", sys.executable, "-I", "-S", "train.py", "{batch_size}", "{learning_rate}"]
    code, out, err = run("find", *ASK, "--train-examples", "500", "--json", *command)
    assert code == 0, err
    answer = json.loads(out)
    assert answer["workload"] == "train"
    assert answer["batch_size"] == 4  # as many steps at every size, and the smallest has the shortest
    assert {row["batch_size"]: row["step_seconds"] for row in answer["sizes"]} == pytest.approx(
        {4: 0.020, 8: 0.024, 16: 0.032}
    )
    assert any("takes no {seed}" in caution for caution in answer["cautions"])


def test_what_a_command_lacks_is_said_before_it_is_run_for_long(run, folder: Path) -> None:
    command = ["--", sys.executable, "-I", "-S", "train.py", "{batch_size}", "{learning_rate}"]
    plan = ["--target", "0.5", "--batch-sizes", "4", "--rates", "0.1", "--planned-examples", "4000"]
    code, _, err = run("sweep", *plan, "--seeds", "2", *command)
    assert code == 0, err
    assert "the command has no {seed}, so its 2 seeds differ by chance alone, or not at all" in err
    assert "to come: 2 runs, 40.0 s of training steps" in err
    assert "{seed}" not in run("sweep", *plan, "--seeds", "1", "--study", "one.study.db", *command)[2]
    (folder / "train.py").write_text(PROGRAM.replace("valid_loss", "valid_metric"))
    code, out, err = run("find", *ASK, "--study", "metric.study.db", *command)
    assert (code, out) == (1, "")
    assert "prints valid_metric, and it was not said whether more or less of it is better" in words(err)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["find", "digits", "letter"], "Give one workload, or a command with {batch_size}"),
        (["find", "--", "python", "train.py", "{batch_size}"], "{learning_rate}"),
        (["find", *OF_LOOP, "--device", "cuda"], "a loop or a command chooses its device itself"),
        (["find", *OF_LOOP, "--keep-models", "best"], "Only the models of a rightbatch.Workload can be kept"),
        (["find", *OF_LOOP, "--direction", "up"], "--direction is min or max, got 'up'"),
        (["find", "digits", "--direction", "max"], "direction is for loops and commands"),
        (["find", "my.py:train", "--epochs", "2"], "epochs=2 says nothing. Give --train-examples"),
        (["find", *OF_LOOP, "--pattern", "x"], "Give one workload, or a command"),
    ],
)
def test_what_does_not_go_together_is_one_clear_message(run, arguments: list[str], said: str) -> None:
    code, out, err = run(*arguments)
    assert code == 1
    assert out == ""
    assert said in words(err)
    assert "Traceback" not in err


def test_changed_code_is_refused_until_mixing_is_asked_for(run, folder: Path) -> None:
    assert run("find", *OF_LOOP)[0] == 0
    (folder / "my.py").write_text(LOOP + "# changed\n")
    code, _, err = run("find", *OF_LOOP)
    assert code == 1
    assert "--changed-code mix" in err
    code, out, _ = run("find", *OF_LOOP, "--changed-code", "mix")
    assert code == 0
    assert "runs of 2 versions of the training code are mixed in this study" in words(out)
    assert run("find", *OF_LOOP)[0] == 0  # said once, it is the code of the study


def test_what_is_said_later_of_a_loop_is_taken_over(run) -> None:
    unsaid = "how many training examples there are was not said"
    assert unsaid in words(run("find", *OF_LOOP[:-2])[1])
    assert unsaid not in words(run("find", *OF_LOOP)[1])
    assert unsaid not in words(run("find", *OF_LOOP[:-2])[1])  # the study knows it now


def test_a_study_keeps_its_direction(run) -> None:
    assert run("find", *OF_LOOP)[0] == 0
    code, out, err = run("find", *OF_LOOP, "--direction", "max")
    assert (code, out) == (1, "")
    assert "judged with the direction 'min' of the metric, not 'max'. Give --direction min" in words(err)


def test_a_direction_that_was_forgotten_can_be_said(run, folder: Path) -> None:
    """The study that a refused search left behind is in nobody's way, nor is the mended code."""
    metric = LOOP.replace("valid_loss=", "valid_metric=")
    assert metric != LOOP
    (folder / "my.py").write_text(metric)
    code, out, err = run("find", *OF_LOOP)
    assert (code, out) == (1, "")
    assert "more or less of it is better" in words(err)
    assert run("find", *OF_LOOP, "--direction", "min")[0] == 0


@pytest.mark.parametrize("agreed", [True, False])
def test_in_a_terminal_it_asks_before_code_is_mixed(run, folder: Path, monkeypatch, agreed: bool) -> None:
    assert run("find", *OF_LOOP)[0] == 0
    (folder / "my.py").write_text(LOOP + "# changed\n")
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.modules["rightbatch.cli.app"].err, "_force_terminal", True)
    monkeypatch.setattr("typer.confirm", lambda question, err: asked.append(question) or agreed)
    code, out, _ = run("find", *OF_LOOP)
    assert len(asked) == 1
    assert code == (0 if agreed else 1)
    assert ("versions of the training code" in words(out)) == agreed


def test_the_winner_is_kept_and_the_line_that_loads_it_works(run) -> None:
    options = ["--batch-sizes", "128,512", "--seeds", "1", "--threads", "1", "--keep-models", "best"]
    code, out, err = run("find", "digits", "--present", "128,0.3162", *options)
    assert code == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("model ")]
    from rightbatch.bundled.digits import digits

    model = digits().model()
    exec(line.removeprefix("model").strip(), {"model": model, "torch": torch})
    workload = digits()
    losses = workload.loss(model.eval(), workload.valid)
    assert losses.mean().item() < 0.2  # the target of digits is 0.15, and its curves fall steadily


def test_following_a_study_that_nobody_writes_shows_its_runs_and_its_answer(run) -> None:
    assert run("find", *OF_LOOP)[0] == 0
    code, out, _ = run("show", "my-train.study.db", "--follow")
    assert code == 0
    lines = out.splitlines()
    assert sum(line.startswith("run ") for line in lines) == runs_of("my-train.study.db")
    assert "my:train: train with batch size" in out


def test_debug_behind_the_dashes_belongs_to_the_program(run, folder: Path) -> None:
    (folder / "train.py").write_text("import sys; sys.exit(3 if '--debug' in sys.argv else 4)")
    command = ["--", sys.executable, "train.py", "{batch_size}", "{learning_rate}", "--debug"]
    code, _, err = run("find", *ASK, *command)
    assert code == 1
    assert "exit code 3" in err


def test_check_says_what_is_wrong_and_ends_with_one(run, folder: Path) -> None:
    assert run("check", "my.py:train", "--present", "8,0.1", "--planned-examples", "4000")[0] == 0
    (folder / "my.py").write_text(LOOP.replace("min(trial.learning_rate, 0.5)", "0.1"))
    code, out, _ = run("check", "my.py:train", "--present", "8,0.1", "--planned-examples", "4000", "--json")
    assert code == 1
    assert len([f for f in json.loads(out)["findings"] if not f["note"]]) == 1


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    assert verbs >= {"find", "sweep", "check", "profile", "show", "report", "export", "reproduce", "workloads"}
    for verb in verbs:
        app(args=[verb, "--help"], standalone_mode=False)
        assert "Usage" in capsys.readouterr().out


def test_a_length_bound_workload_cannot_be_compared_on_its_way(run, folder: Path) -> None:
    (folder / "cosine.py").write_text(
        "import dataclasses, torch\n"
        "from rightbatch.bundled.digits import digits\n"
        "def make():\n"
        "    cosine = lambda o, t: torch.optim.lr_scheduler.CosineAnnealingLR(o, t.planned_steps)\n"
        "    return dataclasses.replace(digits(), name='cosine', schedule=cosine)\n"
    )
    sizes = ["--batch-sizes", "64,256"]
    code, _, err = run("find", "cosine.py:make", "--objective", "metric", "--at-examples", "5000", *sizes)
    assert code == 1
    assert "changes along a run, so runs cannot be compared" in words(err)
    code, _, err = run("sweep", "cosine.py:make", "--until", "target", *sizes)
    assert code == 1
    assert "only the ends of runs count" in words(err)


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("my.py", "Name the function in the file too: my.py:train. "),
        ("two.py", "Name the function in the file too: two.py:FUNCTION, which is one of make, train. "),
        ("my:train", "Name the file, not the module: my.py:train. "),
        ("no.py", "Name the function in the file too: no.py:FUNCTION. "),
    ],
)
def test_who_names_no_function_of_a_file_is_told_what_to_type(folder, run, typed: str, hint: str) -> None:
    (folder / "two.py").write_text("def make():\n    pass\ndef _own():\n    pass\ndef train(trial):\n    yield\n")
    code, _, err = run("find", typed)
    assert code == 1
    assert hint in words(err)


def test_a_point_with_a_field_that_is_none_names_those_there_are(folder, run) -> None:
    (folder / "my.py").write_text(LOOP.replace("Point(step, valid_loss", "Point(step, val_loss"))
    code, _, err = run("find", *OF_LOOP)
    assert code == 1
    assert "argument 'val_loss'" in words(err)
    assert "A point has step, examples, seconds, train_loss, valid_loss, valid_metric" in words(err)
