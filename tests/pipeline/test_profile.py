"""`profile`, called: what it measures, keeps, and does not measure again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import rightbatch
from rightbatch.bundled.quadratic import quadratic
from rightbatch.pipeline.profile import HASTY_ROUNDS, measure_step_times
from rightbatch.records import Environment, StepTime, WorkloadFacts
from rightbatch.store import Study


def test_it_measures_what_the_study_does_not_have(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    first = rightbatch.profile(quadratic(), [16, 20], study=path, rounds=3)
    assert [(one.batch_size, len(one.seconds)) for one in first] == [(16, 3), (20, 3)]
    assert all(second > 0 for one in first for second in one.seconds)
    further = rightbatch.profile(quadratic(), [16, 24], study=path, rounds=3)
    assert further[:2] == first
    assert [one.batch_size for one in further] == [16, 20, 24]


def test_a_size_larger_than_the_data_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    workload = quadratic()
    examples = workload.facts().train_examples
    with pytest.raises(rightbatch.InputError, match="larger than the data"):
        rightbatch.profile(workload, [2 * examples], study=tmp_path / "a.study.db", rounds=3)
    assert not (tmp_path / "a.study.db").exists()


@pytest.mark.parametrize("verb", [rightbatch.profile, rightbatch.sweep, rightbatch.find])
@pytest.mark.parametrize("sizes", [[0, 8], [8, -4], [8.5]])
def test_a_size_that_is_none_is_refused(tmp_path: Path, verb: Any, sizes: Any) -> None:
    with pytest.raises(rightbatch.InputError, match=r"Batch sizes are whole numbers from 1, got (0|-4|8\.5)\."):
        verb(quadratic(), batch_sizes=sizes, study=tmp_path / "a.study.db")
    assert not (tmp_path / "a.study.db").exists()


# ------------------------------------------------------------------------------------- cut short, and going on again

FACTS = WorkloadFacts("timed", 1000, 1, 0, "loss", "min", "SGD", present=(16, 0.1))


@dataclass
class Rounds:
    """A repeat of every size a round, of as many seconds as rounds were begun in all. Cut short in round `last + 1`."""

    last: int = 1000
    end: Any = KeyboardInterrupt
    facts: WorkloadFacts = FACTS
    begun: int = 0
    calls: list[tuple[list[int], int]] = field(default_factory=list)
    environment = Environment("none", 1, "none", "none", "-", "-", "-")

    def step_times(self, batch_sizes: Sequence[int], *, rounds: int) -> Iterator[StepTime]:
        self.calls.append((sorted(batch_sizes), rounds))
        seconds: tuple[float, ...] = ()
        for done in range(1, rounds + 1):
            self.begun += 1
            if self.begun > self.last:
                raise self.end
            seconds += (float(self.begun),)
            for size in batch_sizes:
                yield StepTime(size, seconds, (0.0,) * done, unfinished=done < rounds)


def timed(path: Path, runner: Rounds, sizes: Sequence[int], **how: Any) -> dict[int, tuple[float, ...]]:
    with Study.open_or_create(path, FACTS) as study:
        try:
            measure_step_times(study, runner, sizes, **how)  # type: ignore[arg-type]
        except KeyboardInterrupt:
            assert "profile" in study.costs()
        return {record.batch_size: record.seconds for record in study.step_times()}


def test_what_was_measured_before_it_was_cut_short_is_kept_and_completed(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    assert timed(path, Rounds(2), [8, 16], rounds=5) == {8: (1.0, 2.0), 16: (1.0, 2.0)}
    again = Rounds(1)
    assert timed(path, again, [8, 16], rounds=5) == {8: (1.0, 2.0, 1.0), 16: (1.0, 2.0, 1.0)}
    assert again.calls == [([8, 16], 3)]
    more = Rounds()
    found = timed(path, more, [8, 16, 20], rounds=5)
    assert more.calls == [([20], 5), ([8, 16], 2)]
    assert found == {8: (1.0, 2.0, 1.0, 6.0, 7.0), 16: (1.0, 2.0, 1.0, 6.0, 7.0), 20: (1.0, 2.0, 3.0, 4.0, 5.0)}
    done = Rounds()
    assert timed(path, done, [8, 16, 20], rounds=9) == found
    assert done.calls == []


def test_what_is_measured_again_replaces_what_is_finished_only_when_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    before = timed(path, Rounds(), [8, 16], rounds=3)
    assert timed(path, Rounds(2), [8, 16], rounds=3, again=True) == before
    runner = Rounds()
    runner.begun = 10
    assert timed(path, runner, [8, 16], rounds=3, again=True) == {8: (11.0, 12.0, 13.0), 16: (11.0, 12.0, 13.0)}


def test_what_was_measured_in_haste_goes_on_too(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    facts = replace(FACTS, lacks=("something",))
    assert timed(path, Rounds(2, facts=facts), [8, 16], budget_seconds=100.0) == {16: (1.0, 2.0)}
    found = timed(path, Rounds(facts=facts), [8, 16], budget_seconds=100.0)
    assert {size: len(seconds) for size, seconds in found.items()} == {8: HASTY_ROUNDS, 16: 2 + HASTY_ROUNDS}


def test_repeats_that_stand_out_of_all_are_flagged_when_they_were_measured_at_two_times(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    first = StepTime(8, (100.0, 1.0, 1.1), (0.0,) * 3, (), unfinished=True)
    with Study.open_or_create(path, FACTS) as study:
        study.add_step_time(first, Rounds.environment)
        (record,) = measure_step_times(study, Rounds(), [8], rounds=6)  # type: ignore[arg-type]
    assert record == StepTime(8, (100.0, 1.0, 1.1, 1.0, 2.0, 3.0), (0.0,) * 6, (0,))


SCRIPT = """\
import os, signal, sys
import rightbatch
from rightbatch.bundled.quadratic import quadratic
from rightbatch.measure import step_time

turns = 0
timed = step_time._timed_steps

def killed(stepper, steps):
    global turns
    turns += steps != 3  # those are the probe
    if turns > 2 * 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return timed(stepper, steps)

step_time.REPEAT_SECONDS = 1e-9
step_time._timed_steps = killed
rightbatch.profile(quadratic(), [16, 20], study=sys.argv[1], rounds=5)
"""


def test_a_killed_profile_keeps_its_rounds_and_the_same_call_completes_them(tmp_path: Path) -> None:
    path, script = tmp_path / "a.study.db", tmp_path / "script.py"
    script.write_text(SCRIPT)
    ended = subprocess.run([sys.executable, str(script), str(path)], env=os.environ, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    with Study.open(path) as study:
        kept = study.step_times()
    assert [(one.batch_size, len(one.seconds), one.unfinished) for one in kept] == [(16, 3, True), (20, 3, True)]
    found = rightbatch.profile(quadratic(), [16, 20], study=path, rounds=5)
    assert [(one.seconds[:3], len(one.seconds), one.unfinished) for one in found] == [
        (one.seconds, 5, False) for one in kept
    ]
