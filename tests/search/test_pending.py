"""Strategies that are asked while runs are under way: simulations with several places, in any order of endings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.cells import Cell
from rightbatch.curves import StopRule, diverged, rungs_in_steps, until_target
from rightbatch.ends import next_length
from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.lattice import index_of, rate_at
from rightbatch.question import Objective, Question
from rightbatch.records import Point, Run, StepTime, Stop, StopReason, Target, Trial, WorkloadFacts
from rightbatch.search.adaptive import Adaptive
from rightbatch.search.rates import SPAN, next_index
from rightbatch.search.strategy import Advance, Done, Strategy, Wait, by_length, fixed, missing_seed
from rightbatch.search.sweep import Sweep

TARGET = Target(0.0, "valid_metric", "max")
Key = tuple[int, float, int]


@dataclass(frozen=True)
class World:
    """Steps to the target are 100 (1 + 256 / B), times a parabola in log rate; seconds are 1e-3 + 1e-6 B.

    The metric is log(steps / steps needed): crossings are exact. With `noise` it differs from seed to seed. Of a
    length-bound world the same holds for ends, and curves tell nothing.
    """

    noise: float = 0.0
    diverges_at: float = 6.0
    planned_examples: int = 400_000
    length_bound: bool = False
    sizes: tuple[int, ...] = (32, 64, 128, 256, 512, 1024, 2048)

    def best_rate(self, size: int) -> float:
        return 0.3 / (1 + 256 / size)

    def step_seconds(self, size: int) -> float:
        return 1e-3 + 1e-6 * size

    def steps(self, trial: Trial) -> float:
        off = math.log10(trial.learning_rate / self.best_rate(trial.batch_size))
        generator = np.random.default_rng([trial.batch_size, index_of(trial.learning_rate) + 100, trial.seed])
        return 100 * (1 + 256 / trial.batch_size) * math.exp(3 * off**2 + self.noise * generator.standard_normal())

    def offers(self, trial: Trial) -> bool:
        return trial.batch_size in self.sizes and 1e-5 <= trial.learning_rate <= 100

    def evidence(self) -> Evidence:
        facts = WorkloadFacts(
            "world", max(self.sizes), 0, self.planned_examples, "progress", "max", "SGD", length_bound=self.length_bound
        )
        times = tuple(StepTime(size, (self.step_seconds(size),), (0.0,)) for size in self.sizes)
        return Evidence(facts, (), times, Question(Objective.TIME, TARGET), planned_examples=self.planned_examples)

    def run(self, trial: Trial, until: StopRule, identifier: int) -> Run:
        assert trial.planned_examples is not None
        size, needed, points, stop = trial.batch_size, self.steps(trial), [], Stop(StopReason.FINISHED)
        bad = trial.learning_rate > self.diverges_at * self.best_rate(size)
        for step in (0, *rungs_in_steps(trial.planned_examples, size)):
            loss = math.nan if bad and step else 1.0
            value = -1e6 if bad and step else math.log(max(step, 0.5) / needed)
            points.append(Point(step, step * size, 0.0, None, loss, value, size, trial.learning_rate))
            if diverged(points):
                stop = Stop(StopReason.DIVERGED)
                break
            if (reason := until(points)) is not None:
                stop = Stop(StopReason.STOPPED_BY_RULE, reason)
                break
        return Run(trial, tuple(points), stop, points[-1].step * self.step_seconds(size), identifier)


@dataclass(frozen=True)
class Played:
    """What a simulation came to: all that was learnt, the trials in their order, the share of place-seconds unused."""

    evidence: Evidence
    trials: tuple[Trial, ...]
    idle: float = 0.0

    @property
    def chosen(self) -> Key:
        best = self.evidence.choice.best if self.evidence.choice else None
        assert best is not None
        return best.batch_size, best.learning_rate, 0

    @property
    def keys(self) -> set[Key]:
        return {key(trial) for trial in self.trials}


def key(trial: Trial) -> Key:
    return trial.batch_size, trial.learning_rate, trial.seed


def play(world: World, strategy: Strategy, places: int, seconds: Callable[[Run], float]) -> Played:
    """The loop of the pipeline with so many places, in simulated time; a run takes `seconds`.

    Every proposal must be offered, new, and not under way; `Wait` is allowed only while something is.
    """
    evidence, now, busy = world.evidence(), 0.0, 0.0
    active: list[tuple[float, Run]] = []
    trials: list[Trial] = []
    for _ in range(3000):
        pending = frozenset(run.trial for _, run in active)
        action = strategy(replace(evidence, pending=pending)) if len(active) < places else Wait()
        if isinstance(action, Advance):
            trial = action.trial
            assert world.offers(trial), f"{trial} is not offered"
            assert key(trial) not in map(key, pending), f"{trial} is under way"
            assert trial not in trials, f"{trial} was proposed twice"
            trials.append(trial)
            run = world.run(trial, action.until, len(trials))
            active.append((now + seconds(run), run))
            busy += active[-1][0] - now
            continue
        if isinstance(action, Done) and not active:
            return Played(evidence, tuple(trials), 1 - busy / (places * now))
        assert active, "a strategy waits although nothing is under way"
        now, ended = min(active, key=lambda entry: entry[0])
        active.remove((now, ended))
        evidence = evidence.with_run(ended)
    raise AssertionError("the strategy did not come to an end")


def true_seconds(run: Run) -> float:
    return run.wall_seconds


def random_seconds(seed: int) -> Callable[[Run], float]:
    """Any order of endings: a run takes what is drawn, whatever it has to do."""
    generator = np.random.default_rng(seed)
    return lambda run: float(generator.exponential()) + 1e-9 * run.identifier


def given_rates(world: World, seeds: tuple[int, ...] = (0, 1, 2)) -> Sweep:
    rates = tuple(rate_at(index) for index in range(-10, 0, 3))
    return Sweep(world.sizes, seeds, 64, 0.03, world.offers, rates, planned_examples=world.planned_examples)


def tuned(world: World, seeds: tuple[int, ...] = (0, 1)) -> Sweep:
    until = until_target(TARGET)
    planned = world.planned_examples
    return Sweep(world.sizes, seeds, 64, 0.03, world.offers, until=until, planned_examples=planned)


def adaptive(world: World, seeds: tuple[int, ...] = (0, 1, 2)) -> Adaptive:
    return Adaptive(world.sizes, seeds, 64, 0.03, world.offers, world.planned_examples)


STRATEGIES: dict[str, Callable[[World], Strategy]] = {
    "sweep at given rates": given_rates,
    "sweep that tunes": tuned,
    "adaptive": adaptive,
}
PLACES = (1, 2, 4)
EXACT, NOISY = World(), World(noise=0.1)


# ------------------------------------------------------------------------------------------ any order of endings


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("world", [EXACT, NOISY], ids=["exact", "noisy"])
@settings(derandomize=True, deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**32 - 1), places=st.sampled_from(PLACES[1:]))
def test_in_any_order_nothing_is_run_twice_and_the_end_comes(name: str, world: World, seed: int, places: int) -> None:
    strategy = STRATEGIES[name](world)
    played = play(world, strategy, places, random_seconds(seed))  # which asserts all of it
    assert isinstance(strategy(played.evidence), Done)
    # Asked anew, as after a restart, with all that is known in another order: still done.
    shuffled = np.random.default_rng(seed).permutation(len(played.evidence.runs))
    again = replace(world.evidence(), runs=tuple(played.evidence.runs[k] for k in shuffled))
    assert isinstance(strategy(again), Done)


@settings(derandomize=True, deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**32 - 1), places=st.sampled_from(PLACES[1:]))
def test_a_sweep_at_given_rates_runs_the_same_set_with_any_number_of_places(seed: int, places: int) -> None:
    alone = play(EXACT, given_rates(EXACT), 1, true_seconds)
    assert len(alone.trials) > 40
    together = play(EXACT, given_rates(EXACT), places, random_seconds(seed))
    assert sorted(map(key, together.trials)) == sorted(map(key, alone.trials))
    assert together.chosen == alone.chosen


@settings(derandomize=True, deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**32 - 1), places=st.sampled_from(PLACES[1:]))
def test_where_seeds_miss_by_luck_a_sweep_at_given_rates_makes_the_same_runs(seed: int, places: int) -> None:
    # At given rates every seed runs in every cell, whatever misses.
    world = World(noise=0.4, planned_examples=100_000)
    alone = play(world, given_rates(world), 1, true_seconds)
    together = play(world, given_rates(world), places, random_seconds(seed))
    assert together.keys == alone.keys
    assert together.chosen == alone.chosen


@pytest.mark.parametrize("name", ["sweep that tunes", "adaptive"])
@settings(derandomize=True, deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**32 - 1), places=st.sampled_from(PLACES[1:]))
def test_without_noise_the_chosen_size_and_rate_are_those_of_one_place(name: str, seed: int, places: int) -> None:
    strategy = STRATEGIES[name](EXACT)
    alone = play(EXACT, strategy, 1, true_seconds)
    together = play(EXACT, strategy, places, random_seconds(seed))
    assert together.chosen == alone.chosen == (512, rate_at(index_of(EXACT.best_rate(512))), 0)
    if name == "sweep that tunes":  # each size begins where its neighbour ended: with the neighbour, not with luck
        assert together.keys == alone.keys


# ------------------------------------------------------------------------------------------- lengths of a schedule


@pytest.mark.parametrize("make", [tuned, adaptive])
@settings(derandomize=True, deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**32 - 1), places=st.sampled_from(PLACES))
def test_lengths_of_one_trial_are_never_run_at_the_same_time(make: Any, seed: int, places: int) -> None:
    world = World(length_bound=True, sizes=(32, 128, 512, 2048), planned_examples=3_000_000)
    strategy = by_length(make(world, seeds=(0,)) if make is adaptive else replace(make(world, (0,)), until=_never))
    played = play(world, strategy, places, random_seconds(seed))
    assert played.chosen[0] == 512
    for run in played.evidence.relevant:
        ends = [point for point in run.points if point.step > 0]
        assert len(ends) <= 7
        if run.stop is not None and run.stop.reason is StopReason.FINISHED:
            assert next_length(ends, TARGET, world.planned_examples) is None


def _never(curve: Any) -> None:
    return None


# -------------------------------------------------------------------------------------------------- how much it costs


@pytest.mark.parametrize("name", STRATEGIES)
def test_several_places_save_time_and_make_few_more_runs(name: str) -> None:
    for world in (EXACT, NOISY):
        runs = {places: play(world, STRATEGIES[name](world), places, true_seconds) for places in PLACES}
        assert runs[1].idle == pytest.approx(0.0, abs=1e-9)
        for places in PLACES[1:]:  # at most one run in ten more; the waits are those of a search that learns
            assert len(runs[places].trials) <= 1.1 * len(runs[1].trials)
            assert runs[places].idle < (0.25 if places == 2 else 0.5)
            assert runs[places].chosen == runs[1].chosen


# --------------------------------------------------------------------------------------------------- piece by piece


def with_pending(evidence: Evidence, *keys: Key) -> Evidence:
    return replace(evidence, pending=frozenset(Trial(*one) for one in keys))


def test_fixed_trials_that_are_under_way_are_passed_over_and_waited_for() -> None:
    trials = [Trial(32, 0.1, seed, 100_000) for seed in (0, 1)]
    strategy = fixed(trials, "asked for")
    evidence = EXACT.evidence()
    first, second = strategy(evidence), strategy(with_pending(evidence, (32, 0.1, 0)))
    assert isinstance(first, Advance)
    assert isinstance(second, Advance)
    assert (first.trial, second.trial) == tuple(trials)
    assert isinstance(strategy(with_pending(evidence, (32, 0.1, 0), (32, 0.1, 1))), Wait)


def test_a_seed_is_missing_that_has_neither_run_nor_is_under_way() -> None:
    evidence = EXACT.evidence().with_run(EXACT.run(Trial(64, 0.1, 0, 400_000), _never, 1))
    assert missing_seed(evidence, 64, 0.1, (0, 1, 2)) == 1
    assert missing_seed(with_pending(evidence, (64, 0.1, 1)), 64, 0.1, (0, 1, 2)) == 2
    assert missing_seed(with_pending(evidence, (64, 0.1, 1), (64, 0.1, 2)), 64, 0.1, (0, 1, 2)) is None
    assert missing_seed(with_pending(evidence, (64, 0.3162, 1), (32, 0.1, 1)), 64, 0.1, (0, 1, 2)) == 1


def test_the_span_is_tried_all_at_once_and_what_follows_waits_for_it() -> None:
    pending: list[float] = []
    for offset in SPAN:
        assert next_index((), -6, pending=pending) == -6 + offset
        pending.append(rate_at(-6 + offset))
    assert next_index((), -6, pending=pending) is None
    cells = [Cell(64, rate, (1.0 + k,), 0, 0, 0.0) for k, rate in enumerate(sorted(pending))]
    assert next_index(cells[1:], -6, pending=pending) is None  # the last of the span may be the best
    assert next_index(cells, -6, pending=pending) == -12  # all are known: beyond the edge where the best lies
    assert next_index(cells, -6, pending=[*pending, rate_at(-12)]) is None


def test_the_fresh_seed_waits_for_all_that_is_under_way() -> None:
    world = NOISY
    played = play(world, adaptive(world), 1, true_seconds)
    fresh = played.trials[-1]
    assert fresh.seed == FRESH_SEED
    before = replace(world.evidence(), runs=played.evidence.runs[:-1])
    strategy = adaptive(world)
    action = strategy(before)
    assert isinstance(action, Advance)
    assert action.trial == fresh
    # A seed that is still under way may change the choice that the fresh one checks.
    last = before.runs[-1]
    waiting = replace(before, runs=before.runs[:-1], pending=frozenset({last.trial}))
    assert isinstance(strategy(waiting), Wait)
