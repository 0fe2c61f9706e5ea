"""Budgets, in seconds and in multiples of a run, and what of the profile fits into one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from rightbatch.errors import InputError, WorkloadError
from rightbatch.fit.step_time import median_seconds
from rightbatch.pipeline import profile as profiling
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.budget import Budget, parse_budget, run_seconds
from rightbatch.pipeline.profile import HASTY_ROUNDS, ROUNDS, measure_step_times
from rightbatch.records import Environment, StepTime, WorkloadFacts
from rightbatch.store import Study


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("90", Budget(wall_seconds=90)),
        ("90s", Budget(wall_seconds=90)),
        (90, Budget(wall_seconds=90)),
        (0.5, Budget(wall_seconds=0.5)),
        ("1.5m", Budget(wall_seconds=90)),
        ("2h", Budget(wall_seconds=7200)),
        (" 10 M ", Budget(wall_seconds=600)),
        ("3x", Budget(runs=3)),
        ("0.02x", Budget(runs=0.02)),
        (".5X", Budget(runs=0.5)),
    ],
)
def test_a_budget_is_read_as_people_write_it(text: Any, budget: Budget) -> None:
    assert parse_budget(text) == budget
    assert budget.seconds(run_seconds=100.0) == (budget.wall_seconds or 100.0 * (budget.runs or 0))


@pytest.mark.parametrize("text", ["", "x", "0", "0x", "-3", "-3x", "3d", "3 xx", "nan", "inf", "1e400x", "3x2", "ten"])
def test_what_is_no_budget_is_refused_with_what_would_be_one(text: str) -> None:
    with pytest.raises(InputError, match=r"90 or 90s.*10m.*2h.*3x, 0\.02x\); got "):
        parse_budget(text)


@pytest.mark.parametrize("given", [{}, {"wall_seconds": 1.0, "runs": 1.0}, {"runs": 0.0}, {"wall_seconds": -1.0}])
def test_a_budget_is_one_positive_number(given: dict[str, float]) -> None:
    with pytest.raises(InputError, match="one of the two"):
        Budget(**given)


def test_seconds_need_no_run_and_multiples_do() -> None:
    assert Budget(wall_seconds=90).seconds() == 90
    with pytest.raises(InputError, match="3x needs to know how long one run takes"):
        Budget(runs=3).seconds()


# --------------------------------------------------------------------------------------------------------- the clock

FACTS = WorkloadFacts("timed", 10_000, 1, 64_000, "loss", "min", "SGD", present=(64, 0.1))


@dataclass
class Timed:
    """A step takes 1 ms and 10 us per example; a repeat is ten steps, and each call takes `start_seconds` before."""

    facts: WorkloadFacts = FACTS
    start_seconds: float = 0.5
    refused: Sequence[int] = ()
    largest: float = float("inf")
    now: float = 0.0
    calls: list[tuple[tuple[int, ...], int]] = field(default_factory=list)
    environment = Environment("none", 1, "none", "none", "-", "-", "-")

    def step_seconds(self, size: int) -> float:
        return 1e-3 + 1e-5 * size

    def step_times(self, batch_sizes: Sequence[int], *, rounds: int) -> Iterator[StepTime]:
        self.calls.append((tuple(batch_sizes), rounds))
        self.now += self.start_seconds
        fits = [size for size in batch_sizes if size <= self.largest and size not in self.refused]
        if not fits and self.refused:
            raise WorkloadError(f"no repeat at {batch_sizes[0]}")
        self.now += sum(10 * rounds * self.step_seconds(size) for size in fits)
        for size in fits:
            yield StepTime(size, (self.step_seconds(size),) * rounds, (0.0,) * rounds)


def measured(runner: Timed, path: Path, sizes: Sequence[int], budget: float | None, monkeypatch: Any) -> dict[int, int]:
    """How many repeats the study then has of each size."""
    monkeypatch.setattr(profiling.time, "monotonic", lambda: runner.now)
    with Study.open_or_create(path, runner.facts) as study:
        records = measure_step_times(study, runner, sizes, budget_seconds=budget)  # type: ignore[arg-type]
        assert study.costs()["profile"] == pytest.approx(runner.now)
    assert all(median_seconds(record) == runner.step_seconds(record.batch_size) for record in records)
    return {record.batch_size: len(record.seconds) for record in records}


SIZES = [2**k for k in range(3, 13)]


def test_without_a_budget_all_sizes_take_turns(tmp_path: Path, monkeypatch: Any) -> None:
    runner = Timed()
    found = measured(runner, tmp_path / "a.db", SIZES, None, monkeypatch)
    assert set(found.values()) == {ROUNDS}
    assert {*SIZES, 31, 33, 127, 129, 511, 513} == set(found)
    assert len(runner.calls) == 1


def test_with_time_enough_all_take_turns_after_a_look_in_haste(tmp_path: Path, monkeypatch: Any) -> None:
    runner = Timed()
    found = measured(runner, tmp_path / "a.db", SIZES, 10_000.0, monkeypatch)
    assert set(found.values()) == {ROUNDS}
    assert [(len(sizes), rounds) for sizes, rounds in runner.calls] == [(1, HASTY_ROUNDS), (len(found), ROUNDS)]
    assert runner.calls[0][0] == (64,)


@pytest.mark.parametrize("budget", [0.1, 1.0, 2.0, 3.0, 5.0, 8.0])
def test_a_small_budget_is_kept_and_the_present_size_comes_first(
    tmp_path: Path, monkeypatch: Any, budget: float
) -> None:
    runner = Timed()
    found = measured(runner, tmp_path / "a.db", SIZES, budget, monkeypatch)
    first = runner.start_seconds + 10 * HASTY_ROUNDS * runner.step_seconds(64)
    assert runner.now <= max(budget, first)  # one is measured in any case
    assert set(found.values()) == {HASTY_ROUNDS}
    assert 64 in found
    assert runner.now + first > budget * 0.5  # and most of it is used
    factors = [max(size / 64, 64 / size) for ((size,), _) in runner.calls]
    assert factors == sorted(factors)  # the nearest first


def test_what_was_measured_in_haste_is_measured_again_when_there_is_time(tmp_path: Path, monkeypatch: Any) -> None:
    found = measured(Timed(), tmp_path / "a.db", SIZES, 2.0, monkeypatch)
    assert set(found.values()) == {HASTY_ROUNDS}
    again = Timed()
    monkeypatch.setattr(profiling.time, "monotonic", lambda: again.now)
    with Study.open(tmp_path / "a.db", write=True) as study:
        records = measure_step_times(study, again, SIZES, budget_seconds=1e4)  # type: ignore[arg-type]
    assert {len(record.seconds) for record in records} == {ROUNDS}


def test_a_size_that_does_not_fit_ends_the_larger_ones_only(tmp_path: Path, monkeypatch: Any) -> None:
    # Too little for all, enough for those that fit.
    runner = Timed(largest=256)
    found = measured(runner, tmp_path / "a.db", SIZES, 20.0, monkeypatch)
    assert {8, 16, 32, 64, 128, 256} <= set(found)
    assert max(found) <= 257
    tried = [sizes[0] for sizes, _ in runner.calls if len(sizes) == 1 and sizes[0] > 256]
    assert len(tried) <= 2


def test_of_a_loop_a_size_without_a_repeat_is_passed_over_and_none_at_all_is_an_error(
    tmp_path: Path, monkeypatch: Any
) -> None:
    facts = replace(FACTS, lacks=("something",))
    runner = Timed(facts, refused=(64, 128))
    with pytest.warns(UserWarning, match="No step could be timed at batch size (64|128): no repeat"):
        found = measured(runner, tmp_path / "a.db", [32, 64, 128], 1000.0, monkeypatch)
    assert found == {32: HASTY_ROUNDS}
    assert all(len(sizes) == 1 for sizes, _ in runner.calls)  # each is a start of the person's code
    with pytest.raises(WorkloadError, match="no repeat at 64"):
        measured(Timed(facts, refused=(64, 128)), tmp_path / "b.db", [64, 128], 1000.0, monkeypatch)


# ----------------------------------------------------------------------------------------------------- one training run


def test_a_run_takes_its_planned_steps_times_the_seconds_of_a_step(tmp_path: Path) -> None:
    runner: Any = Timed()
    with Study.open_or_create(tmp_path / "a.db", runner.facts) as study:
        assert run_seconds(study, runner, Ask()) == pytest.approx(1000 * 1.64e-3)
        assert runner.calls == [((64,), HASTY_ROUNDS)]  # the present size, and no other
        assert run_seconds(study, runner, Ask()) == pytest.approx(1000 * 1.64e-3)
        assert len(runner.calls) == 1  # once
        asked = Ask(present=(128, 0.1), planned_examples=12_800)
        assert run_seconds(study, runner, asked) == pytest.approx(100 * 2.28e-3)
        assert run_seconds(study, runner, Ask(present=(100, 0.1), epochs=2)) == pytest.approx(200 * 2e-3)
        assert Budget(runs=3).seconds(run_seconds(study, runner, Ask())) == pytest.approx(3 * 1.64)


def test_without_a_planned_length_or_a_step_time_multiples_say_nothing(tmp_path: Path) -> None:
    endless: Any = Timed(replace(FACTS, planned_examples=0))
    with Study.open_or_create(tmp_path / "a.db", endless.facts) as study:
        with pytest.raises(InputError, match=r"'timed' is planned to be is not known. Give --planned-examples"):
            run_seconds(study, endless, Ask())
        assert endless.calls == []
        assert run_seconds(study, endless, Ask(planned_examples=640)) == pytest.approx(10 * 1.64e-3)
    narrow: Any = Timed(largest=16)
    with (
        Study.open_or_create(tmp_path / "b.db", narrow.facts) as study,
        pytest.raises(InputError, match="present batch size 64, which could not be measured"),
    ):
        run_seconds(study, narrow, Ask())
