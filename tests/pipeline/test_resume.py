"""Whatever ends a sweep, the same command goes on: nothing that was finished is lost, repeated, or left over."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import rightbatch
from rightbatch.errors import ChangedCodeError
from rightbatch.evidence import Evidence
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.loop import drive
from rightbatch.pipeline.setting_up import gather, open_study, question
from rightbatch.records import Point, Run, Stop, StopReason, Target, Trial
from rightbatch.search.strategy import fixed
from rightbatch.store import RESUMABLE, Study
from rightbatch.workers import Workers

LONG_SECONDS = 60.0
"""A deadline, never a wait: what is expected comes in a fraction of it."""

SCRIPT = '''\
"""A sweep over runs without torch, whose every point depends on all points before, and whose states are saved."""
import hashlib
import json
import time
from dataclasses import dataclass

import rightbatch
from rightbatch.pipeline import desk
from rightbatch.records import Environment, Point, StepTime, Stop, StopReason, WorkloadFacts


@dataclass(frozen=True)
class Chain:
    facts = WorkloadFacts("chain", 1000, 1, 320, "loss", "min", "SGD", target=0.5, present=(8, 0.1), source="1")
    environment = Environment("none", 1, "none", "none", "-", "-", "-")

    def offers(self, trial):
        return True

    def start(self, trial, state=None):
        return Run(trial, json.loads(state) if state else [0, ""])

    def step_times(self, batch_sizes, *, rounds):
        return iter([StepTime(size, (1e-3, 1.1e-3, 1.2e-3), (0.0,) * 3) for size in batch_sizes])


class Run:
    def __init__(self, trial, state):
        self.trial, (self.step, self.link) = trial, state

    def advance(self):
        size = self.trial.batch_size
        if self.step * size > self.trial.planned_examples:
            return Stop(StopReason.FINISHED)
        end = time.perf_counter() + 0.004
        while time.perf_counter() < end:
            pass
        self.link = hashlib.sha256(f"{self.link} {self.trial}".encode()).hexdigest()
        loss = 1 / (1 + 0.1 * self.step) + int(self.link[:4], 16) / 2**24
        point = Point(self.step, self.step * size, 0.0, loss, loss, loss, size, self.trial.learning_rate)
        self.step += 1
        return point

    def save(self):
        return json.dumps([self.step, self.link]).encode()

    def close(self):
        pass


def sweep(study, workers):
    """Every run to its end, which all must reach: no loss is below zero."""
    desk.STATE_SECONDS = 0.02
    how = {"workers": workers, "study": study, "rates": [0.03162, 0.1, 0.3162, 1.0], "seeds": 1, "objective": "steps"}
    try:
        rightbatch.sweep(Chain(), [4, 8], target=0.0, **how)
    except rightbatch.InsufficientEvidence as said:
        return str(said)


if __name__ == "__main__":
    import sys

    print(sweep(sys.argv[1], int(sys.argv[2])))
'''


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "chain.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module")
def chain(script: Path) -> Iterator[ModuleType]:
    """The script as a module of this process."""
    spec = importlib.util.spec_from_file_location("chain", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["chain"] = module
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("rightbatch.pipeline.desk.STATE_SECONDS", 20.0)  # put back what a sweep here sets
        spec.loader.exec_module(module)
        yield module
    del sys.modules["chain"]


@pytest.fixture(scope="module")
def undisturbed(chain: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[Trial, list[Point]]]:
    """The answer of a sweep that nothing happens to, and its curves."""
    path = tmp_path_factory.mktemp("undisturbed") / "chain.study.db"
    said = chain.sweep(path, 1)
    assert "No batch size and rate reached the target" in said
    found = finished(path)
    assert len(found) == 8
    return said, {run.trial: list(run.points) for run in found}


def finished(path: Path) -> list[Run]:
    with Study.open(path) as study:
        return [run for run in study.runs() if run.stop and run.stop.reason is StopReason.FINISHED]


def assert_whole(path: Path) -> None:
    """A study that no kill has damaged."""
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    with Study.open(path) as study:
        for run in study.runs():
            steps = [point.step for point in run.points]
            assert all(before < after for before, after in itertools.pairwise(steps)), run.identifier
    assert max(Counter(run.trial for run in finished(path)).values(), default=1) == 1


def processes() -> dict[int, int]:
    """The parent of every process that runs, and is not only waited for."""
    shown = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in shown.splitlines())
    return {int(process): int(parent) for process, parent, state in rows if not state.startswith("Z")}


def workers_of(parent: int) -> list[int]:
    return [process for process, of in processes().items() if of == parent]


def points_in(path: Path) -> int:
    """How many points the study has so far; it may be in the making."""
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
        try:
            return int(connection.execute("SELECT count(*) FROM points").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.OperationalError:
        return 0


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LONG_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {LONG_SECONDS:g} s: {what}"
        time.sleep(0.002)


@contextlib.contextmanager
def command(*arguments: Any, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group of its own, as a shell would start it; killed if it is left running."""
    with subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LONG_SECONDS)
    return process.returncode, out, err


# ----------------------------------------------------------------------------------------------------------- kill -9


def test_killed_three_times_at_random_a_sweep_ends_as_if_nothing_had_happened(
    script: Path, tmp_path: Path, undisturbed: tuple[str, dict[Trial, list[Point]]]
) -> None:
    path = tmp_path / "chain.study.db"
    generator, kept = random.Random(7), dict[int, Run]()
    said, curves = undisturbed
    most = sum(map(len, curves.values()))
    for kill in range(1, 4):
        with command(script, path, 2, folder=tmp_path) as process:
            wanted = points_in(path) + generator.randrange(1, most // 5)
            until(lambda: points_in(path) >= wanted or process.poll() is not None, "the sweep goes on")  # noqa: B023
            # On a busy machine the first worker may have points before the second has started.
            until(lambda: len(workers_of(process.pid)) == 2 or process.poll() is not None, "both workers run")
            assert process.poll() is None, end(process)
            workers = workers_of(process.pid)
            process.kill()
            end(process)
        until(lambda: not set(workers) & set(processes()), "no worker outlives it")  # noqa: B023
        assert_whole(path)
        now = {run.identifier: run for run in finished(path)}
        assert {number: now[number] for number in kept} == kept  # nothing that was finished is lost or changed
        kept = now
        assert len(kept) < 8, f"kill {kill} came too late to disturb anything"
    with command(script, path, 2, folder=tmp_path) as process:
        code, out, err = end(process)
    assert (code, out.strip()) == (0, said), err
    assert_whole(path)
    found = {run.identifier: run for run in finished(path)}
    assert {number: found[number] for number in kept} == kept
    assert {run.trial: list(run.points) for run in found.values()} == curves
    # What was cut short and had no state stays as it was, and says so; nobody is left running.
    with Study.open(path) as study:
        others = [run for run in study.runs() if run.identifier not in found]
    assert all(run.stop is not None and run.stop.reason is StopReason.INTERRUPTED for run in others)


def test_a_killed_worker_is_replaced_and_the_sweep_ends_as_if_nothing_had_happened(
    script: Path, tmp_path: Path, undisturbed: tuple[str, dict[Trial, list[Point]]]
) -> None:
    path = tmp_path / "chain.study.db"
    with command(script, path, 2, folder=tmp_path) as process:
        until(lambda: points_in(path) > 3 or process.poll() is not None, "the sweep has begun")
        until(lambda: len(workers_of(process.pid)) == 2 or process.poll() is not None, "both workers run")
        workers = workers_of(process.pid)
        os.kill(workers[0], signal.SIGKILL)
        code, out, err = end(process)
    said, curves = undisturbed
    assert (code, out.strip()) == (0, said), err
    assert_whole(path)
    assert {run.trial: list(run.points) for run in finished(path)} == curves


# ------------------------------------------------------------------------------------------------------------ Ctrl-C

LOOP = """\
import time
import rightbatch


def train(trial):
    yield rightbatch.Point(0, valid_loss=1.0)
    for step in range(1, 100_000):
        time.sleep(0.001)
        if trial.due(step):
            yield rightbatch.Point(step, valid_loss=1 / (1 + 1e-6 * step))
"""


def test_ctrl_c_with_workers_says_how_to_go_on_and_leaves_a_whole_study_and_no_process(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(LOOP)
    path = tmp_path / "a.study.db"
    arguments = ["sweep", "my.py:train", "--batch-sizes", "4,8", "--rates", "0.1", "--seeds", "2", "--target", "0.5"]
    arguments += ["--train-examples", "1000", "--planned-examples", "400000", "--workers", "2", "--study", str(path)]
    arguments += ["--objective", "steps"]
    with command("-m", "rightbatch", *arguments, folder=tmp_path) as process:
        until(lambda: points_in(path) >= 4 or process.poll() is not None, "the sweep has begun")
        assert process.poll() is None, end(process)
        workers = workers_of(process.pid)
        assert len(workers) == 2
        os.killpg(process.pid, signal.SIGINT)
        code, out, err = end(process)
    assert code == 130, err
    assert out == ""
    assert "the same command goes on: rightbatch sweep my.py:train" in err
    assert "Traceback" not in err
    assert not set(workers) & set(processes())
    assert_whole(path)
    with Study.open(path) as study:
        stops = [run.stop for run in study.runs()]
        assert len(stops) == 2
        assert stops == [Stop(StopReason.INTERRUPTED, "the process was told to end")] * 2
        assert study.costs()["runs"] > 0
    assert not Path(f"{path}.lock").exists()


# ------------------------------------------------------------------------------------------------- half a curve


def test_a_sweep_to_the_horizon_finishes_the_run_that_was_cut_short_beyond_its_target(
    chain: ModuleType, tmp_path: Path
) -> None:
    def interrupt(run: Run, why: str, evidence: Evidence) -> None:
        if run.points[-1].step == 30:
            assert run.points[-5].valid_loss < 0.5
            raise KeyboardInterrupt

    how = {"study": tmp_path / "chain.study.db", "rates": [0.1], "seeds": 1, "objective": "steps", "target": 0.5}
    with pytest.raises(KeyboardInterrupt):
        rightbatch.sweep(chain.Chain(), [4, 8], watch=interrupt, **how)
    rightbatch.sweep(chain.Chain(), [4, 8], **how)
    assert {run.trial.batch_size for run in finished(how["study"])} == {4, 8}


# ------------------------------------------------------------------------------------------------------ changed code


def test_changed_code_is_refused_or_mixed_and_then_the_answer_says_so(chain: ModuleType, tmp_path: Path) -> None:
    class Changed(chain.Chain):  # type: ignore[name-defined,misc]
        facts = replace(chain.Chain.facts, source="2")

    def sweep(runner: Any, **how: Any) -> rightbatch.Recommendation:
        path = tmp_path / "chain.study.db"
        return rightbatch.sweep(runner, [4, 8], study=path, rates=[0.1], seeds=1, objective="steps", **how)

    first = sweep(chain.Chain())
    assert not any("versions of the training code" in caution for caution in first.cautions)
    with pytest.raises(ChangedCodeError, match=r"source 1, now 2.*--changed-code mix"):
        sweep(Changed())
    before = finished(tmp_path / "chain.study.db")
    assert sweep(chain.Chain()).cautions == first.cautions  # a refusal has changed nothing
    mixed = sweep(Changed(), changed_code="mix")
    assert "runs of 2 versions of the training code are mixed in this study" in mixed.cautions
    assert finished(tmp_path / "chain.study.db") == before
    assert sweep(Changed()).cautions == mixed.cautions  # it is now the study's code, and stays said
    with Study.open(tmp_path / "chain.study.db") as study:
        assert (study.facts.source, study.facts.earlier_sources) == ("2", ("1",))
        assert replace(study.facts, source="1", earlier_sources=()) == chain.Chain.facts


def test_code_that_is_restored_is_no_third_version(chain: ModuleType, tmp_path: Path) -> None:
    facts = chain.Chain.facts
    for source in ("1", "2", "1"):
        with open_study(tmp_path / "chain.study.db", replace(facts, source=source), "mix") as study:
            known = {study.facts.source, *study.facts.earlier_sources}
            assert len(known) == 1 + len(study.facts.earlier_sources)


# ----------------------------------------------------------------------------------------------------- damaged states

PLANNED = 4000


def damage(path: Path, how: str) -> None:
    """Overwrite bytes of the only saved state."""
    with sqlite3.connect(path) as connection:
        ((state,),) = connection.execute("SELECT state FROM states").fetchall()
        damaged = bytearray(state)
        if how == "cut off":
            damaged = damaged[: len(damaged) // 2]
        elif how == "overwritten":
            damaged[1000:2000] = bytes(1000)
        elif how == "a bit":  # in the middle: of one of the tensors
            damaged[len(damaged) // 2] ^= 0x40
        else:  # whole, but nothing that this version can read
            content = b"a state of another version"
            damaged = bytearray(hashlib.sha256(content).digest() + content)
        assert bytes(damaged) != state
        connection.execute("UPDATE states SET state = ?", (bytes(damaged),))
    connection.close()


@pytest.fixture(scope="module")
def digits_runner() -> Any:
    pytest.importorskip("torch")
    from rightbatch.bundled.digits import digits
    from rightbatch.engine import WorkloadRunner

    return WorkloadRunner(digits())


@pytest.mark.parametrize(
    ("how", "in_a_worker"),
    [
        ("cut off", False),
        ("overwritten", False),
        ("a bit", False),
        ("of another version", False),
        ("of another version", True),
    ],
)
def test_a_damaged_state_repeats_the_run_instead_of_failing(
    digits_runner: Any, tmp_path: Path, how: str, in_a_worker: bool
) -> None:
    path, trial = tmp_path / "a.study.db", Trial(64, 0.1, 0, PLANNED)
    facts = replace(digits_runner.facts, planned_examples=PLANNED)

    def go_on(seconds: float, crew: Workers | None = None) -> None:
        never = question(Ask(objective="steps"), Target(-1.0, "valid_loss", "min"))
        with Study.open_or_create(path, facts) as study:
            evidence = gather(study, facts, never, runner=digits_runner)
            deadline = time.monotonic() + seconds
            drive(study, digits_runner, fixed([trial], "test"), evidence, deadline=deadline, crew=crew)

    while not points_in(path):  # until one call had time for a point, and its state
        go_on(0.005)
    damage(path, how)
    with Workers(lambda: digits_runner, 1, threads=1) if in_a_worker else contextlib.nullcontext() as crew:
        go_on(LONG_SECONDS, crew)
    with Study.open(path) as study:
        first, *others = study.runs()
    assert first.stop is not None
    assert first.stop.reason in RESUMABLE
    assert ("saved state of a run cannot be read" in first.stop.message) == (how == "of another version")
    (second,) = others
    assert second.stop == Stop(StopReason.FINISHED)
    run, whole = digits_runner.start(trial), []
    while isinstance(outcome := run.advance(), Point):
        whole.append(replace(outcome, seconds=0.0))
    assert [replace(point, seconds=0.0) for point in second.points] == whole
