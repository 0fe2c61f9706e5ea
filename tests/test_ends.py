"""Runs of which only the ends count: which length is run next, what a ladder of lengths says, and that it is right."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rightbatch import curves
from rightbatch.ends import BRACKET_FACTOR, FIRST_SHARE, SHORTEST_SHARE, Bracket, bracket, next_length, run_of_ends
from rightbatch.evidence import Evidence
from rightbatch.lattice import index_of, rate_at
from rightbatch.pipeline.loop import drive
from rightbatch.pipeline.setting_up import gather
from rightbatch.question import Objective, Question
from rightbatch.recommend import recommend
from rightbatch.records import (
    Environment,
    Point,
    Run,
    StepTime,
    Stop,
    StopReason,
    Target,
    Trial,
    WorkloadFacts,
)
from rightbatch.search.adaptive import Adaptive
from rightbatch.search.strategy import Done, by_length, fixed
from rightbatch.search.sweep import Sweep
from rightbatch.store import Study

LONGEST = 6400
TARGET = Target(0.0, "valid_metric", "max")
MOST_RUNS = 7


def end(examples: int, reaches: bool, batch_size: int = 1) -> Point:
    return Point(examples // batch_size, examples, valid_metric=1.0 if reaches else -1.0, batch_size=batch_size)


def run_at(examples: int, value: float | None, stop: StopReason = StopReason.FINISHED, identifier: int = 1) -> Run:
    """A run planned for so many examples at batch size 10, with a point half-way that reads better than its end."""
    steps = examples // 10
    points = (Point(0, valid_metric=-9.0), Point(steps // 2, 10 * (steps // 2), valid_metric=9.0, batch_size=10))
    if value is not None:
        points = (*points, Point(steps, examples, valid_metric=value, batch_size=10))
    return Run(Trial(10, 0.1, 0, examples), points, Stop(stop), 1.0, identifier)


# ---------------------------------------------------------------------------------------------------- next_length


@pytest.mark.parametrize(
    ("known", "following"),
    [
        ({}, 800),  # an eighth
        ({800: False}, 1600),
        ({800: False, 1600: False}, 3200),
        ({800: False, 1600: False, 3200: False}, 6400),
        ({800: False, 1600: False, 3200: False, 6400: False}, None),  # no length reaches
        ({800: False, 1600: True}, 1131),  # once between: 800 sqrt(2)
        ({800: False, 1131: False, 1600: True}, None),
        ({800: False, 1131: True, 1600: True}, None),
        ({800: True}, 400),
        ({800: True, 400: True}, 200),
        ({800: True, 400: True, 200: True}, 100),
        ({800: True, 400: True, 200: True, 100: True}, None),  # no shorter ones are tried
        ({800: True, 400: False}, 566),
        ({5800: False}, None),  # as long as the longest, but for a last step that does not fit
        ({5000: False}, 6400),
        ({6400: True}, 3200),  # the present choice was run at full length, to set the target
    ],
)
def test_the_next_length_by_hand(known: dict[int, bool], following: int | None) -> None:
    ends = [end(examples, reaches) for examples, reaches in known.items()]
    assert next_length(ends, TARGET, LONGEST) == following
    assert next_length([Point(0, valid_metric=1.0), *ends], TARGET, LONGEST) == following  # a start is no end


def test_of_another_seed_two_lengths_are_enough_where_they_say_the_same() -> None:
    first = [end(examples, reaches) for examples, reaches in ((800, False), (1600, True), (1131, False))]
    known = bracket(first, TARGET)
    assert known == (1131, 1600)
    assert next_length([], TARGET, LONGEST, known) == 1600
    assert next_length([end(1600, True)], TARGET, LONGEST, known) == 1131
    assert next_length([end(1600, True), end(1131, False)], TARGET, LONGEST, known) is None
    assert next_length([end(1600, False)], TARGET, LONGEST, known) == 2263  # and no further between
    assert next_length([end(1600, False), end(2263, True)], TARGET, LONGEST, known) is None
    assert bracket([end(800, True)], TARGET) is None
    assert bracket([end(800, False)], TARGET) is None


@settings(derandomize=True, deadline=None, max_examples=200)
@given(needed=st.floats(0.05, 0.9), factor=st.floats(0.5, 2.0))
def test_another_seed_costs_no_more_runs_the_nearer_it_is(needed: float, factor: float) -> None:
    longest = 1_000_000
    known = bracket(search(needed * longest, longest, 100), TARGET)
    assert known is not None
    ends = search(min(0.9, factor * needed) * longest, longest, 100, known)
    reached, missed = (
        min(p.examples for p in ends if p.valid_metric == 1.0),
        [p for p in ends if p.valid_metric == -1.0],
    )
    assert max((point.examples for point in missed), default=0) >= reached / BRACKET_FACTOR
    assert len(ends) <= 3 + math.ceil(abs(math.log2(factor)) * 2)  # 2 but for where a last step is rounded to


def search(needed_examples: float, longest: int, batch_size: int, likely: Bracket | None = None) -> list[Point]:
    """The lengths that are run where a run reaches the target if it is at least so long."""
    ends: list[Point] = []
    while (planned := next_length(ends, TARGET, longest, likely)) is not None:
        steps = Trial(batch_size, 0.1, 0, planned).planned_steps
        assert planned >= 1
        assert steps is not None
        examples = steps * batch_size
        assert planned <= longest
        assert examples not in {point.examples for point in ends}, "a length is run twice"
        ends.append(end(examples, examples >= needed_examples, batch_size))
        assert len(ends) <= MOST_RUNS
    return sorted(ends, key=lambda point: point.examples)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    longest=st.integers(400, 10_000_000),
    share=st.floats(1e-3, 2.0),
    steps_of_the_longest=st.floats(100, 5000),
)
def test_the_shortest_length_is_found_to_a_factor_in_a_few_runs(
    longest: int, share: float, steps_of_the_longest: float
) -> None:
    batch_size = max(1, round(longest / steps_of_the_longest))
    needed = share * longest
    ends = search(needed, longest, batch_size)
    reached = [point.examples for point in ends if point.valid_metric == 1.0]
    missed = [point.examples for point in ends if point.valid_metric == -1.0]
    if not reached:
        assert max(missed) > 0.9 * longest
        assert needed > max(missed)
        return
    shortest = min(reached)
    assert all(examples < shortest for examples in missed)
    if missed:  # one step more at either end is what whole steps cost
        assert shortest - batch_size <= BRACKET_FACTOR * (max(missed) + batch_size)
        assert max(missed) < needed <= shortest
    else:
        assert shortest < 2 * SHORTEST_SHARE * longest + batch_size


@settings(derandomize=True, deadline=None, max_examples=200)
@given(longest=st.integers(1, 2000), batch_size=st.integers(1, 500), needed=st.integers(1, 3000))
@example(longest=60_000, batch_size=30_000, needed=60_000)  # one step misses, two reach: there is none between
@example(longest=14, batch_size=10, needed=100)  # a single step is all that fits
@example(longest=5, batch_size=1, needed=1)  # half of one example is none
def test_no_length_is_run_twice_however_few_steps_there_are(longest: int, batch_size: int, needed: int) -> None:
    search(needed, longest, batch_size)


# ---------------------------------------------------------------------------------------------------- run_of_ends


def test_the_curve_of_several_lengths_are_their_ends() -> None:
    runs = [run_at(1600, 1.0, identifier=2), run_at(800, -1.0, identifier=1), run_at(1130, -0.5, identifier=3)]
    run = run_of_ends(runs, TARGET, LONGEST)
    assert [(p.examples, p.valid_metric) for p in run.points] == [(0, -9.0), (800, -1.0), (1130, -0.5), (1600, 1.0)]
    assert run.stop == Stop(StopReason.FINISHED)
    assert run.identifier == 2  # the shortest that reaches: its weights are those to keep
    assert run.wall_seconds == 3.0
    crossing = curves.crossing(run.points, replace(TARGET, rule="first_touch"))
    assert crossing is not None
    assert (crossing.low_examples, crossing.high_examples) == (1130, 1600)
    # Two thirds of the way in log examples, as the value is two thirds short of zero.
    assert crossing.examples == pytest.approx(1130 ** (2 / 3) * 1600 ** (1 / 3))


@pytest.mark.parametrize(
    "lengths", [{}, {800: -1.0}, {800: -1.0, 1600: 1.0}, {800: 1.0}, {800: 1.0, 400: 1.0}], ids=str
)
def test_there_is_no_verdict_while_a_length_is_left_to_run(lengths: dict[int, float]) -> None:
    runs = [run_at(examples, value) for examples, value in lengths.items()]
    runs.append(run_at(LONGEST, None, StopReason.INTERRUPTED))
    run = run_of_ends(runs, TARGET, LONGEST)
    assert run.stop is None or run.stop.reason is StopReason.INTERRUPTED


def test_a_target_missed_at_the_longest_length_is_missed() -> None:
    run = run_of_ends([run_at(k * 800, -1.0) for k in (1, 2, 4, 8)], TARGET, LONGEST)
    assert run.stop == Stop(StopReason.FINISHED)
    assert not any(TARGET.reached_by(point.valid_metric) for point in run.points)


@pytest.mark.parametrize("reason", [StopReason.DIVERGED, StopReason.STOPPED_BY_RULE, StopReason.OUT_OF_MEMORY])
@pytest.mark.parametrize("before", [[], [800]], ids=["at first", "after a length that missed"])
def test_a_run_that_broke_off_settles_a_rate_that_nothing_has_reached_at(reason: StopReason, before: list[int]) -> None:
    runs = [*(run_at(examples, -1.0) for examples in before), run_at(1600, None, reason)]
    run = run_of_ends(runs, TARGET, LONGEST)
    assert run.stop is not None
    assert run.stop.reason is reason
    assert not any(TARGET.reached_by(point.valid_metric) for point in run.points)  # what it was half-way is no end


@pytest.mark.parametrize("reason", [StopReason.INTERRUPTED, StopReason.OUT_OF_BUDGET, StopReason.FAILED])
def test_what_was_cut_short_is_no_length(reason: StopReason) -> None:
    cut = run_at(1600, None, reason)
    alone = run_of_ends([run_at(800, -1.0)], TARGET, LONGEST)
    beside = run_of_ends([run_at(800, -1.0), cut], TARGET, LONGEST)
    assert beside.points == alone.points
    assert beside.stop is alone.stop is None


@pytest.mark.parametrize("reason", [StopReason.INTERRUPTED, StopReason.OUT_OF_BUDGET, StopReason.FAILED])
def test_a_first_length_that_was_cut_short_is_run_again(reason: StopReason) -> None:
    run = run_of_ends([run_at(800, None, reason)], TARGET, LONGEST)
    assert next_length(run.points, TARGET, LONGEST) == 800


@pytest.mark.parametrize("reason", [StopReason.DIVERGED, StopReason.STOPPED_BY_RULE, StopReason.OUT_OF_MEMORY])
def test_a_shorter_length_that_broke_off_counts_as_a_miss(reason: StopReason) -> None:
    # As with a warm-up that is a share of the run: a shorter one may diverge where a longer one does not.
    runs = [run_at(800, 1.0, identifier=1), run_at(400, None, reason, identifier=2)]
    run = run_of_ends(runs, TARGET, LONGEST)
    assert run.stop is None
    assert next_length(run.points, TARGET, LONGEST) == 566
    settled = run_of_ends([*runs, run_at(560, 1.0, identifier=3)], TARGET, LONGEST)
    assert settled.stop == Stop(StopReason.FINISHED)
    assert settled.identifier == 3
    crossing = curves.crossing(settled.points, replace(TARGET, rule="first_touch"))
    assert crossing is not None
    assert (crossing.low_examples, crossing.high_examples) == (400, 560)


# ------------------------------------------------------------------------------- the truth, on an exact quadratic

SIZES = (4, 16, 64, 256)
INDICES = range(-8, 3)
LOSS = Target(0.05, "valid_loss", "min", rule="first_touch")
PLANNED = 8192
HERE = Environment("none", 1, "float64", "none", "-", "-", "-")
EIGENVALUES = 1.0 / np.arange(1, 65)
STEP_TIMES = tuple(StepTime(size, ((16.0 + size) * 1e-6,), (0.0,)) for size in SIZES)


@functools.cache  # the same runs are made again and again: a run is a list of numbers
def losses(batch_size: int, rate: float, steps: int) -> Sequence[float]:
    """Expected loss after each step of SGD under a cosine on the noisy quadratic: the recursion of second moments.

    It is that of `rightbatch.bundled.quadratic`, with a rate that changes from step to step.
    """
    moments, found = np.ones(len(EIGENVALUES)), [0.5 * float(np.sum(EIGENVALUES))]
    with np.errstate(over="ignore"):  # a rate of 3 diverges
        for rate_now in rate * 0.5 * (1 + np.cos(np.pi * np.arange(steps) / steps)):
            moments = (1 - rate_now * EIGENVALUES) ** 2 * moments + rate_now**2 * EIGENVALUES / batch_size
            found.append(0.5 * float(EIGENVALUES @ moments))
    return found


class Cosine:
    """A runner of that recursion: what a run costs and reaches is exact, and no two runs differ by luck."""

    def __init__(self, *, length_bound: bool = True) -> None:
        self.facts = WorkloadFacts(
            "cosine", max(SIZES), 1, PLANNED, "validation loss", "min", "SGD", present=(16, 0.1),
            length_bound=length_bound,
        )  # fmt: skip
        self.environment = HERE

    def offers(self, trial: Trial) -> bool:
        return trial.batch_size in SIZES

    def start(self, trial: Trial, state: bytes | None = None) -> CosineRun:
        return CosineRun(trial)

    def step_times(self, batch_sizes: Sequence[int], *, rounds: int) -> Iterator[StepTime]:
        return (record for record in STEP_TIMES if record.batch_size in batch_sizes)


class CosineRun:
    def __init__(self, trial: Trial) -> None:
        assert trial.planned_examples is not None
        assert trial.planned_steps is not None
        self._trial, self._losses = trial, losses(trial.batch_size, trial.learning_rate, trial.planned_steps)
        rungs = curves.rungs_in_steps(trial.planned_examples, trial.batch_size)
        self._rungs = iter((0, *rungs[::-4][::-1]))  # fewer points, and the last one always

    def advance(self) -> Point | Stop:
        step = next(self._rungs, None)
        if step is None:
            return Stop(StopReason.FINISHED)
        size = self._trial.batch_size
        return Point(step, step * size, 0.0, None, self._losses[step], self._losses[step], size)

    def close(self) -> None:
        pass


def cost(batch_size: int, steps: float) -> float:
    return steps * (16.0 + batch_size) * 1e-6


@functools.cache
def true_costs() -> dict[tuple[int, int], float]:
    """Seconds to the target by size and rate: of the shortest of many planned lengths whose end reaches it."""
    found = {}
    for size, index in itertools.product(SIZES, INDICES):
        lengths = sorted({max(1, round(PLANNED * 2 ** (-k / 8) / size)) for k in range(49)})
        curves_by_length = ((steps, losses(size, rate_at(index), steps)) for steps in lengths)
        # A run that grows tenfold on its way has diverged, though the cosine would bring it back.
        reach = (n for n, curve in curves_by_length if curve[-1] <= LOSS.value and max(curve) <= 10 * curve[0])
        if (steps := next(reach, None)) is not None:
            found[size, index] = cost(size, steps)
    return found


def opened(folder: Path, runner: Cosine) -> tuple[Study, Evidence]:
    study = Study.open_or_create(folder / "cosine.study.db", runner.facts)
    for record in STEP_TIMES:
        study.add_step_time(record, HERE)
    return study, gather(study, runner.facts, Question(Objective.TIME, LOSS), runner=runner)


def chosen_by_ends(folder: Path, make: type[Sweep] | type[Adaptive]) -> tuple[int, int, Evidence]:
    runner = Cosine()
    study, evidence = opened(folder, runner)
    strategy = by_length(make(SIZES, (0,), 16, 0.1, runner.offers, planned_examples=PLANNED))
    with study:
        evidence, why = drive(study, runner, strategy, evidence)
        assert why != ""
        answer = recommend(evidence, protocol="", spent_seconds=study.costs())
    return answer.batch_size, index_of(answer.learning_rate), evidence


def chosen_by_crossings(folder: Path) -> tuple[int, int]:
    """The choice of whoever reads crossings off full-length runs, as if the rate did not change along them."""
    runner = Cosine(length_bound=False)
    study, evidence = opened(folder, runner)
    trials = [Trial(size, rate_at(index), 0, PLANNED) for size in SIZES for index in INDICES]
    with study:
        evidence, _ = drive(study, runner, fixed(trials, "all at full length"), evidence)
        answer = recommend(evidence, protocol="", spent_seconds=study.costs())
    return answer.batch_size, index_of(answer.learning_rate)


def test_another_seed_of_a_cell_starts_at_what_the_first_needed(tmp_path: Path) -> None:
    runner = Cosine()
    study, evidence = opened(tmp_path, runner)
    size, index = min(true_costs(), key=lambda cell: true_costs()[cell])
    rate = rate_at(index)
    sweep = Sweep((size,), (0, 1), size, rate, runner.offers, rates=[rate], planned_examples=PLANNED)
    with study:
        evidence, _ = drive(study, runner, by_length(sweep), evidence)
    lengths = [[run.trial.planned_steps for run in evidence.runs if run.trial.seed == seed] for seed in (0, 1)]
    assert len(lengths[1]) == 2 < len(lengths[0])
    assert set(lengths[1]) <= set(lengths[0])
    one, other = evidence.runs_at(size, rate)
    assert evidence.cost(one) == evidence.cost(other) is not None


def test_the_recursion_is_that_of_the_bundled_quadratic() -> None:
    bundled = pytest.importorskip("rightbatch.bundled.quadratic")
    moments = np.ones(64)
    for _ in range(50):
        moments = (1 - 0.1 * EIGENVALUES) ** 2 * moments + 0.1**2 * EIGENVALUES / 16
    exact = bundled.expected_loss(50, learning_rate=0.1, batch_size=16)
    assert 0.5 * np.sum(EIGENVALUES * moments) == pytest.approx(exact, rel=1e-12)


@pytest.fixture(scope="module")
def by_crossings(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, int]:
    return chosen_by_crossings(tmp_path_factory.mktemp("naive"))


@pytest.mark.parametrize("make", [Sweep, Adaptive])
def test_the_ends_choose_the_truth_and_the_crossings_of_long_runs_do_not(
    tmp_path: Path, by_crossings: tuple[int, int], make: type[Sweep] | type[Adaptive]
) -> None:
    costs = true_costs()
    best = min(costs, key=lambda cell: costs[cell])
    size, index, evidence = chosen_by_ends(tmp_path, make)
    assert (size, index) == best == (16, 1)
    assert by_crossings[0] == 64
    assert costs[by_crossings] > 1.5 * costs[best]
    # Every cell that was searched costs what it truly does, to the factor that lengths are found to.
    for cell in evidence.cells:
        true = costs.get((cell.batch_size, index_of(cell.learning_rate)), math.inf)
        if cell.reaches:
            assert true / BRACKET_FACTOR < cell.mean < true * BRACKET_FACTOR
    # And a handful of lengths a cell were enough.
    cells = {(run.trial.batch_size, run.trial.learning_rate) for run in evidence.runs}
    assert len(evidence.runs) <= MOST_RUNS * len(cells)
    assert len({run.trial for run in evidence.runs}) == len(evidence.runs)


def test_an_interrupted_search_over_lengths_goes_on_and_ends_alike(tmp_path: Path) -> None:
    *whole, undisturbed = chosen_by_ends(tmp_path / "whole", Sweep)
    runner = Cosine()
    strategy = by_length(Sweep(SIZES, (0,), 16, 0.1, runner.offers, planned_examples=PLANNED))
    seen = 0

    def interrupt(run: Run, why: str, evidence: Evidence) -> None:
        nonlocal seen
        seen += run.stop is not None
        if run.stop is not None and seen % 7 == 0:  # between two runs: each is then at another length
            raise KeyboardInterrupt

    for _ in range(100):
        study, evidence = opened(tmp_path / "cut", runner)
        with study:
            try:
                drive(study, runner, strategy, evidence, watch=interrupt)
                break
            except KeyboardInterrupt:
                pass
    *cut, evidence = chosen_by_ends(tmp_path / "cut", Sweep)
    assert cut == whole
    assert {run.trial for run in evidence.runs} == {run.trial for run in undisturbed.runs}
    assert len(evidence.runs) == len(undisturbed.runs)
    assert seen > 40


def test_a_search_interrupted_within_its_first_length_runs_no_other_lengths(tmp_path: Path) -> None:
    *_, undisturbed = chosen_by_ends(tmp_path / "whole", Sweep)

    def interrupt(run: Run, why: str, evidence: Evidence) -> None:
        if len(run.points) == 8:
            raise KeyboardInterrupt

    runner = Cosine()
    study, evidence = opened(tmp_path / "cut", runner)
    strategy = by_length(Sweep(SIZES, (0,), 16, 0.1, runner.offers, planned_examples=PLANNED))
    with study, pytest.raises(KeyboardInterrupt):
        drive(study, runner, strategy, evidence, watch=interrupt)
    *_, evidence = chosen_by_ends(tmp_path / "cut", Sweep)
    assert {run.trial for run in evidence.runs} == {run.trial for run in undisturbed.runs}


@pytest.mark.parametrize(
    ("value", "planned_examples"),
    [
        (1.6, PLANNED),
        (0.02, PLANNED),
        (1.6, PLANNED // 8),
        (0.02, PLANNED * 8),
    ],
)
def test_a_finished_study_that_is_only_read_says_what_the_search_said(
    tmp_path: Path, value: float, planned_examples: int
) -> None:
    # 1.6 is reached by the shortest lengths, so that no run is as long as planned; 0.02 is missed at some rates.
    # The person may have said --planned-examples, where the workload plans another length.
    runner, target = Cosine(), replace(LOSS, value=value)
    runner.facts = replace(runner.facts, planned_examples=planned_examples)
    asked = replace(runner.facts, planned_examples=PLANNED)
    study = Study.open_or_create(tmp_path / "cosine.study.db", runner.facts)
    evidence = gather(study, asked, Question(Objective.STEPS, target), runner=runner)
    strategy = by_length(Sweep((4, 16, 64), (0,), 16, 0.1, runner.offers, rates=(0.1, 1.0), planned_examples=PLANNED))
    with study:
        searched, _ = drive(study, runner, strategy, evidence)
        read = gather(study, study.facts, evidence.question)
    assert isinstance(strategy(searched), Done)
    assert len(searched.cells) == 6
    assert {cell.misses for cell in searched.cells} == ({0} if value > 1 else {0, 1})
    assert [(c.batch_size, c.learning_rate, c.costs, c.misses) for c in read.cells] == [
        (c.batch_size, c.learning_rate, c.costs, c.misses) for c in searched.cells
    ]


def test_shares_say_what_the_tests_by_hand_assume() -> None:
    assert (FIRST_SHARE * LONGEST, SHORTEST_SHARE * LONGEST) == (800, 100)
