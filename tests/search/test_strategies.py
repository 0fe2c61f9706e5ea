"""Sweep and Adaptive driven to their end in a small world whose laws are known exactly."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rightbatch import curves
from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.lattice import index_of, rate_at
from rightbatch.question import Objective, Question
from rightbatch.records import Point, Run, StepTime, Stop, StopReason, Target, Trial, WorkloadFacts
from rightbatch.search.adaptive import CONTENDER_FACTOR, GIVE_UP_FACTOR, Adaptive
from rightbatch.search.strategy import Advance, Done, Strategy, Wait, fixed
from rightbatch.search.sweep import Sweep, outwards, until_seconds
from rightbatch.tables import COLUMNS, TableRunner

TARGET = Target(0.0, "valid_metric", "max")
POWERS = tuple(2**k for k in range(1, 14))


@dataclass(frozen=True)
class World:
    """Steps to the target are S_min (1 + B_crit / B), times a quadratic in log rate; seeconds are alpha + beta B.

    The metric is log(steps / steps needed): a line in log examples, so that crossings are exact.
    """

    minimum_steps: float = 100.0
    critical: float = 256.0
    curvature: float = 3.0
    diverges_at: float = 6.0
    noise: float = 0.0
    planned: int = 1_500_000
    objective: Objective = Objective.TIME
    sizes: tuple[int, ...] = POWERS
    lowest_rate: float = 1e-5
    worst: float = -math.inf

    def best_rate(self, size: int) -> float:
        return 0.3 / (1 + self.critical / size)

    def best_index(self, size: int) -> int:
        return round(4 * math.log10(self.best_rate(size)))

    def step_seconds(self, size: int) -> float:
        return 1e-3 + 1e-6 * size

    def steps(self, trial: Trial) -> float:
        off = math.log10(trial.learning_rate / self.best_rate(trial.batch_size))
        steps = self.minimum_steps * (1 + self.critical / trial.batch_size) * math.exp(self.curvature * off**2)
        generator = np.random.default_rng([trial.batch_size, index_of(trial.learning_rate) + 100, trial.seed])
        return float(steps * math.exp(self.noise * generator.standard_normal()))

    def tuned_seconds(self, size: int) -> float:
        """Cost at the best rate of the lattice."""
        return self.steps(Trial(size, rate_at(self.best_index(size)), 0)) * self.step_seconds(size)

    def diverges(self, trial: Trial) -> bool:
        return trial.learning_rate > self.diverges_at * self.best_rate(trial.batch_size)

    def offers(self, trial: Trial) -> bool:
        return trial.batch_size <= max(self.sizes) and self.lowest_rate <= trial.learning_rate <= 100

    def question(self) -> Question:
        metric = self.objective is Objective.METRIC
        return Question(self.objective, TARGET, at_examples=self.planned / 4 if metric else None)

    def evidence(self) -> Evidence:
        facts = WorkloadFacts("world", max(self.sizes), 0, self.planned, "progress", "max", "SGD")
        times = tuple(StepTime(b, (self.step_seconds(b),), (0.0,)) for b in self.sizes)
        return Evidence(facts, (), times, self.question(), planned_examples=self.planned)

    def run(self, trial: Trial, until: curves.StopRule, identifier: int) -> Run:
        needed, diverges = self.steps(trial), self.diverges(trial)
        points: tuple[Point, ...] = ()
        stop = Stop(StopReason.FINISHED)
        for step in (0, *curves.rungs_in_steps(self.planned, trial.batch_size)):
            loss = math.nan if diverges and step else 1.0
            value = max(self.worst, math.log(max(step, 0.5) / needed))
            if diverges and step:
                value = -1e6
            examples = step * trial.batch_size
            points = (*points, Point(step, examples, 0.0, None, loss, value, trial.batch_size, trial.learning_rate))
            if curves.diverged(points):
                stop = Stop(StopReason.DIVERGED)
                break
            if (reason := until(points)) is not None:
                stop = Stop(StopReason.STOPPED_BY_RULE, reason)
                break
        return Run(replace(trial, planned_examples=self.planned), points, stop, 0.0, identifier)


def drive(
    world: World,
    strategy: Strategy,
    evidence: Evidence | None = None,
    look: Callable[[Evidence, Trial], None] = lambda evidence, trial: None,
) -> tuple[Evidence, list[Trial]]:
    """The loop of the pipeline without a study: every proposal must be offered and new, and the end must come."""
    evidence, trials = evidence or world.evidence(), []
    for _ in range(600):
        action = strategy(evidence)
        if isinstance(action, Done):
            return evidence, trials
        trial = action.trial
        assert world.offers(trial), f"{trial} is not offered"
        assert trial not in trials, f"{trial} was proposed twice"
        look(evidence, trial)
        trials.append(trial)
        evidence = evidence.with_run(world.run(trial, action.until, len(evidence.runs) + 1))
    raise AssertionError("the strategy did not come to an end")


def sweep(world: World, **changes: Any) -> Sweep:
    usual: dict[str, Any] = {
        "batch_sizes": world.sizes,
        "seeds": (0,),
        "first_size": 32,
        "first_rate": 0.03,
        "offers": world.offers,
        "until": curves.until_target(TARGET),
        "planned_examples": world.planned,
    }
    return Sweep(**{**usual, **changes})


def adaptive(world: World, **changes: Any) -> Adaptive:
    usual: dict[str, Any] = {
        "batch_sizes": world.sizes,
        "seeds": (0, 1),
        "first_size": 32,
        "first_rate": 0.03,
        "offers": world.offers,
        "planned_examples": world.planned,
    }
    return Adaptive(**{**usual, **changes})


def chosen(evidence: Evidence) -> int:
    assert evidence.best_cell is not None
    return evidence.best_cell.batch_size


SMALL = World(sizes=(32, 128, 512, 2048))


# ------------------------------------------------------------------------------------------------------------ both


def exhaustive(world: World, **changes: Any) -> Sweep:
    """A sweep with all that makes a table: given rates, a limit for each run, further seeds near the best."""
    return sweep(world, rates=[rate_at(k) for k in (-6, -4)], run_seconds=1.0, contender_seeds=range(3), **changes)


@pytest.mark.parametrize("make", [sweep, adaptive, exhaustive])
def test_the_same_evidence_gives_the_same_action_whoever_is_asked_and_in_whatever_order_it_is_known(make: Any) -> None:
    world = replace(SMALL, noise=0.1)
    generator = np.random.default_rng(0)

    def look(evidence: Evidence, trial: Trial) -> None:
        shuffled = [evidence.runs[k] for k in generator.permutation(len(evidence.runs))]
        restarted = replace(world.evidence(), runs=tuple(shuffled))
        action = make(world, seeds=(0, 1))(restarted)
        assert not isinstance(action, Done)
        assert action.trial == trial

    evidence, trials = drive(world, make(world, seeds=(0, 1)), look=look)
    assert len(trials) > 10
    assert isinstance(make(world, seeds=(0, 1))(evidence), Done)


@pytest.mark.parametrize("make", [sweep, adaptive])
@pytest.mark.parametrize("reason", [StopReason.INTERRUPTED, StopReason.OUT_OF_BUDGET])
def test_a_run_that_was_cut_short_is_proposed_again(make: Any, reason: StopReason) -> None:
    strategy, evidence = make(SMALL), SMALL.evidence()
    action = strategy(evidence)
    assert not isinstance(action, Done)
    run = SMALL.run(action.trial, action.until, 1)
    cut = replace(run, points=run.points[:5], stop=Stop(reason))
    again = strategy(evidence.with_run(cut))
    assert not isinstance(again, Done)
    assert again.trial == action.trial


@pytest.mark.parametrize("make", [sweep, adaptive])
@pytest.mark.parametrize("first_rate", [10**-4.5, 0.03, 20.0])
def test_a_first_rate_that_is_far_off_is_left_behind(make: Any, first_rate: float) -> None:
    evidence, _ = drive(SMALL, make(SMALL, first_rate=first_rate))
    assert chosen(evidence) == 512
    assert evidence.best_cell is not None
    assert index_of(evidence.best_cell.learning_rate) == SMALL.best_index(512)


@pytest.mark.parametrize("make", [sweep, adaptive])
def test_a_first_rate_at_which_nothing_is_learnt_at_all_is_left_behind(make: Any) -> None:
    # As an accuracy that stays at exactly that of chance: no rate looks nearer to the target than another.
    world = replace(SMALL, worst=-1.0)
    evidence, _ = drive(world, make(world, first_rate=10**-4.5))
    assert evidence.best_cell is not None
    assert chosen(evidence) == 512


@pytest.mark.parametrize("make", [sweep, adaptive])
def test_rates_beyond_a_diverged_one_are_not_tried_and_the_best_is_not_at_the_edge(make: Any) -> None:
    world = replace(SMALL, diverges_at=1.3)
    evidence, trials = drive(world, make(world, seeds=(0,)))
    for size in evidence.sizes:
        assert size.best is not None
        assert not size.at_edge
    # Only the span around a start reaches beyond the first rate that diverges: at most a decade.
    for trial in trials:
        assert trial.learning_rate < 1.3 * 10**1.3 * world.best_rate(trial.batch_size)


@pytest.mark.parametrize("make", [sweep, adaptive])
def test_only_what_a_coarse_table_holds_is_proposed(make: Any) -> None:
    held = {(b, rate_at(k), seed) for b in SMALL.sizes for k in range(-10, 1, 2) for seed in (0, 1)}
    # `drive` asserts that the world offers it; here the world offers what the table holds.

    @dataclass(frozen=True)
    class Table(World):
        def offers(self, trial: Trial) -> bool:
            return (trial.batch_size, trial.learning_rate, trial.seed) in held

    world = Table(sizes=SMALL.sizes)
    evidence, trials = drive(world, make(world, seeds=(0, 1, 2)))
    assert len(trials) > 10
    assert chosen(evidence) == 512


@pytest.mark.parametrize("make", [sweep, adaptive])
@pytest.mark.parametrize(("objective", "best"), [(Objective.EXAMPLES, 32), (Objective.STEPS, 2048)])
def test_other_objectives_end_at_their_own_best_size(make: Any, objective: Objective, best: int) -> None:
    world = replace(SMALL, objective=objective)
    evidence, _ = drive(world, make(world))
    assert chosen(evidence) == best


@pytest.mark.parametrize("make", [sweep, adaptive])
def test_metrics_at_equal_examples_are_best_at_the_size_that_takes_most_steps(make: Any) -> None:
    world = replace(SMALL, objective=Objective.METRIC)
    evidence, _ = drive(world, make(world, until=curves.until_horizon) if make is sweep else make(world))
    assert chosen(evidence) == 32


@pytest.mark.parametrize("last", [-1e6, math.nan, -math.inf])
def test_a_run_that_diverges_where_metrics_are_compared_does_not_spoil_the_others(last: float) -> None:
    world = replace(SMALL, objective=Objective.METRIC)

    def run(rate: float, values: Sequence[float], stop: StopReason) -> Run:
        steps = (0, 1000, 10_000, 20_000)
        points = [Point(s, 32 * s, 0.0, None, 1.0, v, 32, rate) for s, v in zip(steps, values, strict=True)]
        return Run(Trial(32, rate, 0, world.planned), tuple(points), Stop(stop), 0.0, round(1e6 * rate))

    bad = run(0.1, [-5.0, -4.0, -3.0, last], StopReason.DIVERGED)
    good = run(0.03162, [-5.0, -4.0, -3.0, -2.0], StopReason.FINISHED)
    better = run(0.01778, [-5.0, -3.0, -2.0, -1.0], StopReason.FINISHED)
    for runs in ((bad, good, better), (better, good, bad)):
        evidence = replace(world.evidence(), runs=runs)
        assert evidence.best_cell is not None
        assert evidence.best_cell.learning_rate == 0.01778
        means = {cell.learning_rate: cell.mean for cell in evidence.cells}
        assert means[0.01778] < means[0.03162] < means[0.1]


@pytest.mark.parametrize("make", [sweep, adaptive])
def test_a_recorded_run_that_was_cut_short_is_not_asked_for_for_ever(make: Any, tmp_path: Path) -> None:
    # What `export --curves` writes of an interrupted study, run again: the table can never finish that run.
    path = tmp_path / "curves.csv"
    with path.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, COLUMNS)
        writer.writeheader()
        for index in range(-8, 1, 2):
            outcome = "interrupted" if index == -4 else "finished"
            for step in (1, 10, 100):
                row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
                row |= {"workload": "w", "batch_size": 32, "learning_rate": rate_at(index), "seed": 0, "step": step}
                row |= {"examples": 32 * step, "seconds": step / 100, "outcome": outcome}
                row["valid_metric"] = -1.0 if index == -4 else step / 20 - (index + 2) ** 2 / 100
                writer.writerow(row)
    runner = TableRunner(path)
    evidence = Evidence(
        runner.facts,
        (),
        tuple(runner.step_times([32], rounds=1)),
        Question(Objective.TIME, TARGET),
        planned_examples=runner.facts.planned_examples,
    )
    world = replace(SMALL, sizes=(32,), planned=runner.facts.planned_examples)
    strategy = (
        make(world, offers=runner.offers, seeds=(0,), until=curves.until_horizon)
        if make is sweep
        else make(world, offers=runner.offers, seeds=(0,))
    )
    for identifier in range(1, 40):
        action = strategy(evidence)
        if isinstance(action, Done):
            return
        progress, points = runner.start(action.trial), []
        while isinstance(outcome := progress.advance(), Point):
            points.append(outcome)
        trial = replace(action.trial, planned_examples=runner.facts.planned_examples)
        evidence = evidence.with_run(Run(trial, tuple(points), outcome, 0.0, identifier))
    pytest.fail("the strategy asks again and again for a run that the table cannot finish")


# ----------------------------------------------------------------------------------------------------------- sweep


def test_a_sweep_finds_the_best_rate_of_every_size_and_the_best_size() -> None:
    world = World()
    evidence, _ = drive(world, sweep(world))
    assert [size.batch_size for size in evidence.sizes] == list(POWERS)
    for size in evidence.sizes:
        assert size.best is not None
        assert not size.at_edge
        # The rate is one of the lattice, and the crossing is exact: the cost is that of the law.
        assert index_of(size.best.learning_rate) == world.best_index(size.batch_size)
        assert size.best.mean == pytest.approx(world.tuned_seconds(size.batch_size), rel=1e-6)
    assert chosen(evidence) == min(POWERS, key=world.tuned_seconds) == 512


def test_a_sweep_gives_all_seeds_to_every_rate_that_the_first_seed_brought_to_the_target() -> None:
    world = replace(SMALL, noise=0.05)
    evidence, _ = drive(world, sweep(world, seeds=(0, 1, 2)))
    assert any(cell.misses for cell in evidence.cells)
    for cell in evidence.cells:
        if cell.reaches:
            assert len(cell.costs) == 3
        else:
            assert cell.misses == 1


def test_a_sweep_at_given_rates_runs_these_with_all_seeds_and_no_others() -> None:
    rates = [rate_at(k) for k in (-8, -5, -3, 1)]
    evidence, trials = drive(SMALL, sweep(SMALL, rates=rates, seeds=(0, 1)))
    assert len(trials) == len(SMALL.sizes) * len(rates) * 2
    assert {(t.batch_size, t.learning_rate, t.seed) for t in trials} == {
        (b, r, s) for b in SMALL.sizes for r in rates for s in (0, 1)
    }
    # Also where a run diverges, or only misses the target.
    assert {cell.diverged for cell in evidence.cells} == {0, 2}
    assert any(cell.misses and not cell.diverged for cell in evidence.cells)


def test_a_sweep_at_given_rates_leaves_out_what_is_not_offered() -> None:
    # `drive` asserts that nothing is proposed that is not offered: here a rate, and a size larger than the data.
    world = replace(SMALL, lowest_rate=1e-2)
    _, trials = drive(world, sweep(world, batch_sizes=(*SMALL.sizes, 4096), rates=[rate_at(-12), rate_at(-4)]))
    assert {t.batch_size for t in trials} == set(SMALL.sizes)
    assert {t.learning_rate for t in trials} == {rate_at(-4)}


def test_a_sweep_that_grows_runs_only_what_is_new() -> None:
    before, first = drive(SMALL, sweep(SMALL, batch_sizes=(32, 128)))
    _, second = drive(SMALL, sweep(SMALL, batch_sizes=(32, 128, 512)), before)
    assert first
    assert {t.batch_size for t in second} == {512}


@pytest.mark.parametrize("until", [curves.until_horizon, curves.until_target(TARGET)], ids=["horizon", "target"])
def test_a_sweep_stops_each_run_at_the_first_rung_at_or_beyond_its_training_seconds(until: curves.StopRule) -> None:
    limit = 0.5
    evidence, _ = drive(SMALL, sweep(SMALL, rates=[rate_at(k) for k in (-8, -5)], until=until, run_seconds=limit))
    reasons = set()
    for run in evidence.runs:
        assert run.stop is not None
        assert run.stop.reason is StopReason.STOPPED_BY_RULE
        reasons.add(run.stop.message)
        spent = [point.step * SMALL.step_seconds(run.trial.batch_size) for point in run.points]
        assert all(seconds < limit for seconds in spent[:-1])
        assert (spent[-1] >= limit) == (run.stop.message != curves.REACHED)
    spoken = "trained for the 0.5 s that a run was given"
    assert reasons == ({spoken} if until is curves.until_horizon else {spoken, curves.REACHED})


def test_a_limit_in_seconds_counts_steps_at_their_measured_time_else_the_seconds_of_the_run() -> None:
    curve = [Point(step, 8 * step, seconds=step / 10) for step in (0, 10, 20)]
    # A machine that was busy for a while does not make a run shorter: 20 steps of 0.05 s are one second, not two.
    assert until_seconds(0.05, 1.0)(curve) is not None
    assert until_seconds(0.05, 1.01)(curve) is None
    assert until_seconds(None, 2.0)(curve) is not None
    assert until_seconds(None, 2.01)(curve) is None


RATES = [rate_at(k) for k in (-8, -6, -4, -2)]


def test_contenders_of_a_sweep_get_further_seeds_and_nobody_else_does() -> None:
    world = replace(SMALL, noise=0.2)
    evidence, trials = drive(world, sweep(world, rates=RATES, seeds=(0, 1), contender_seeds=range(5)))
    # The means of the first two seeds, from the law itself; what the target is not reached at has none.
    means = {
        (b, r): math.sqrt(steps[0] * steps[1]) * world.step_seconds(b)
        for b in world.sizes
        for r in RATES
        if max(steps := [world.steps(Trial(b, r, seed)) for seed in (0, 1)]) * b < world.planned / curves.RATIO
        and not world.diverges(Trial(b, r, 0))
    }
    near = {cell for cell, mean in means.items() if mean <= 2 * min(means.values())}
    assert 1 < len(near) < len(means)
    seeds = {(c.batch_size, c.learning_rate): len(c.costs) + c.misses for c in evidence.cells}
    assert seeds == {(b, r): 5 if (b, r) in near else 2 for b in world.sizes for r in RATES}
    # First everything with the seeds that all get: only then is it known who is near the best.
    assert all(t.seed < 2 for t in trials[: 2 * len(seeds)])
    assert all(t.seed >= 2 for t in trials[2 * len(seeds) :])


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_who_contends_does_not_depend_on_what_further_seeds_bring(factor: float) -> None:
    @dataclass(frozen=True)
    class Turned(World):
        """The further seeds are far luckier, or far less lucky, than the first ones."""

        def steps(self, trial: Trial) -> float:
            return super().steps(trial) * (factor if trial.seed >= 2 else 1.0)

    usual, turned = replace(SMALL, noise=0.2), Turned(sizes=SMALL.sizes, noise=0.2)
    before, _ = drive(usual, sweep(usual, rates=RATES, seeds=(0, 1)))
    further = [
        drive(world, sweep(world, rates=RATES, seeds=(0, 1), contender_seeds=range(4)), before)[1]
        for world in (usual, turned)
    ]
    assert further[0] == further[1]
    assert len(further[0]) >= 4


def test_contenders_are_those_of_the_sizes_and_rates_that_are_asked_for() -> None:
    # A study that has more: a better size, which this sweep neither runs nor compares with.
    before, _ = drive(SMALL, sweep(SMALL, rates=RATES, batch_sizes=(512,)))
    _, alone = drive(SMALL, sweep(SMALL, rates=RATES[1:3], batch_sizes=(32,), contender_seeds=range(3)))
    _, beside = drive(SMALL, sweep(SMALL, rates=RATES[1:3], batch_sizes=(32,), contender_seeds=range(3)), before)
    assert alone == beside
    assert len(alone) > 2


def test_contenders_of_tuned_rates_get_further_seeds_too() -> None:
    world = replace(SMALL, noise=0.05)
    evidence, _ = drive(world, sweep(world, seeds=(0,), contender_seeds=range(3), contender_factor=1.2))
    assert evidence.best_cell is not None
    assert len(evidence.best_cell.costs) == 3
    assert {len(cell.costs) + cell.misses for cell in evidence.cells} == {1, 3}


def test_while_a_run_of_the_first_seeds_is_under_way_no_contender_is_named() -> None:
    strategy = sweep(SMALL, rates=RATES, contender_seeds=range(3))
    before, _ = drive(SMALL, sweep(SMALL, rates=RATES))
    *known, last = before.runs
    waiting = replace(
        before,
        runs=tuple(known),
        pending=frozenset({last.trial}),
    )
    assert isinstance(strategy(waiting), Wait)
    action = strategy(before)
    assert isinstance(action, Advance)
    assert action.trial.seed == 1


@pytest.mark.parametrize("first", [1, 2, 7, 64, 100, 8192, 10**6])
def test_sizes_are_taken_outwards_each_beside_one_that_was_taken_before(first: int) -> None:
    order = outwards([64, 2, 8192, 512, 8, 64], first)
    sizes = [2, 8, 64, 512, 8192]
    assert sorted(size for size, _ in order) == sizes
    assert order[0] == (min(sizes, key=lambda s: abs(math.log(s / first))), None)
    done = {order[0][0]}
    for size, neighbour in order[1:]:
        assert neighbour in done
        assert abs(sizes.index(size) - sizes.index(neighbour)) == 1
        done.add(size)


# -------------------------------------------------------------------------------------------------------- adaptive


@pytest.mark.parametrize("first_size", [2, 16, 512, 8192])
@pytest.mark.parametrize("first_rate", [0.001, 0.3])
def test_the_search_finds_the_best_size_and_rate_from_wherever_it_starts(first_size: int, first_rate: float) -> None:
    world = World()
    evidence, trials = drive(world, adaptive(world, first_size=first_size, first_rate=first_rate))
    assert chosen(evidence) == 512
    assert evidence.best_cell is not None
    assert index_of(evidence.best_cell.learning_rate) == world.best_index(512)
    assert len(trials) < 120


@pytest.mark.parametrize("critical", [32.0, 2048.0])
def test_the_search_finds_other_best_sizes_too(critical: float) -> None:
    world = World(critical=critical)
    evidence, _ = drive(world, adaptive(world))
    assert chosen(evidence) == min(POWERS, key=world.tuned_seconds)


def test_in_noise_the_search_ends_at_the_best_size_or_its_neighbour() -> None:
    for minimum in (90.0, 100.0, 110.0):
        world = World(noise=0.05, minimum_steps=minimum)
        evidence, _ = drive(world, adaptive(world, seeds=(0, 1, 2)))
        assert chosen(evidence) in (256, 512, 1024)


def test_the_search_leaves_out_sizes_beyond_twice_the_best() -> None:
    world = World()
    _, trials = drive(world, adaptive(world, first_size=512))
    tuned = {b: world.tuned_seconds(b) / world.tuned_seconds(512) for b in POWERS}
    run = {t.batch_size for t in trials}
    # The first size beyond on each side is tried in steps of four; nothing outside it.
    assert tuned[128] < 2 < tuned[32]
    assert tuned[2048] < 2 < tuned[8192]
    assert run == {32, 128, 256, 512, 1024, 2048, 8192}


def test_contenders_get_all_seeds_and_the_winner_a_fresh_one() -> None:
    world = World(noise=0.03)
    evidence, trials = drive(world, adaptive(world, seeds=(0, 1, 2)))
    assert evidence.best_cell is not None
    limit = CONTENDER_FACTOR * evidence.best_cell.mean
    for cell in evidence.cells:
        if cell.reaches and cell.mean <= limit:
            assert len(cell.costs) == 3
    fresh = [t for t in trials if t.seed >= FRESH_SEED]
    assert len(fresh) == 1
    assert fresh == trials[-1:]
    assert evidence.choice is not None
    assert evidence.choice.best is not None
    best = evidence.choice.best
    assert (fresh[0].batch_size, fresh[0].learning_rate) == (best.batch_size, best.learning_rate)


def test_a_run_is_given_up_at_the_first_rung_beyond_four_times_the_best_cost_so_far() -> None:
    world = World()
    stopped = 0

    def look(evidence: Evidence, trial: Trial) -> None:
        nonlocal stopped
        if evidence.best_cell is None:
            return
        action = adaptive(world)(evidence)
        assert not isinstance(action, Done)
        run = world.run(trial, action.until, 0)
        limit = GIVE_UP_FACTOR * evidence.best_cell.mean
        spent = [point.step * world.step_seconds(trial.batch_size) for point in run.points]
        assert all(seconds <= limit for seconds in spent[:-1])
        if run.stop is not None and "4 times the best" in run.stop.message:
            stopped += 1
            assert spent[-1] > limit

    drive(world, adaptive(world), look=look)
    assert stopped > 3


@pytest.mark.parametrize("first_size", [16, 256, 4096])
def test_sizes_far_apart_are_all_within_reach(first_size: int) -> None:
    world = World(sizes=(16, 256, 4096), critical=512)
    evidence, _ = drive(world, adaptive(world, first_size=first_size))
    assert {size.batch_size for size in evidence.sizes} == {16, 256, 4096}
    assert chosen(evidence) == min(world.sizes, key=world.tuned_seconds)


def test_a_first_size_that_never_gets_there_does_not_end_the_search() -> None:
    # So short a run that only sizes up to 128 take enough steps; 4096 and 1024 reach the target at no rate.
    world = World(planned=100 * (160 + 256))
    assert all(world.steps(Trial(b, world.best_rate(b), 0)) * b > world.planned for b in (256, 1024, 4096))
    evidence, _ = drive(world, adaptive(world, first_size=4096))
    assert evidence.best_cell is not None
    assert chosen(evidence) == 128


# ----------------------------------------------------------------------------------------------------------- fixed


def test_fixed_trials_run_once_each_in_their_order() -> None:
    trials: Sequence[Trial] = [Trial(b, 0.1, s, SMALL.planned) for b in (128, 32) for s in (1, 0)]
    _, run = drive(SMALL, fixed(trials, "asked for"))
    assert run == trials


@pytest.mark.parametrize("first_size", [8, 32])
def test_on_the_way_to_a_best_size_far_off_every_size_gets_its_best_rate(first_size: int) -> None:
    # Each size on the way costs far more than twice the next one: that is no edge, the best lies ahead.
    world = World(critical=30_000.0, minimum_steps=20.0)
    found, _ = drive(world, adaptive(world, first_size=first_size, first_rate=world.best_rate(first_size)))
    assert chosen(found) >= 2048
    for size in found.sizes:
        if size.batch_size >= first_size and size.best is not None:
            assert not size.at_edge, size.batch_size
            assert len(size.cells) >= 3
