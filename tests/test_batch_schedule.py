"""Planned batch sizes: steps and examples agree with counting one by one, and one size is what it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch import curves
from rightbatch.batch_schedule import BatchSchedule, Phase, parsed
from rightbatch.errors import InputError

GROWING = parsed(32, "128@1000, 512@5000*2")


@st.composite
def schedules(draw: st.DrawFn) -> BatchSchedule:
    begins = sorted({0, *draw(st.lists(st.integers(1, 2000), max_size=3))})
    return BatchSchedule(tuple(Phase(begin, draw(st.integers(1, 300))) for begin in begins))


def counted(schedule: BatchSchedule, steps: int) -> list[int]:
    """Examples seen after each step, one by one."""
    seen = [0]
    for _ in range(steps):
        seen.append(seen[-1] + schedule.at(seen[-1]).batch_size)
    return seen


def test_a_step_belongs_to_the_phase_in_which_it_begins() -> None:
    assert [phase.batch_size for phase in map(GROWING.at, (0, 999, 1000, 4999, 5000, 10**9))] == [
        *(32, 32, 128, 128, 512, 512)
    ]
    assert GROWING.at(5000).rate_factor == 2
    assert counted(GROWING, 33)[31:] == [992, 1024, 1152]


@given(schedules(), st.integers(0, 400))
def test_examples_are_those_counted_one_by_one(schedule: BatchSchedule, steps: int) -> None:
    assert schedule.examples_after(steps) == counted(schedule, steps)[-1]


@given(schedules(), st.integers(0, 3000), st.integers(1, 100))
def test_steps_of_a_phase_are_those_counted_one_by_one(schedule: BatchSchedule, examples: int, most: int) -> None:
    phase, count, seen = schedule.at(examples), 0, examples
    while count < most and schedule.at(seen) == phase:
        count, seen = count + 1, seen + phase.batch_size
    assert schedule.steps_in(examples, most) == count


@given(st.integers(1, 300), st.integers(1, 20_000))
def test_the_ladder_of_one_size_is_as_before(size: int, planned: int) -> None:
    ladder = curves.ladder(planned)
    assert parsed(size, "").steps_near(ladder) == curves.rungs_in_steps(planned, size)


@given(schedules(), st.lists(st.floats(1, 5000), min_size=1, max_size=8))
def test_no_other_number_of_steps_is_nearer(schedule: BatchSchedule, marks: list[float]) -> None:
    seen = counted(schedule, 5200)
    found = schedule.steps_near(marks)
    assert found == tuple(sorted(set(found)))
    for mark in marks:
        nearest = min(abs(examples - mark) for examples in seen[1:])
        assert min(abs(seen[step] - mark) for step in found) <= nearest + 1e-6


@pytest.mark.parametrize(("factor", "written"), [(2.0, "2"), (0.707, "0.707"), (1e-5, "1e-05"), (1 / 3, repr(1 / 3))])
def test_factors_are_written_exactly(factor: float, written: str) -> None:
    schedule = BatchSchedule((Phase(0, 32), Phase(1000, 64, factor)))
    assert str(schedule) == f"64@1000*{written}"
    assert parsed(32, str(schedule)) == schedule


@given(schedules())
def test_what_is_written_is_read(schedule: BatchSchedule) -> None:
    assert parsed(schedule.phases[0].batch_size, str(schedule)) == schedule


@pytest.mark.parametrize(
    "text", ["1024", "1024@", "@50", "-3@50", "1024@50*", "1024@50000*0", "0@50", "16@0", "16@90,32@50", "16@5,,32@9"]
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parsed(32, text)
