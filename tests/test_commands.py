"""Runs of any program: what it prints becomes a curve, how it ends becomes a stop, and nothing of it stays behind."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.commands import Command, CommandRunner
from rightbatch.commands import run as command_run
from rightbatch.commands.lines import FIELDS, CurveReader, GrowingFile, Lines
from rightbatch.commands.run import CommandRun
from rightbatch.commands.step_times import Repeats
from rightbatch.commands.supervise import Supervised
from rightbatch.errors import InputError, WorkloadError
from rightbatch.machine import memory_kills
from rightbatch.records import Point, Settings, Stop, StopReason, Trial
from rightbatch.runner import Saveable

checked = settings(derandomize=True, deadline=None, max_examples=60)
PYTHON = (sys.executable, "-I", "-S")  # starts in a fraction of the time
PLACES = ("{batch_size}", "{learning_rate}", "{seed}")
TRIAL = Trial(4, 0.1, 0)
DEADLINE_SECONDS = 60.0

PRELUDE = """\
import json, os, pathlib, signal, subprocess, sys, time
here = pathlib.Path(__file__).parent
size, rate, seed = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
def say(**values):
    print(json.dumps(values), flush=True)
def note(name, text=""):  # whole or not there at all
    here.joinpath(name + ".part").write_text(str(text))
    here.joinpath(name + ".part").rename(here / name)
def wait_for(name):
    while not (here / name).exists():
        time.sleep(0.005)
"""

STUBBORN = """\
child = subprocess.Popen([sys.executable, "-I", "-S", "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(1000)"],
    stdout=subprocess.PIPE)
child.stdout.readline()  # it ignores SIGTERM by now
note("child", child.pid)
"""

TRAINING = """\
import random
random.seed(seed)
loss = 1.0
say(step=0, valid_loss=loss)
for step in range(10, 51, 10):
    loss *= 0.9 - rate * random.random()
    say(step=step, train_loss=loss / 2, valid_loss=loss)
"""


@pytest.fixture
def runner(tmp_path) -> Callable[..., CommandRunner]:
    """Makes the runner of a script."""

    def make(body: str, *further: str, python: tuple[str, ...] = PYTHON, **changes: Any) -> CommandRunner:
        script = tmp_path / "train.py"
        script.write_text(PRELUDE + body)
        return CommandRunner(Command(argv=(*python, str(script), *PLACES, *further), **changes))

    return make


@pytest.fixture
def start(runner) -> Iterator[Callable[..., CommandRun]]:
    """Starts a run of a script, which ends with the test, and before that where the test would wait in vain."""
    with contextlib.ExitStack() as runs:

        def begin(body: str, *further: str, trial: Trial = TRIAL, **changes: Any) -> CommandRun:
            made = runner(body, *further, **{"timeout_seconds": DEADLINE_SECONDS, **changes})
            return runs.enter_context(contextlib.closing(made.start(trial)))

        yield begin


def outcomes_of(run: CommandRun) -> list[Point | Stop]:
    outcomes = [run.advance()]
    while isinstance(outcomes[-1], Point):
        outcomes.append(run.advance())
        assert len(outcomes) < 1000
    return outcomes


def timeless(outcomes: list[Point | Stop]) -> list[Point | Stop]:
    return [replace(outcome, seconds=0.0) if isinstance(outcome, Point) else outcome for outcome in outcomes]


def eventually(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return found


def noted(folder: Path, name: str) -> int:
    eventually((folder / name).exists)
    return int((folder / name).read_text())


def gone(process: int) -> bool:
    """Whether a process has ended; one that nobody waits for counts as ended."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return state.stdout.strip()[:1] in ("", "Z")


# ------------------------------------------------------------------------------------------------------ the lines


def read(
    *lines: dict[str, Any] | str,
    trial: Trial = TRIAL,
    direction: Any = "min",
    pattern: str | None = None,
    seconds: float = 1.0,
) -> list[Point]:
    """The points of lines that come `seconds` apart; the first after 10."""
    reader = CurveReader(trial, direction, re.compile(pattern) if pattern else None)
    found = [
        reader.read(line if isinstance(line, str) else json.dumps(line), 10.0 + seconds * k)
        for k, line in enumerate(lines)
    ]
    reader.end()
    return [point for point in found if point is not None]


def test_a_line_may_say_all():
    line = {
        "step": 7,
        "examples": 30,
        "seconds": 2.5,
        "train_loss": 0.5,
        "valid_loss": 0.6,
        "valid_metric": 0.7,
        "test_metric": 0.8,
        "batch_size": 5,
        "learning_rate": 0.05,
        "epoch": 1,
        "note": "no field of a point",
    }
    assert read(line) == [Point(**{name: line[name] for name in FIELDS})]


def test_what_a_line_leaves_out_is_filled_in():
    zero, first, second = read(
        {"step": 0, "valid_loss": 2}, {"step": 5, "valid_loss": 1.5}, {"step": 9, "valid_loss": 1.0}
    )
    assert zero == Point(0, 0, 0.0, None, 2.0, 2.0, 4, 0.1)
    assert first == Point(5, 20, 1.0, None, 1.5, 1.5, 4, 0.1)
    assert second == Point(9, 36, 2.0, None, 1.0, 1.0, 4, 0.1)


def test_without_a_line_at_step_0_seconds_count_from_the_start():
    assert [point.seconds for point in read({"step": 5, "valid_loss": 1}, {"step": 6, "valid_loss": 1})] == [10, 11]


def test_seconds_begin_when_step_0_is_over():
    lines = [{"step": 0, "train_loss": 1}, {"step": 0, "valid_loss": 1}, {"step": 5, "valid_loss": 1}]
    assert [point.seconds for point in read(*lines)] == [0, 1]


def test_seconds_that_are_printed_are_used_as_they_are():
    lines = [{"step": 0, "valid_loss": 1}, *({"step": k, "valid_loss": 1, "seconds": k / 8} for k in (4, 8))]
    assert [point.seconds for point in read(*lines)] == [0, 0.5, 1]


@pytest.mark.parametrize("first", [{"seconds": 0.5}, {}])
def test_seconds_are_printed_always_or_never(first):
    second = {} if first else {"seconds": 12.0}
    with pytest.raises(WorkloadError, match="step 5 differs"):
        read({"step": 4, "valid_loss": 1, **first}, {"step": 5, "valid_loss": 1, **second})


def test_a_batch_size_that_changes_is_counted_as_it_was():
    points = read(
        {"step": 10, "valid_loss": 1},
        {"step": 20, "valid_loss": 1, "batch_size": 8, "learning_rate": 0.2},
        {"step": 30, "valid_loss": 1, "batch_size": 2},
    )
    assert [(point.examples, point.batch_size, point.learning_rate) for point in points] == [
        (40, 4, 0.1),
        (120, 8, 0.2),
        (140, 2, 0.1),
    ]


def test_values_that_are_not_finite_are_values():
    nan, infinite = read('{"step": 1, "valid_loss": NaN}', '{"step": 2, "valid_loss": -Infinity, "train_loss": 1e999}')
    assert math.isnan(nan.valid_loss)
    assert math.isnan(nan.valid_metric)
    assert (infinite.valid_loss, infinite.train_loss) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    "line",
    [
        "epoch 1 of 3",
        "",
        "{",
        "[1, 2]",
        '"step"',
        '{"valid_loss": 1}',
        '{"step": null, "valid_loss": 1}',
        "{'step': 1, 'valid_loss': 1}",
        '{"a":' * 100_000,
    ],
    ids=lambda line: line[:12],
)
def test_other_lines_are_passed_over(line):
    assert [point.step for point in read(line, {"step": 3, "valid_loss": 1}, line)] == [3]


@given(
    st.lists(st.tuples(st.integers(1, 4), st.one_of(st.none(), st.integers(-8, 8)), st.booleans()), max_size=30),
)
@checked
def test_train_losses_are_averaged_between_points(lines):
    """Against a twin that reads all lines at once: (steps since the line before, train loss, whether it evaluates)."""
    printed, step = [], 0
    for more, train_loss, judged in lines:
        step += more
        values = {"step": step, "train_loss": train_loss, "valid_loss": 1.0 if judged else None}
        printed.append({name: value for name, value in values.items() if value is not None})
    ends = [k for k, line in enumerate(printed) if "valid_loss" in line]
    expected = []
    for begin, end in zip([-1, *ends], ends, strict=False):
        between = [line["train_loss"] for line in printed[begin + 1 : end] if "train_loss" in line]
        mean = sum(between) / len(between) if between else None
        expected.append((printed[end]["step"], printed[end].get("train_loss", mean)))
    assert [(point.step, point.train_loss) for point in read(*printed)] == expected


def test_lines_of_one_step_make_one_point():
    lines = [
        {"step": 5, "train_loss": 3.0},
        {"step": 9, "train_loss": 1.0, "seconds": 0.5},
        {"step": 9, "valid_loss": 0.5, "test_metric": 0.25},
        {"step": 9, "valid_metric": 0.75},
        {"step": 9, "valid_metric": 0.75, "valid_loss": 0.5},
        {"step": 9, "train_loss": 7.0},
    ]
    assert read(*lines, direction="max") == [Point(9, 36, 0.5, 2.0, 0.5, 0.75, 4, 0.1, 0.25)]


@pytest.mark.parametrize("name", ["valid_metric", "test_metric"])
def test_an_evaluation_in_two_parts_is_refused(name):
    with pytest.raises(WorkloadError, match=rf"{name} of step 5 after .* Print all values"):
        read({"step": 5, "valid_loss": 1}, {"step": 5, name: 0.5})


@pytest.mark.parametrize("after", [[], [{"step": 6, "train_loss": 1}]])
def test_where_the_metric_goes_up_a_loss_is_none(after):
    with pytest.raises(WorkloadError, match=r"no valid_metric at step 5.*'max'"):
        read({"step": 5, "valid_loss": 1}, *after, direction="max")
    only_loss, both = {"step": 5, "valid_loss": 1}, {"step": 5, "valid_loss": 1, "valid_metric": 0.5}
    assert [point.valid_metric for point in (*read(only_loss), *read(both, direction="max"))] == [1, 0.5]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"step": 5}, {"step": 4}], "go back from 5 to 4"),
        ([{"step": 4, "valid_loss": 1}, {"step": 3, "train_loss": 1}], "go back from 4 to 3"),
        ([{"step": 1, "valid_loss": 1, "examples": 9}, {"step": 2, "valid_loss": 1, "examples": 9}], "do not grow: 9"),
        ([{"step": 1, "valid_loss": 1, "seconds": 2}, {"step": 2, "valid_loss": 1, "seconds": 1}], "from 2 .* to 1"),
        (['{"step": 1, "valid_loss": 1, "seconds": NaN}'], "to nan"),
        ([{"step": 2.5}], "step is 2.5 .* whole number"),
        ([{"step": -1}], "step is -1 .* whole number"),
        ([{"step": True}], "step is True .* whole number"),
        (['{"step": Infinity}'], "step is inf .* whole number"),
        ([{"step": 1, "valid_loss": [1]}], r"valid_loss is \[1\] .* expected a number"),
        ([{"step": 1, "valid_loss": "low"}], "valid_loss is 'low' .* expected a number"),
        ([{"step": 1, "train_loss": 10**400}], "train_loss is 1000"),
    ],
)
def test_lines_that_cannot_be_are_told(lines, message):
    with pytest.raises(WorkloadError, match=message):
        read(*lines)


def test_a_metric_whose_direction_was_not_said_is_refused_at_its_first_line(runner):
    loss, accuracy = {"step": 5, "valid_loss": 1}, {"step": 5, "valid_metric": 0.5}
    assert [point.valid_metric for point in read(loss, direction=None)] == [1]
    assert [point.valid_metric for point in read(accuracy, direction="max")] == [0.5]
    with pytest.raises(InputError, match=r"prints valid_metric, .*--direction max or --direction min\. Its line: \{"):
        read(accuracy, direction=None)
    made = runner("say(step=1, valid_loss=1)\nsay(step=2, valid_metric=0.5)\ntime.sleep(60)")
    assert made.facts.direction == "min"
    with pytest.raises(InputError, match="prints valid_metric"):  # no other size is started
        list(made.step_times([4, 8], rounds=3))


def test_a_pattern_reads_lines_that_exist_already():
    pattern = r"iter (?P<step>\d+).* loss (?P<train_loss>[^ ,]+)(?:, val (?P<valid_metric>\S+)%)?"
    lines = ["starting", "iter 10: loss 3e0", "iter 20: loss 1.0", "== iter 30: loss nan, val 12.5%"]
    (point,) = read(*lines, '{"step": 40, "valid_metric": 1}', pattern=pattern, direction="max")
    assert (point.step, point.valid_metric, point.examples) == (30, 12.5, 120)
    assert math.isnan(point.train_loss)
    with pytest.raises(WorkloadError, match="train_loss is 'abc'"):
        read("iter 1: loss abc", pattern=pattern)


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
@checked
def test_lines_are_the_same_in_whatever_pieces_they_come(content, cuts):
    content = content.replace(b"x", b"\n").replace(b"y", b"\r")
    lines, places = Lines(), sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    found = [line for a, b in itertools.pairwise(places) for line in lines.add(content[a:b])] + lines.end()
    whole = [line.decode(errors="replace").strip() for line in re.split(b"[\r\n]", content)]
    assert found == [line for line in whole if line]
    assert lines.end() == []
    assert list(lines.last) == lines.first == found


def test_of_much_output_little_is_kept():
    lines = Lines()
    for k in range(1000):
        lines.add(f"{k} {'x' * 1000}\n".encode())
    assert (lines.first[0][:2], lines.last[-1][:4]) == ("0 ", "999 ")
    assert max(len(lines.first), len(lines.last)) == 50
    for _ in range(40):
        assert lines.add(b"y" * 100_000) == []
    (line,) = lines.add(b"\n")
    assert len(line) <= 2**20 + 100_000


def test_a_growing_file_is_read_from_where_it_was(tmp_path):
    path = tmp_path / "metrics.jsonl"
    late = GrowingFile(path)
    assert late.read() == b""
    path.write_bytes(b"old\n")
    assert late.read() == b"old\n"
    file = GrowingFile(path)
    assert file.read() == b""
    with path.open("ab") as more:
        more.write(b"new")
    assert (file.read(), file.read(), late.read()) == (b"new", b"", b"new")
    path.write_bytes(b"emptied")
    path.write_bytes(b"anew")
    assert file.read() == b"anew"
    other = tmp_path / "other"
    other.write_bytes(b"a longer one takes its place")
    other.rename(path)
    assert (file.read(), file.read()) == (b"a longer one takes its place", b"")
    path.unlink()
    assert file.read() == b""


# ------------------------------------------------------------------------------------------------- the command line


def command(*further: str, **changes: Any) -> Command:
    return Command(argv=(*PYTHON, "train.py", *PLACES, *further), **changes)


def test_numbers_read_back_exactly():
    rate = 0.1 + 0.2
    made = command(
        "--n={planned_examples}/{planned_steps}",
        "--out={metrics}",
        "{momentum} {kind} {{as it is}} {seed:03d}",
        metrics="runs/{batch_size}-{seed}.jsonl",
        settings={"momentum": 0.9, "kind": "a b"},
    )
    trial = made.complete(Trial(64, rate, 7, 1000, Settings({"momentum": 1 / 3})))
    argv, metrics = made.fill(trial)
    assert argv[3:7] == ("train.py", "64", repr(rate), "7")
    assert argv[7:] == ("--n=1000/16", "--out=runs/64-7.jsonl", f"{1 / 3!r} a b {{as it is}} 007")
    assert metrics == Path("runs/64-7.jsonl")
    assert float(argv[5]) == rate
    assert command().fill(Trial(8, 1e-05, 0))[0][5] == "1e-05"


def test_the_program_gets_its_arguments_as_they_are(start):
    run = start(
        "say(step=size, valid_loss=rate, valid_metric=seed, test_metric=int(sys.argv[4:] == ['a b', '$HOME', '{x}']))",
        "a b",
        "$HOME",
        "{{x}}",
        trial=Trial(8, 0.3, 5),
        direction="min",
    )
    point = run.advance()
    assert (point.step, point.valid_loss, point.valid_metric, point.test_metric) == (8, 0.3, 5, 1.0)


@pytest.mark.parametrize(
    ("argv", "changes", "message"),
    [
        ((), {}, "no command"),
        (
            ("python", "{learning_rate}"),
            {},
            r"no place for \{batch_size\}.*known are \{batch_size\}, \{learning_rate\}",
        ),
        (("python", "{batch_size}"), {}, r"no place for \{learning_rate\}"),
        (("python", *PLACES), {"settings": {"momentum": 0.9}}, r"no place for \{momentum\}"),
        (("python", *PLACES, "{lr}"), {}, r"\{lr\} is no placeholder.*\{learning_rate\}.*\{planned_steps\}"),
        (("python", *PLACES, "{metrics}"), {}, r"\{metrics\} is no placeholder"),
        (("python", *PLACES, "{seed.real}"), {}, r"\{seed.real\} is no placeholder"),
        (("python", *PLACES, "{seed[0]}"), {}, r"\{seed\[0\]\} is no placeholder"),
        (("python", *PLACES, "{seed:{width}}"), {}, r"\{width\} is no placeholder"),
        (("python", *PLACES, "{}"), {}, r"\{\} is no placeholder"),
        (("python", *PLACES, "{"), {}, "cannot be filled in"),
        (("python", *PLACES, "}"), {}, "cannot be filled in"),
        (("python", *PLACES, "{seed:s}"), {}, "cannot be filled in.*Leave out the format"),
        (("python", *PLACES), {"metrics": "{metrics}"}, r"\{metrics\} is no placeholder"),
        (("python", *PLACES, "{seed}"), {"settings": {"seed": 1}}, "cannot be called 'seed'"),
        (("python", *PLACES), {"settings": {"a-b": 1}}, "cannot be called 'a-b'"),
        (("python", *PLACES), {"direction": "up"}, "'up'"),
        (("python", *PLACES), {"timeout_seconds": 0}, "timeout .* 0"),
        (("python", *PLACES), {"grace_seconds": -1}, "grace .* -1"),
        (("python", *PLACES), {"pattern": "("}, "no regular expression"),
        (("python", *PLACES), {"pattern": r"(?P<step>\d+)"}, "needs"),
        (("python", *PLACES), {"pattern": r"(?P<valid_loss>\d+)"}, "named groups valid_loss"),
        (("python", *PLACES), {"pattern": r"(?P<step>.)(?P<valid_loss>.)(?P<epoch>.)"}, "may have: step, examples"),
        (("python", *PLACES), {"pattern": r"(?P<step>.)(?P<valid_loss>.)", "direction": "max"}, "valid_metric"),
        (("python", *PLACES), {"pattern": r"(?P<step>.)(?P<valid_metric>.)"}, "Say direction 'max'"),
        (("python", *PLACES), {"pattern": r"(?P<step>.)(?P<valid_loss>.)", "metrics": "m"}, "one of the two"),
    ],
)
def test_a_command_that_cannot_be_run_is_refused(argv, changes, message):
    with pytest.raises(InputError, match=message):
        Command(argv=argv, **changes)


@pytest.mark.parametrize("program", ["no-such-program", "./train.sh", "train.sh"])
def test_a_program_must_be_there_to_be_run(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train.sh").write_text("#!/bin/sh\n")
    with pytest.raises(InputError, match=f"no program {program!r}"):
        CommandRunner(Command(argv=(program, *PLACES)))
    if program.startswith("."):
        Path("train.sh").chmod(0o755)
        assert CommandRunner(Command(argv=(program, *PLACES))).facts.name == "train"


def test_a_planned_length_is_needed_where_it_is_passed_on(runner, start):
    made = runner("", "{planned_steps}")
    with pytest.raises(InputError, match="planned_steps"):
        made.start(TRIAL)
    body = "say(step=int(sys.argv[4]), valid_loss=1)"
    assert start(body, "{planned_steps}", trial=replace(TRIAL, planned_examples=40)).advance().step == 10
    assert start(body, "{planned_steps}", planned_examples=80).advance().step == 20


# ------------------------------------------------------------------------------------------------------- whole runs


def test_a_whole_run(start):
    *points, stop = outcomes_of(start(TRAINING))
    assert stop == Stop(StopReason.FINISHED)
    assert [(point.step, point.examples) for point in points] == [(step, 4 * step) for step in range(0, 51, 10)]
    assert all(point.valid_metric == point.valid_loss == 2 * (point.train_loss or 0.5) for point in points)
    assert points[0].seconds == 0
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(points))  # read together, they came together


def test_after_its_end_a_run_says_the_same_again(start):
    run = start(TRAINING)
    stop = outcomes_of(run)[-1]
    assert run.advance() == stop
    failed = start("sys.exit(3)")
    for _ in range(2):
        with pytest.raises(WorkloadError, match="exit code 3"):
            failed.advance()


def test_runs_that_take_turns_are_what_they_are_alone(runner):
    made = runner(TRAINING)
    trials = (Trial(4, 0.1, 0), Trial(8, 0.2, 1))
    alone = []
    for trial in trials:
        with contextlib.closing(made.start(trial)) as run:
            alone.append(timeless(outcomes_of(run)))
    with contextlib.closing(made.start(trials[0])) as one, contextlib.closing(made.start(trials[1])) as other:
        turns = [(one.advance(), other.advance()) for _ in alone[0]]
    assert [timeless(list(found)) for found in zip(*turns, strict=True)] == alone
    assert alone[0] != alone[1]


def test_a_pattern_reads_a_run(start):
    run = start("print('begin'); print('it 10 val 0.5')", pattern=r"it (?P<step>\d+) val (?P<valid_loss>\S+)")
    point, stop = outcomes_of(run)
    assert (point.step, point.valid_loss, stop.reason) == (10, 0.5, StopReason.FINISHED)


def test_a_last_line_without_its_end_is_a_line(start):
    point, stop = outcomes_of(start("sys.stdout.write(json.dumps({'step': 3, 'valid_loss': 1}))"))
    assert (point.step, stop.reason) == (3, StopReason.FINISHED)


@pytest.mark.parametrize("within", [(), ("env",), ("sh", "-c", 'python=$0; "$python" "$@"; exit')])
def test_output_comes_when_it_is_printed(start, monkeypatch, within):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    body = "print(json.dumps({'step': 3, 'valid_loss': 1})); wait_for('end')"  # not flushed by the program
    run = start(body, python=(*within, sys.executable, "-S"))
    assert run.advance().step == 3


def test_lines_that_come_together_came_at_one_instant(start):
    body = "sys.stdout.write(''.join(json.dumps({'step': k, 'valid_loss': 1}) + chr(10) for k in range(1, 20)))"
    *points, _ = outcomes_of(start(body))
    assert len(points) == 19
    assert len({point.seconds for point in points}) == 1


def test_a_metrics_file_may_come_late_and_in_pieces(start, tmp_path):
    path = tmp_path / "metrics-4.jsonl"
    body = r"""
say(step=0, valid_loss=9.0)  # printed, not recorded: no business of ours
wait_for("begin")
with open(sys.argv[4], "a") as file:
    file.write('{"step": 1, "valid_loss": 1.0}\n{"step": 2, "val')
    file.flush()
    wait_for("go on")
    file.write('id_loss": 0.5}\n')
    file.flush()
    wait_for("end")
    file.write('{"step": 3, "valid_loss": 0.25}')
"""
    path.write_text('{"step": 7, "valid_loss": 7.0}\n')  # of a run before
    run = start(body, "{metrics}", metrics=str(tmp_path / "metrics-{batch_size}.jsonl"))
    for name, expected in (("begin", (1, 1.0)), ("go on", (2, 0.5)), ("end", (3, 0.25))):
        (tmp_path / name).touch()
        point = run.advance()
        assert (point.step, point.valid_loss) == expected
    assert run.advance() == Stop(StopReason.FINISHED)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_flood_blocks_nobody(start, tmp_path, stream):
    body = f"""
for line in range(10_000):
    print("x" * 1000, file=sys.{stream})
say(step=1, valid_loss=1)
note("done")
wait_for("end")
"""
    run = start(body)
    eventually((tmp_path / "done").exists)  # though nobody asks for a point
    (tmp_path / "end").touch()
    assert [type(outcome) for outcome in outcomes_of(run)] == [Point, Stop]


def test_lines_of_a_program_that_closes_its_output_are_read_to_the_end(start, tmp_path):
    run = start("say(step=1, valid_loss=1); os.close(1); os.close(2); wait_for('end')")
    assert run.advance().step == 1
    (tmp_path / "end").touch()
    assert run.advance() == Stop(StopReason.FINISHED)


# --------------------------------------------------------------------------------------------------------- the ends


@pytest.mark.parametrize(
    ("body", "changes", "message"),
    [
        ("print('hello')", {}, "(?s)ended well but gave no evaluation on standard output.*\n    hello$"),
        ("pass", {}, "The last lines there were: none"),
        ("say(step=1, train_loss=1)", {}, '(?s)no evaluation.*\n    {"step": 1, "train_loss": 1}$'),
        ("print('hello')", {"metrics": "nowhere.jsonl"}, "no evaluation in nowhere.jsonl"),
        ("say(step=1, valid_loss=1)", {"direction": "max"}, "no valid_metric at step 1"),
        (
            "print('iter 1'); print('iter 2')",
            {"pattern": r"it (?P<step>\d) (?P<valid_loss>\d)"},
            r"(?s)'it \(\?P<step>.*matched no line.*began with:\n    iter 1\n    iter 2$",
        ),
        ("sys.stderr.write('one\\n' * 60 + 'no such file\\n'); sys.exit(2)", {}, "(?s)code 2.*one\n    no such file$"),
        ("print('only printed'); sys.exit(2)", {}, "\n    only printed$"),
        ("1 / 0", {}, r"(?s)exit code 1\..*train.py 4 0.1 0\n.*\n    ZeroDivisionError"),
    ],
)
def test_a_failure_of_the_program_is_told(start, body, changes, message):
    run = start(body, **changes)
    with pytest.raises(WorkloadError, match=message):
        outcomes_of(run)


@pytest.mark.filterwarnings("ignore:A line of the program")
def test_a_program_that_calls_its_loss_otherwise_is_told_so(start):
    with pytest.raises(
        WorkloadError, match=r"Lines held val_loss, lr, which are no names known here\. Print a line such as"
    ):
        outcomes_of(start("say(step=1, val_loss=1, lr=1); say(step=2, val_loss=1, lr=1)"))


def test_a_line_with_a_step_and_nothing_known_is_told_of_once():
    reader = CurveReader(TRIAL, "min")
    with pytest.warns(
        UserWarning, match="holds val_loss, and none of train_loss, valid_loss, valid_metric, test_metric"
    ):
        assert reader.read('{"step": 1, "val_loss": 0.5}', 0.0) is None
    for line in (
        '{"step": 2, "val_loss": 0.5}',
        '{"step": 3, "valid_loss": 1, "lr": 1}',
        '{"step": 4, "train_loss": 1}',
    ):
        reader.read(line, 1.0)
    assert reader.points == 1


def test_lines_that_cannot_be_are_told_at_once(start, tmp_path):
    run = start("note('self', os.getpid()); say(step=2, valid_loss=1); say(step=1, valid_loss=1); time.sleep(1000)")
    assert run.advance().step == 2
    with pytest.raises(WorkloadError, match="go back from 2 to 1"):
        run.advance()
    assert not gone(noted(tmp_path, "self"))


def test_points_before_a_failure_are_given(start):
    run = start("say(step=1, valid_loss=1); sys.exit(1)")
    assert run.advance().step == 1
    with pytest.raises(WorkloadError):
        run.advance()


def test_a_program_that_cannot_be_executed(tmp_path):
    script = tmp_path / "train.sh"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    run = CommandRunner(Command(argv=(str(script), *PLACES))).start(TRIAL)
    with pytest.raises(WorkloadError, match=r"(?s)exit code 127.*train\.sh cannot be run: No such file"):
        run.advance()
    run.close()


@pytest.mark.parametrize(
    "line",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
        "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory",
        "OSError: [Errno 12] Cannot allocate memory",
        "MemoryError",
        "RESOURCE_EXHAUSTED: Out of memory",
    ],
)
def test_want_of_memory_is_a_stop(start, line):
    run = start(f"print({line!r}, file=sys.stderr); print('bye', file=sys.stderr); sys.exit(1)")
    assert run.advance() == Stop(StopReason.OUT_OF_MEMORY, line)


def test_want_of_memory_may_be_told_on_standard_output(start):
    run = start("print('OUT OF MEMORY', flush=True); print('sorry', file=sys.stderr); os.abort()")
    assert run.advance() == Stop(StopReason.OUT_OF_MEMORY, "OUT OF MEMORY")


def test_want_of_memory_that_was_overcome_is_none(start):
    *_, stop = outcomes_of(start("print('out of memory, halving'); say(step=1, valid_loss=1)"))
    assert stop == Stop(StopReason.FINISHED)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_signal_interrupts(start, name):
    *_, stop = outcomes_of(start(f"say(step=1, valid_loss=1); os.kill(os.getpid(), signal.{name})"))
    assert stop == Stop(StopReason.INTERRUPTED, f"killed by {name}")


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT"])
def test_a_crash_is_an_error_of_the_program(start, name):
    run = start(f"say(step=1, valid_loss=1); os.kill(os.getpid(), signal.{name})")
    assert isinstance(run.advance(), Point)
    with pytest.raises(WorkloadError, match=rf"(?s)The program ended by {name}\. It was run as\n.*train.py 4 0.1 0"):
        run.advance()


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(137)"])
def test_the_system_kills_for_want_of_memory(start, end, monkeypatch):
    counts = iter([5, 6])
    monkeypatch.setattr(command_run, "memory_kills", lambda: next(counts))
    assert start(end).advance().reason is StopReason.OUT_OF_MEMORY


@pytest.mark.parametrize("count", [5, None])
def test_a_kill_for_another_reason_is_not_one_for_want_of_memory(start, count, monkeypatch):
    monkeypatch.setattr(command_run, "memory_kills", lambda: count)
    assert start("os.kill(os.getpid(), signal.SIGKILL)").advance().reason is StopReason.INTERRUPTED


@pytest.mark.skipif(not Path("/proc/vmstat").exists(), reason="a counter of Linux")
def test_the_count_of_memory_kills():
    before = memory_kills()
    assert before is not None
    assert before >= 0
    assert memory_kills() >= before


def test_a_silent_program_runs_out_of_time(start, tmp_path):
    run = start(STUBBORN + "time.sleep(1000)", timeout_seconds=0.75, grace_seconds=0.1)
    assert run.advance() == Stop(StopReason.STOPPED_BY_RULE, "took longer than 0.75 seconds")
    eventually(lambda: gone(noted(tmp_path, "child")))


def test_points_before_the_time_ran_out_are_given(start):
    for timeout_seconds in (0.3, 3.0, 30.0):  # however slowly programs start here
        outcomes = outcomes_of(start("say(step=1, valid_loss=1); time.sleep(1000)", timeout_seconds=timeout_seconds))
        assert outcomes[-1] == Stop(StopReason.STOPPED_BY_RULE, f"took longer than {timeout_seconds:g} seconds")
        if len(outcomes) > 1:
            break
    assert [outcome.step for outcome in outcomes[:-1]] == [1]


# ---------------------------------------------------------------------------------------------------------- pauses

COUNTING = """
note("self", os.getpid())
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"])
note("child", child.pid)
step = 0
while True:
    say(step=step, valid_loss=1)
    step += 1
    time.sleep(0.01)
"""


def state_of(process: int) -> str:
    """The first letter that ps has for it: T for stopped, nothing for gone."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()[:1]


def test_a_paused_program_stops_with_all_that_it_started_until_it_is_advanced(start, tmp_path):
    run = start(COUNTING)
    run.advance()
    processes = noted(tmp_path, "self"), noted(tmp_path, "child")
    for _ in range(2):
        run.pause()
        eventually(lambda: [state_of(process) for process in processes] == ["T", "T"])
        waiting = eventually(run._outcomes.qsize) if run._outcomes.qsize() else 0
        for _ in range(waiting + 3):  # those printed before, and then new ones
            assert isinstance(run.advance(), Point)
        assert "T" not in {state_of(process) for process in processes}
    run.close()
    eventually(lambda: all(gone(process) for process in processes))


def test_a_pause_is_in_no_seconds_of_the_clock(start):
    run = start(COUNTING)
    points = [run.advance()]
    for _ in range(3):
        run.pause()
        time.sleep(0.3)
        started = time.perf_counter()
        waiting = run._outcomes.qsize()
        found = [run.advance() for _ in range(waiting + 2)]
        # No more than it went on, and what was waiting.
        assert found[-1].seconds - points[-1].seconds < 0.25 + (time.perf_counter() - started)
        points += found
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(points))
    assert points[-1].seconds < 0.9


def test_a_pause_is_not_in_the_time_that_a_run_may_take(start):
    run = start("say(step=0, valid_loss=1); wait_for('go'); say(step=1, valid_loss=1)", timeout_seconds=5.0)
    run.advance()
    run.pause()
    assert not run._timer.is_alive() or run._timer.finished.is_set()
    held = run._stopwatch.seconds()
    time.sleep(0.5)
    assert run._stopwatch.seconds() == held
    Path(run._argv[3]).with_name("go").touch()
    assert run.advance().step == 1
    assert 5.0 - held - 0.4 < run._timer.interval <= 5.0 - held  # less what the clock ran until the timer was set
    ended = start("say(step=0, valid_loss=1); time.sleep(1000)", timeout_seconds=1.5, grace_seconds=0.1)
    ended.advance()
    ended.pause()
    assert ended.advance() == Stop(StopReason.STOPPED_BY_RULE, "took longer than 1.5 seconds")


def test_a_paused_program_may_say_goodbye_when_it_is_closed(start, tmp_path):
    body = """
def end(*_):
    note("goodbye")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
say(step=0, valid_loss=1)
time.sleep(1000)
"""
    run = start(body, grace_seconds=DEADLINE_SECONDS)
    run.advance()
    run.pause()
    run.close()
    assert (tmp_path / "goodbye").exists()
    run.pause()  # after its end: nothing


def test_a_paused_program_that_will_not_end_is_killed(start, tmp_path):
    run = start(STUBBORN + "say(step=0, valid_loss=1); time.sleep(1000)", grace_seconds=0.1)
    run.advance()
    run.pause()
    run.close()
    eventually(lambda: gone(noted(tmp_path, "child")))


def test_a_paused_program_ends_when_we_are_killed(tmp_path):
    (tmp_path / "train.py").write_text(PRELUDE + COUNTING)
    argv = (*PYTHON, str(tmp_path / "train.py"), *PLACES)
    owner = f"""
import os, signal
from rightbatch.commands import Command, CommandRunner
from rightbatch.records import Trial
run = CommandRunner(Command(argv={argv!r})).start(Trial(4, 0.1, 0))
run.advance()
run.pause()
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", owner], timeout=DEADLINE_SECONDS, check=False)
    assert done.returncode == -signal.SIGKILL
    for name in ("self", "child"):
        eventually(lambda: gone(noted(tmp_path, name)))  # noqa: B023


# ------------------------------------------------------------------------------------------- nothing stays behind


def test_closing_lets_a_program_say_goodbye(start, tmp_path):
    body = """
def end(*_):
    print("x" * 10_000_000, file=sys.stderr)  # read, though nobody waits for it
    note("goodbye")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
say(step=0, valid_loss=1)
time.sleep(1000)
"""
    run = start(body, grace_seconds=DEADLINE_SECONDS)
    run.advance()
    run.close()
    assert (tmp_path / "goodbye").exists()
    run.close()


def test_closing_ends_all_that_the_program_started(start, tmp_path):
    run = start(STUBBORN + "note('self', os.getpid()); say(step=0, valid_loss=1); time.sleep(1000)")
    run.advance()
    assert not gone(noted(tmp_path, "child"))
    run.close()
    for name in ("self", "child"):
        eventually(lambda name=name: gone(noted(tmp_path, name)))


def test_closing_ends_a_program_that_will_not_end(start, tmp_path):
    body = "signal.signal(signal.SIGTERM, signal.SIG_IGN); note('self', os.getpid()); time.sleep(1000)"
    run = start(body, grace_seconds=0.1)
    process = noted(tmp_path, "self")
    run.close()
    eventually(lambda: gone(process))


def test_closing_is_allowed_before_anything_happened(start):
    for _ in range(3):
        run = start("time.sleep(1000)")
        run.close()
        run.close()


@pytest.mark.parametrize("code", [0, 1])
def test_what_a_program_leaves_behind_ends_with_it(start, tmp_path, code):
    run = start(STUBBORN + f"say(step=0, valid_loss=1); os._exit({code})")
    with contextlib.suppress(WorkloadError):
        outcomes_of(run)
    eventually(lambda: gone(noted(tmp_path, "child")))


def test_a_killed_supervisor_takes_the_program_with_it(start, tmp_path):
    run = start(STUBBORN + "note('supervisor', os.getppid()); note('self', os.getpid()); time.sleep(1000)")
    process = noted(tmp_path, "self")
    os.kill(noted(tmp_path, "supervisor"), signal.SIGKILL)
    assert run.advance() == Stop(StopReason.INTERRUPTED, "killed by SIGKILL")
    for each in (process, noted(tmp_path, "child")):
        eventually(lambda each=each: gone(each))


def test_a_program_ends_when_we_are_killed(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(PRELUDE + STUBBORN + "note('self', os.getpid()); say(step=0, valid_loss=1); time.sleep(1000)")
    parent = f"""
from rightbatch.commands import Command, CommandRunner
from rightbatch.records import Trial
run = CommandRunner(Command(argv={(*PYTHON, str(script), *PLACES)!r})).start(Trial(4, 0.1, 0))
run.advance()
print("running", flush=True)
run.advance()
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "running\n"
        programs = [noted(tmp_path, "self"), noted(tmp_path, "child")]
        assert not any(gone(program) for program in programs)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    for program in programs:
        eventually(lambda program=program: gone(program))


def test_a_program_ends_when_we_end_without_closing_it(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(PRELUDE + "note('self', os.getpid()); say(step=0, valid_loss=1); time.sleep(1000)")
    parent = f"""
from rightbatch.commands import Command, CommandRunner
from rightbatch.records import Trial
run = CommandRunner(Command(argv={(*PYTHON, str(script), *PLACES)!r}, timeout_seconds=900)).start(Trial(4, 0.1, 0))
run.advance()
"""
    subprocess.run([sys.executable, "-c", parent], check=True, timeout=DEADLINE_SECONDS)
    eventually(lambda: gone(noted(tmp_path, "self")))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are listed on Linux")
def test_a_program_holds_nothing_of_ours(start):
    others = start("say(step=0, valid_loss=1); time.sleep(1000)")  # another run's ends must not leak either
    others.advance()
    body = """
def there(fd):
    try:
        return bool(os.readlink(f"/proc/self/fd/{fd}"))
    except FileNotFoundError:  # that of the listing
        return False
held = [int(fd) for fd in os.listdir("/proc/self/fd") if there(fd)]
say(step=len(held), valid_loss=sum(held), test_metric=float(os.getpgrp() == os.getppid() == os.getsid(0)))
"""
    point = start(body).advance()
    assert (point.step, point.valid_loss, point.test_metric) == (3, 0 + 1 + 2, 1.0)


def test_finishing_kills_what_is_left(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(PRELUDE + STUBBORN)
    program = Supervised([*PYTHON, str(script), "4", "0.1", "0"], os.environ)
    child = noted(tmp_path, "child")
    assert program.finish() in (0, -signal.SIGKILL)  # the program may have ended by itself
    eventually(lambda: gone(child))


def test_a_finished_program_is_sent_no_signal(monkeypatch):
    program = Supervised([*PYTHON, "-c", "import sys; sys.exit(7)"], os.environ)
    assert program.life_line.recv(1) == b""
    assert program.finish() == program.finish() == 7
    monkeypatch.setattr(os, "killpg", lambda *_: pytest.fail("its number may be another's by now"))
    program.signal(signal.SIGKILL)


# ------------------------------------------------------------------------------------------------------- step times


def repeats_of(
    points: list[tuple[int, float]], wanted: int = 9, limit_seconds: float = 10.0, *, by_clock: bool = True
) -> Repeats:
    """Those of a run with evaluations after so many steps and seconds, of which as many are taken as are needed."""
    repeats = Repeats(wanted, limit_seconds)
    for step, seconds in points:
        if repeats.enough:
            return repeats
        repeats.add(Point(step=step, seconds=seconds), by_clock=by_clock)
    repeats.end()
    return repeats


def test_short_intervals_are_taken_together_until_they_fill_a_repeat():
    # 16 steps of 1/1024 s between evaluations: a hiccup of 0.05 s in one of them is a sixth of a repeat, not three.
    points = [(16 * k, (k + (3.2 if k > 20 else 0)) / 64) for k in range(1, 100)]
    seconds = repeats_of(points, 5).seconds
    assert len(seconds) == 5
    assert sorted(seconds)[:4] == pytest.approx([1 / 1024] * 4, rel=1e-9)
    assert max(seconds) < 1.6 / 1024


@pytest.mark.parametrize("start", [[(0, 0.0)], []])
def test_the_interval_in_which_a_program_warms_up_is_left_out_where_others_follow(start):
    points = [*start, *((10 * k, 3.0 + 0.5 * k) for k in range(1, 9))]
    assert repeats_of(points, 3).seconds == pytest.approx([0.05] * 3)
    assert repeats_of(points[:2], 3).seconds == pytest.approx([0.35 if start else 0.05])


@pytest.mark.parametrize(("interval_seconds", "repeats"), [(12, 1), (6, 1), (4, 2), (0.5, 8)])
def test_repeats_take_about_the_time_that_they_may(interval_seconds, repeats):
    points = [(step, float(step * interval_seconds)) for step in range(40)]
    assert repeats_of(points, 8).seconds == [float(interval_seconds)] * repeats


def test_lines_that_a_buffer_kept_back_are_known_by_coming_together_after_a_silence():
    buffered = [(step, 2.0 * (step // 160)) for step in range(1, 1000)]
    assert repeats_of(buffered).kept_back
    rounded = repeats_of(buffered, by_clock=False)  # its own seconds may be rounded
    assert not rounded.kept_back
    assert rounded.seconds == pytest.approx([2.0 / 160] * 4, rel=0.01)
    # Evaluations that are close, read late: three at once, without a silence before.
    assert not repeats_of([(step, 0.03 * (step // 3)) for step in range(1, 100)], 3).kept_back
    # Each after a long time, and the last one twice.
    assert not repeats_of([(1, 1.0), (2, 2.0), (3, 3.0), (4, 3.0)]).kept_back


def test_lines_that_all_come_at_the_end_are_known_too():
    assert repeats_of([(step, 0.2) for step in range(1, 50)]).kept_back
    assert repeats_of([(step, 60.0 + 1e-4 * step) for step in range(1, 50)]).kept_back
    assert repeats_of([(0, 0.0), (1, 4.0), *((step, 6.0) for step in range(2, 50))], 3).kept_back
    # A program that starts at once and is soon done: there is no more to be had, and it is said to be short.
    quick = repeats_of([(step, 0.02 + 1e-4 * step) for step in range(1, 50)])
    assert (quick.kept_back, quick.short) == (False, True)
    assert quick.seconds == pytest.approx([1e-4])
    assert repeats_of([(5, 0.2)]).seconds == repeats_of([]).seconds == []


def test_step_times_are_those_between_points(runner):
    body = """
with open(here / "starts", "a") as file:
    print(size, rate, file=file)
step = 0
while True:
    step += 4
    say(step=step, valid_loss=1, seconds=size * step / 256 + (step > 8))
"""
    made = runner(body, present=(32, 0.5))
    records = list(made.step_times([16, 8], rounds=5))
    assert [record.batch_size for record in records] == [16, 8]
    for record in records:
        usual = record.batch_size / 256
        assert record.seconds == pytest.approx((usual, usual + 0.25, usual, usual, usual))
        assert record.wait_seconds == (0.0,) * 5
        assert record.unsteady == ()  # four of five alike: nothing to measure a deviation by
    starts = Path(made.command.argv[3]).parent / "starts"
    assert starts.read_text().split() == ["16", "0.005", "8", "0.005"]
    starts.unlink()
    records = list(made.step_times([16, 8], rounds=9))
    assert [(len(r.seconds), r.unfinished) for r in records] == [(5, True), (5, True), (9, False), (9, False)]
    assert starts.read_text().split()[::2] == ["16", "8", "16", "8"]  # in turn


def test_repeats_that_stand_out_or_are_short_are_flagged(runner):
    made = runner("for k in range(1, 30): say(step=k, valid_loss=1, seconds=k / 4 + k % 3 / 64 + (k > 3))")
    _, record = made.step_times([8], rounds=9)
    assert record.unsteady == tuple(k for k, seconds in enumerate(record.seconds) if seconds > 1) == (2, 7)
    quick = runner("for k in range(1, 30): say(step=k, valid_loss=1, seconds=k / 1024)")
    _, record = quick.step_times([8], rounds=9)
    assert (record.seconds, record.unsteady) == ((1 / 1024,) * 2, (0, 1))


def test_a_program_that_keeps_its_lines_back_is_told_what_to_do(runner):
    body = "sys.stdout.write(''.join(json.dumps({'step': k, 'valid_loss': 1}) + chr(10) for k in range(1, 20)))"
    with pytest.raises(WorkloadError, match=r"At batch size 8: .*several at once.*flush=True.*print `seconds`"):
        list(runner(body).step_times([8], rounds=9))


def test_step_times_by_the_clock_end_the_program(runner, tmp_path):
    body = """
note("self", os.getpid())
note("rate", rate)
for step in range(1_000_000):
    time.sleep(0.01)
    say(step=step, valid_loss=1)
"""
    (record,) = runner(body).step_times([8], rounds=3)
    assert len(record.seconds) == 3
    assert all(0 < seconds < DEADLINE_SECONDS for seconds in record.seconds)
    assert float((tmp_path / "rate").read_text()) == 0.001
    eventually(lambda: gone(noted(tmp_path, "self")))


SIZES = """
if size == 1: sys.exit("too small")
if size == 2: say(step=1, valid_loss=1)
if size == 3: sys.exit("out of memory")
if size == 4: [say(step=step, valid_loss=1, seconds=step) for step in range(3)]; sys.exit("late")
"""


def test_sizes_that_give_no_interval_get_no_record(runner):
    made = runner(SIZES)
    with pytest.warns(UserWarning, match="(?s)No step could be timed at batch size 1: .*too small"):
        (record,) = made.step_times([1, 3, 4], rounds=3)
    assert (record.batch_size, record.seconds) == (4, (1.0,))
    assert list(made.step_times([3], rounds=3)) == []
    with pytest.raises(WorkloadError, match=r"(?s)At batch size 1: .*exit code 1.*too small"):
        list(made.step_times([1, 2], rounds=3))
    with pytest.raises(WorkloadError, match="At batch size 2: the program ended before"):
        list(made.step_times([2], rounds=3))


# ------------------------------------------------------------------------------------------------ what is known of it


def test_facts_say_what_is_known(runner):
    made = runner(
        "",
        "{momentum}",
        direction="max",
        target=0.9,
        present=(32, 0.1),
        train_examples=100,
        planned_examples=500,
        settings={"momentum": 0.9},
    )
    facts = made.facts
    assert (facts.name, facts.metric, facts.optimizer) == ("train", "valid_metric", "unknown")
    assert (facts.train_examples, facts.valid_examples, facts.planned_examples) == (100, 0, 500)
    assert (facts.direction, facts.target, facts.present) == ("max", 0.9, (32, 0.1))
    assert facts.settings == Settings({"momentum": 0.9})
    assert not any("{seed}" in sentence for sentence in facts.lacks)
    assert any("repeated, not continued" in sentence for sentence in facts.lacks)
    assert (made.environment.device, made.environment.torch, made.environment.threads) == ("command", "unknown", 0)
    assert made.environment == runner("").environment


def test_a_command_without_a_seed_says_so():
    facts = CommandRunner(Command(argv=("sh", "-c", "train {batch_size} {learning_rate}"), name="mine")).facts
    assert facts.name == "mine"
    assert any("{seed}" in sentence for sentence in facts.lacks)


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (("sh", "jobs/fit.sh", "x.py"), "fit"),
        (("sh", "-c", "x"), "sh"),
        (("sh", "--wrapper=a.py", "fit.v2.py"), "fit.v2"),
    ],
)
def test_a_command_is_called_as_its_script(argv, name):
    assert CommandRunner(Command(argv=(*argv, *PLACES))).facts.name == name


def test_the_source_is_that_of_the_command_and_its_files(runner, tmp_path):
    first = runner("pass").facts.source
    assert runner("pass").facts.source == first
    others = [runner("pass # changed"), runner("pass", "more"), runner("pass", pattern="(?P<step>.)(?P<valid_loss>.)")]
    config = tmp_path / "config.toml"
    for text in ("a = 1", "a = 2"):
        config.write_text(text)
        others.append(runner("pass", str(config)))
    sources = {first, *(other.facts.source for other in others)}
    assert len(sources) == 6
    assert all(re.fullmatch("[0-9a-f]{16}", source) for source in sources)


def test_what_is_offered_and_what_is_refused(runner):
    made = runner("", "{momentum}", train_examples=100, settings={"momentum": 0.9})
    assert made.offers(Trial(100, 0.1, 0, None, Settings({"momentum": 0.5})))
    for trial, message in ((Trial(101, 0.1, 0), "101"), (Trial(4, 0.1, 0, None, Settings({"w": 1})), "no setting 'w'")):
        assert not made.offers(trial)
        with pytest.raises(InputError, match=message):
            made.start(trial)
    assert runner("").offers(Trial(10**9, 0.1, 0))


def test_a_run_has_no_state(runner, start):
    assert not isinstance(start(TRAINING), Saveable)
    with pytest.raises(InputError, match="no state"):
        runner(TRAINING).start(TRIAL, b"")
