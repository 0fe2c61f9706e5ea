"""The search for a growing batch in a small world in which what a step is worth is known, and falls as it trains."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from rightbatch import curves
from rightbatch.batch_schedule import parsed, schedule_of
from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.growth import LOOKS, Growth, Plan, compared, decided, fixed_plan, growth_of, mean_cost
from rightbatch.lattice import rate_at
from rightbatch.means import ratio_of_means
from rightbatch.question import Objective, Question
from rightbatch.records import Interval, Point, Run, StepTime, Stop, StopReason, Target, Trial, WorkloadFacts
from rightbatch.report.growth import growth_text
from rightbatch.search.growing import MOST_RUNS, SEEDS, Growing, _too_dear
from rightbatch.search.strategy import Advance, Done, Wait, fixed

TARGET = Target(2.0, "valid_metric", "max", rule="first_touch")
RATES = tuple(rate_at(k) for k in range(-3, 2))


@dataclass(frozen=True)
class World:
    """The expected loss of a noisy quadratic with two curvatures, step by step; seconds are alpha + beta B.

    It falls by (1 - rate h)^2 and rises by rate^2 h noise / B: with noise a batch that grows gets to the target sooner,
    without it every larger batch only costs more. `luck` varies how far a step goes, by the run.
    """

    noise: float = 5.0
    luck: float = 0.0
    curvatures: tuple[float, float] = (1.0, 0.05)
    sizes: tuple[int, ...] = tuple(2**k for k in range(5, 13))
    planned: int = 400_000

    def step_seconds(self, size: int) -> float:
        return 1e-3 + 4e-6 * size

    def run(self, trial: Trial, until: curves.StopRule, identifier: int) -> Run:
        schedule = schedule_of(trial)
        luck = math.exp(self.luck * np.random.default_rng([*str(trial).encode()]).standard_normal())
        steep, flat = (luck * h for h in self.curvatures)
        a, b, step, examples = 0.5, 0.5, 0, 0  # the loss along the two directions
        points = [Point(0, valid_metric=0.0)]
        for rung in schedule.steps_near(curves.ladder(self.planned, first=1e-3, ratio=1.05)):
            while step < rung:
                phase = schedule.at(examples)
                rate = phase.rate_factor * trial.learning_rate
                rise = 0.5 * rate**2 * self.noise / phase.batch_size
                for _ in range(schedule.steps_in(examples, rung - step)):
                    a = (1 - rate * steep) ** 2 * a + steep * rise
                    b = (1 - rate * flat) ** 2 * b + flat * rise
                    step, examples = step + 1, examples + phase.batch_size
            points.append(Point(step, examples, valid_metric=-math.log10(a + b)))
            reason = until(points) or ("diverged" if a + b > 100 else None)
            if reason is not None:
                return Run(trial, tuple(points), Stop(StopReason.STOPPED_BY_RULE, reason), identifier=identifier)
        return Run(trial, tuple(points), Stop(StopReason.FINISHED), identifier=identifier)

    def evidence(self) -> Evidence:
        facts = WorkloadFacts("world", max(self.sizes), 0, self.planned, "progress", "max", "SGD")
        times = tuple(StepTime(b, (self.step_seconds(b),), (0.0,)) for b in self.sizes)
        return Evidence(facts, (), times, Question(Objective.TIME, TARGET), planned_examples=self.planned)

    def driven(self, strategy, evidence: Evidence) -> tuple[Evidence, str]:
        while not isinstance(action := strategy(evidence), Done):
            assert isinstance(action, Advance)
            trial = replace(action.trial, planned_examples=self.planned)
            evidence = evidence.with_run(self.run(trial, action.until, len(evidence.runs) + 1))
        return evidence, action.why

    def growth(self, evidence: Evidence) -> Growth | None:
        choice = evidence.choice
        assert choice is not None
        assert choice.best is not None
        return growth_of(evidence, fixed_plan(choice.batch_size, choice.best.learning_rate))


def reached_or_dear(points: curves.Curve) -> str | None:
    """Little is to be known of sizes and rates that cost a multiple of the best."""
    return curves.until_target(TARGET)(points) or ("too dear" if points[-1].examples > 150_000 else None)


@cache
def of_fixed(world: World) -> tuple[Evidence, Plan]:
    """All fixed sizes at all rates, with both seeds, and the best of them."""
    trials = [Trial(size, rate, seed, world.planned) for size in world.sizes for rate in RATES for seed in SEEDS]
    evidence, _ = world.driven(fixed(trials, "", reached_or_dear), world.evidence())
    assert evidence.choice is not None
    assert evidence.choice.best is not None
    return evidence, fixed_plan(evidence.choice.batch_size, evidence.choice.best.learning_rate)


@cache
def searched(world: World, **options) -> tuple[Evidence, Growing, str]:
    evidence, best = of_fixed(world)
    rates = {size.batch_size: size.best.learning_rate for size in evidence.sizes if size.best is not None}
    strategy = Growing(best, rates, max(world.sizes), lambda trial: True, **options)
    evidence, why = world.driven(strategy, evidence)
    return evidence, strategy, why


def test_where_later_steps_want_larger_batches_one_that_grows_is_found_and_recommended() -> None:
    world = World(luck=0.02)
    evidence, strategy, why = searched(world)
    assert why == "the best plan that was found is judged"
    growth = world.growth(evidence)
    assert growth is not None
    assert growth.recommended
    assert growth.times_the_fixed.high is not None
    assert growth.times_the_fixed.high < 1
    assert growth.seeds == 3  # by then it is beyond doubt
    # What it says is what the plan costs in a world without luck.
    plan = strategy.climb(evidence)
    assert isinstance(plan, Plan)
    assert str(plan) == f"{growth.batch_size} at rate {growth.learning_rate:g}, then {growth.schedule}"
    certain = replace(world, luck=0.0)
    reach = curves.until_target(TARGET)
    known = certain.evidence()
    for one in (plan, strategy.fixed):
        known = known.with_run(certain.run(one.trial(0, certain.planned, {}), reach, len(known.runs) + 1))
    truth = plan.cost(known, 0) / strategy.fixed.cost(known, 0)
    assert truth < 0.8
    assert truth in growth.times_the_fixed


def test_where_a_larger_batch_only_costs_more_none_is_recommended() -> None:
    evidence, _, _ = searched(World(noise=0.0))
    growth = World().growth(evidence)
    assert growth is None or not growth.recommended


@pytest.mark.parametrize(
    ("gain", "ends"),
    [
        (None, True),  # it missed the target
        (Interval(0.7, 0.6, 0.8), True),
        (Interval(1.3, 1.1, 1.5), True),
        (Interval(0.7, 0.4, 1.1), False),  # more seeds may tell
        (Interval(0.97, 0.8, 1.2), True),  # they may, but what they tell is worth less than they cost
    ],
)
def test_more_seeds_are_asked_where_they_may_tell_of_a_gain(gain: Interval | None, ends: bool) -> None:
    assert decided(gain) is ends


def test_a_plan_is_given_up_as_soon_as_it_has_cost_what_the_best_did() -> None:
    evidence, strategy, _ = searched(World(luck=0.02))
    growth = growth_of(evidence, strategy.fixed)
    assert growth is not None
    given_up = [row for row in growth.tried if row.times_the_fixed is None]
    assert given_up
    for row in given_up:
        assert row.more_than is not None
        assert 0.6 < row.more_than < 1.15  # a step of the ladder later, and of a mean over seeds
    assert all(row.more_than is None for row in growth.tried if row.times_the_fixed is not None)


def test_where_all_plans_were_given_up_that_is_what_is_said() -> None:
    world = World(noise=0.0)
    evidence, best = of_fixed(world)
    for size in (256, 512):
        trial = Trial(best.batch_size, best.learning_rate, 0, world.planned, {"batch_schedule": f"{size}@340"})
        run = world.run(trial, lambda points: "too dear" if len(points) > 3 else None, len(evidence.runs) + 1)
        evidence = evidence.with_run(run)
    growth = world.growth(evidence)
    assert growth is not None
    assert (growth.seeds, growth.recommended) == (0, False)
    assert growth_text(growth).startswith("No growing batch is known to be faster: 2 plans tried, each given up")
    diverged = replace(evidence, runs=tuple(_diverged(run) for run in evidence.runs), memory={})
    assert world.growth(diverged) is None  # of these it is not known what they would have cost


def _diverged(run: Run) -> Run:
    return replace(run, stop=Stop(StopReason.DIVERGED)) if run.trial.settings.get("batch_schedule") else run


def test_of_plans_without_a_gain_hardly_any_is_told_to_have_one() -> None:
    """Both looks together at most 2.5 % on the side that recommends: 70 or more of 2,000 are a chance of 0.4 %."""
    generator = np.random.default_rng(0)
    said = 0
    for _ in range(2000):
        plan, best = np.exp(0.2 * generator.standard_normal((2, max(LOOKS))))
        gains = [ratio_of_means(plan[:look], best[:look], 1 - 0.05 / len(LOOKS)) for look in LOOKS]
        said += any(gain.high is not None and gain.high < 1 for gain in gains)
    assert said < 70


def test_the_search_ends_when_it_has_cost_as_much_as_it_may() -> None:
    for most in (2.0, MOST_RUNS):
        evidence, strategy, _ = searched(World(luck=0.02), most_runs=most)
        unit = strategy.fixed.mean(evidence)
        spent, alone, before = 0.0, 0.0, list[Plan]()
        for run in evidence.runs:
            if not schedule_of(run.trial).fixed and run.trial.seed < FRESH_SEED:
                plan = Plan.of(run.trial)
                alone += plan.spent(evidence, run.trial.seed)
                spent += plan.spent(evidence, run.trial.seed, [one for one in before if one != plan])
                before.append(plan)
        assert most * 0.5 * unit < spent < (most + 2.6) * unit  # the last plan is tried to its end
    assert spent < 0.9 * alone  # what plans have in common is trained once


def test_what_a_run_has_in_common_with_an_earlier_one_is_not_spent_again() -> None:
    world = World()
    plans = [Plan(0.1, parsed(64, text)) for text in ("256@8000", "512@8000", "256@12000", "256@12000, 1024@14000")]
    reach = curves.until_target(TARGET)
    known = world.evidence()
    for one in plans:
        known = known.with_run(world.run(one.trial(0, world.planned, {}), reach, len(known.runs) + 1))
    whole = [plan.spent(known, 0) for plan in plans]
    of_small = world.step_seconds(64) / 64  # seconds an example
    assert plans[1].spent(known, 0, plans[:1]) == pytest.approx(whole[1] - 8_000 * of_small, rel=0.05)
    assert plans[2].spent(known, 0, plans[:2]) == pytest.approx(whole[2] - 8_000 * of_small, rel=0.05)
    of_both = 12_000 * of_small + 2_000 * world.step_seconds(256) / 256
    assert plans[3].spent(known, 0, plans[:3]) == pytest.approx(whole[3] - of_both, rel=0.1)
    assert plans[3].spent(known, 0, [Plan(0.2, plans[0].schedule)]) == whole[3]


def test_the_same_evidence_gives_the_same_answer_in_any_order_of_runs() -> None:
    evidence, strategy, why = searched(World(luck=0.02))
    assert strategy(evidence) == Done(why)
    again = replace(evidence, runs=evidence.runs[::-1], memory={})
    assert strategy(again) == Done(why)
    assert strategy.climb(again) == strategy.climb(evidence)
    assert strategy(replace(evidence, pending=frozenset({Trial(8, 0.1, 0)}))) == Wait()


def test_runs_that_judge_a_plan_are_made_side_by_side_and_no_others() -> None:
    evidence, strategy, _ = searched(World(luck=0.02))
    plan = strategy.climb(evidence)
    assert isinstance(plan, Plan)
    tried = [run for run in evidence.runs if run.trial.seed < FRESH_SEED]
    parts = {str(part) for part in plan.parts()} - {str(strategy.fixed)}
    unjudged = replace(evidence, runs=tuple(run for run in tried if str(Plan.of(run.trial)) not in parts), memory={})
    under_way: frozenset[Trial] = frozenset()
    while isinstance(action := strategy(replace(unjudged, pending=under_way)), Advance):
        assert action.trial not in under_way
        under_way |= {action.trial}
    assert action == Wait()
    judged = [Plan.of(trial) for trial in under_way]
    assert sorted(map(str, judged)) == sorted(
        [str(one) for one in (plan, strategy.fixed)] * 3 + [part for part in parts for _ in SEEDS]
    )
    # Where plans are tried, one run alone is: what it says decides what comes next.
    first = of_fixed(World(luck=0.02))[0]
    action = strategy(first)
    assert isinstance(action, Advance)
    assert strategy(replace(first, pending=frozenset({action.trial}))) == Wait()


def test_plans_grow_one_after_the_other_to_no_more_than_may_be() -> None:
    evidence, strategy, _ = searched(World(luck=0.02))
    plans = {schedule_of(run.trial) for run in evidence.runs}
    assert any(len(plan.phases) > 1 for plan in plans)
    for plan in plans:
        sizes = [phase.batch_size for phase in plan.phases]
        assert sizes == sorted(set(sizes))
        assert sizes[-1] <= strategy.largest


def test_a_gain_is_the_ratio_of_the_fresh_runs_alone() -> None:
    world = World()
    evidence, best = of_fixed(world)
    plan = Plan(
        best.learning_rate, schedule_of(Trial(best.batch_size, 0.1, 0, settings={"batch_schedule": "4096@20000"}))
    )
    assert compared(evidence, plan, best) is None
    assert world.growth(evidence) is None
    costs: dict[Plan, list[float]] = {plan: [], best: []}
    for k in range(3):
        lucky = replace(world, luck=0.1)
        for one in (plan, best):
            trial = one.trial(FRESH_SEED + k, world.planned, {})
            run = lucky.run(trial, curves.until_target(TARGET), len(evidence.runs) + 1)
            evidence = evidence.with_run(run)
            costs[one].append(one.cost(evidence, FRESH_SEED + k))
    assert compared(evidence, plan, best) == ratio_of_means(costs[plan], costs[best], 0.975)
    growth = world.growth(evidence)
    assert growth is not None
    assert growth.cost == pytest.approx(mean_cost(costs[plan]))
    assert growth.fixed_cost == pytest.approx(mean_cost(costs[best]))
    assert growth.tried == ()


def test_a_plan_that_misses_the_target_is_not_compared() -> None:
    world = World()
    evidence, best = of_fixed(world)
    plan = Plan(
        best.learning_rate, schedule_of(Trial(best.batch_size, 0.1, 0, settings={"batch_schedule": "4096@20000"}))
    )
    for one, until in (
        (plan, lambda points: "too dear" if len(points) > 3 else None),
        (best, curves.until_target(TARGET)),
    ):
        run = world.run(one.trial(FRESH_SEED, world.planned, {}), until, len(evidence.runs) + 1)
        evidence = evidence.with_run(run)
    assert plan.fresh_costs(evidence) == (math.inf,)
    assert compared(evidence, plan, best) is None


def test_plans_that_were_not_worth_a_fresh_seed_are_told_as_such() -> None:
    world = World(noise=0.0)
    evidence, best = of_fixed(world)
    trial = Trial(best.batch_size, best.learning_rate, 0, world.planned, {"batch_schedule": "256@340"})
    evidence = evidence.with_run(world.run(trial, curves.until_target(TARGET), len(evidence.runs) + 1))
    growth = world.growth(evidence)
    assert growth is not None
    assert (growth.seeds, growth.recommended, growth.schedule) == (0, False, "256@340")
    plan = Plan(best.learning_rate, schedule_of(trial))
    assert growth.times_the_fixed.estimate == pytest.approx(plan.cost(evidence, 0) / best.mean(evidence))
    assert growth_text(growth).startswith("No growing batch is known to be faster: of 1 plan")


def test_beside_a_fixed_size_that_missed_with_both_seeds_nothing_is_tried() -> None:
    world = World()
    _, best = of_fixed(world)
    missed = lambda points: "too dear" if len(points) > 3 else None  # noqa: E731
    evidence = world.evidence()
    for seed in SEEDS:
        evidence = evidence.with_run(world.run(best.trial(seed, world.planned, {}), missed, seed + 1))
    strategy = Growing(best, {}, max(world.sizes), lambda trial: True)
    assert strategy(evidence) == Done("no growth that was tried is faster than the fixed batch size")


def test_a_run_at_the_target_is_not_given_up_before_it_is_known_to_stay_there() -> None:
    world = World()
    evidence, best = of_fixed(world)
    curve = world.run(best.trial(0, world.planned, {}), curves.until_target(TARGET), 1).points
    cost = evidence.cost_of_steps(best.batch_size, curve[-1].step, curve[-1].examples)
    assert cost is not None
    dear = _too_dear(evidence, best.batch_size, 0.9 * cost)
    assert dear(curve) is None
    assert dear((*curve, replace(curve[-1], valid_metric=TARGET.value - 0.1))) is not None
