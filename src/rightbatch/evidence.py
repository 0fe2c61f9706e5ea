"""What a study says for one objective and target: the cost of every run, by cell (batch size and rate) and by size.

Everything here is computed from curves and step times anew for each question; nothing of it is stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from rightbatch import curves
from rightbatch.batch_schedule import SETTING, BatchSchedule, parsed, schedule_of
from rightbatch.cells import Cell, SizeEvidence, cheapest, tune
from rightbatch.ends import run_of_ends
from rightbatch.fit.noise import CriticalPrior, critical_prior
from rightbatch.fit.seed_noise import SeedNoise, pool_seed_noise
from rightbatch.fit.step_time import StepTimeFit
from rightbatch.minima import WeightsRecord
from rightbatch.question import EQUIVALENT_FACTOR, EQUIVALENT_GAIN, Objective, Question
from rightbatch.records import (
    GradientSample,
    Quantity,
    Run,
    Setting,
    Settings,
    StepTime,
    StopReason,
    Trial,
    WorkloadFacts,
)
from rightbatch.seconds import Seconds

FRESH_SEED = 1000
"""Seeds from here on check a choice that was made without them. Whole runs are compared without them; a search of few
runs, whose choice may rest on a single run that was lucky, learns from them and chooses anew."""

INCONCLUSIVE = frozenset({StopReason.INTERRUPTED, StopReason.OUT_OF_BUDGET, StopReason.FAILED})
"""Runs that ended so tell nothing by not reaching a target."""


@dataclass(frozen=True)
class Evidence:
    """The runs and step times of a study (or what is known of it so far), for one question.

    `pending` are the trials of runs that are under way elsewhere: a strategy proposes others.
    `gradient_samples` are those of each training whose gradients were looked at. `fits` is the largest batch that was
    seen to fit into memory in one pass, None where that was not looked at. `weights` is what was measured of those that
    runs ended with. `step_times_by_settings` are those of the same machine, by the settings that were not as declared.
    `options` are what was asked beyond the workload, as the command line has it.
    """

    facts: WorkloadFacts
    runs: tuple[Run, ...]
    step_times: tuple[StepTime, ...]
    question: Question
    settings: Settings = field(default_factory=Settings)
    planned_examples: int = 0
    pending: frozenset[Trial] = frozenset()
    gradient_samples: tuple[tuple[GradientSample, ...], ...] = ()
    fits: int | None = None
    weights: tuple[WeightsRecord, ...] = ()
    step_times_by_settings: Mapping[Settings, tuple[StepTime, ...]] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    memory: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def with_setting(self, name: str, value: Setting) -> Evidence:
        """The same study, asked about another value of one setting: other runs, and the seconds that it takes."""
        return self.with_settings(Settings({**self.settings, name: value}))

    def with_settings(self, settings: Settings) -> Evidence:
        """The same, with these settings, others as declared."""
        changed = settings.other_than(self.facts.settings)
        # A study of before settings had seconds of their own has those of one environment alone.
        times = self.step_times_by_settings.get(changed, ()) if self.step_times_by_settings else self.step_times
        return replace(self, settings=settings, step_times=times)

    @property
    def declared(self) -> Mapping[str, Setting]:
        """Every setting that a trial can have, with its default."""
        return {SETTING: "", **self.facts.settings}

    # ------------------------------------------------------------------------------------------------ seconds

    @cached_property
    def seconds(self) -> Seconds:
        """What steps and runs take on this machine."""
        key = ("seconds", id(self.step_times))  # the same for every question, and kept beside what it is made of
        if key not in self.memory:
            self.memory[key] = (self.step_times, Seconds(self.step_times))
        found: Seconds = self.memory[key][1]
        return found

    @property
    def step_time_fit(self) -> StepTimeFit | None:
        """See `Seconds.law`."""
        return self.seconds.law

    def step_seconds(self, batch_size: int) -> float | None:
        """See `Seconds.of_step`."""
        return self.seconds.of_step(batch_size)

    def schedule(self, batch_size: int) -> BatchSchedule:
        """That of the runs that begin with a batch size."""
        return parsed(batch_size, str(self.settings.get(SETTING, "")))

    def steps_of_cost(self, batch_size: int, cost: float) -> float | None:
        """How many steps a cost is, the inverse of `cost_of_steps`; with METRIC, the steps at which runs compare."""
        question, schedule = self.question, self.schedule(batch_size)
        if question.at_examples is not None:
            return schedule.steps_of(question.at_examples)
        if question.objective is Objective.STEPS:
            return cost
        if question.objective is Objective.EXAMPLES:
            return schedule.steps_of(cost)
        total = cost if question.at_seconds is None else question.at_seconds
        if schedule.fixed:
            seconds = self.step_seconds(batch_size)
            return total / seconds if seconds else None
        examples = self.seconds.examples_at(schedule, total)
        return schedule.steps_of(examples) if examples is not None else None

    def seconds_error(self, batch_size: int) -> float:
        """What the error of a step time (see `Seconds.error_of_step`) adds to that of a log cost: 0 without seconds."""
        timed = self.question.objective is Objective.TIME or self.question.at_seconds is not None
        return self.seconds.error_of_step(batch_size) if timed else 0.0

    @cached_property
    def longest_samples(self) -> tuple[GradientSample, ...]:
        """The gradients of the training that was sampled for the most examples; empty where none was."""
        found = [samples for samples in self.gradient_samples if samples and samples[0].metric == "plain"]
        return max(found, key=lambda samples: samples[-1].step * samples[-1].batch_size, default=())

    @cached_property
    def critical_prior(self) -> CriticalPrior | None:
        """What gradients say of the critical batch size."""
        longest = self.longest_samples
        if not longest:
            return None
        last = longest[-1]
        crossings = [self.crossing(run) for run in self.runs_at(last.batch_size, last.learning_rate)]
        at_target = any(crossing is not None and crossing.steps <= last.step + 1 for crossing in crossings)
        return critical_prior(longest, at_target=at_target)

    @cached_property
    def judged_by(self) -> Quantity:
        """What the person calls the quantity of the target: where a loss stands for a metric, the loss."""
        return curves.called([point for run in self.relevant for point in run.points], self.question.target.quantity)

    @cached_property
    def metric(self) -> str:
        """What the person calls the metric."""
        points = [point for run in self.relevant for point in run.points]
        return self.facts.metric if self.facts.metric != "valid_metric" else curves.called(points, "valid_metric")

    # --------------------------------------------------------------------------------------------------- costs

    def cost(self, run: Run) -> float | None:
        """What one run cost to reach the target, in the unit of the objective; None if it did not."""
        if self.question.objective is Objective.METRIC:
            return self._shortfall(run)
        found = self.crossing(run)
        if found is None:
            return None
        return self.cost_of_steps(run.trial.batch_size, found.steps, found.examples)

    def crossing(self, run: Run) -> curves.Crossing | None:
        """Where one of the relevant runs reaches the target; None if it does not."""
        return self._read(run)[0]

    def _read(self, run: Run) -> tuple[curves.Crossing | None, float]:
        """The crossing of a run and its distance from the target (see `Cell.shortfall`), read off its curve once."""
        # Evidence is made anew after every run; what was found of the others is handed on. The points are kept beside
        # the answer, so that their identity is not given to another curve meanwhile.
        target = self.question.target
        if self.facts.length_bound:  # each end is a whole training: nothing has to confirm it
            target = replace(target, rule="first_touch")
        key = (id(run.points), target)
        if key not in self.memory:
            best = curves.best_value(run.points, target.quantity, target.direction)
            distance = math.inf if best is None else 0.0 if target.reached_by(best) else abs(target.value - best)
            self.memory[key] = (run.points, (curves.crossing(run.points, target), distance))
        found: tuple[curves.Crossing | None, float] = self.memory[key][1]
        return found

    def _rung_error(self, runs: Sequence[Run]) -> float:
        """Standard error of the mean log cost from the distance of the rungs that enclose each crossing (uniform)."""
        if self.question.objective is Objective.METRIC:
            return 0.0
        crossings = [found for run in runs if (found := self.crossing(run)) is not None]
        widths = [math.log(c.high_examples / (c.low_examples or c.high_examples / curves.RATIO)) for c in crossings]
        return math.sqrt(sum(width**2 for width in widths) / 12) / len(widths) if widths else 0.0

    def cost_of_steps(self, batch_size: int, steps: float, examples: float) -> float | None:
        """What so many steps cost, in the unit of the objective; None where seconds per step are not known."""
        if self.question.objective is Objective.STEPS:
            return steps
        if self.question.objective is Objective.EXAMPLES:
            return examples
        return self.seconds.of_run(self.schedule(batch_size), steps, examples)

    def _shortfall(self, run: Run) -> float | None:
        """Distance to the best value of any run at the same cost, on a scale where 2 % of the gain is a factor 1.1.

        So that one rule serves every objective: sizes within a factor 1.1 are as good, a factor 2 ends a zone. The log
        of this cost is linear in the metric.
        """
        value, (start, best) = self._value_at_cost(run), self._metric_range
        if value is None or best == start:
            return None
        shortfall = abs(best - value) / abs(best - start)
        return float(EQUIVALENT_FACTOR ** min(shortfall / EQUIVALENT_GAIN, 7000.0))

    def _value_at_cost(self, run: Run) -> float | None:
        question = self.question
        examples = question.at_examples
        if question.at_seconds is not None:
            examples = self.seconds.examples_at(schedule_of(run.trial), question.at_seconds)
        if examples is None:
            return None
        return curves.value_at(run.points, question.target.quantity, examples=examples)

    @cached_property
    def _metric_range(self) -> tuple[float, float]:
        """The worst start and the best value at the given cost: over all runs, so that settings have one scale.

        At equal seconds over the runs with this question's settings: others take seconds of their own.
        """
        direction = self.question.target.direction
        runs = self.runs if self.question.at_seconds is None else self.relevant
        at_cost = [v for run in runs if (v := self._value_at_cost(run)) is not None]
        starts = [
            v for run in runs if run.points and (v := getattr(run.points[0], self.question.target.quantity)) is not None
        ]
        if not at_cost or not starts:
            return (0.0, 0.0)
        return (min(starts), max(at_cost)) if direction == "max" else (max(starts), min(at_cost))

    # ----------------------------------------------------------------------------------------- cells and sizes

    @cached_property
    def relevant(self) -> tuple[Run, ...]:
        """Runs with this question's settings; of several runs of one trial, the one that got furthest.

        Of a length-bound workload, the runs of one trial at all planned lengths as one: see `ends.run_of_ends`.
        """
        grouped: dict[tuple[int, float, int], list[Run]] = {}
        for run in self.runs:
            if {**self.declared, **run.trial.settings} == {**self.declared, **self.settings}:
                key = (run.trial.batch_size, run.trial.learning_rate, run.trial.seed)
                grouped.setdefault(key, []).append(run)
        if self.facts.length_bound:
            # A study that is only read does not say which lengths its search went to: as far as its longest run.
            longest = self.planned_examples or max((r.trial.planned_examples or 0 for r in self.runs), default=0)
            return tuple(run_of_ends(group, self.question.target, longest) for group in grouped.values())
        return tuple(max(reversed(group), key=self._progress) for group in grouped.values())

    def _progress(self, run: Run) -> tuple[bool, int]:
        """What makes one of two runs of a trial the one to go by: not cut short or left paused, then the longer."""
        stop = run.stop
        cut_short = stop is None or stop.reason in INCONCLUSIVE or stop.message == curves.PAUSED
        if stop is not None and stop.reason is StopReason.FINISHED:  # of a shorter plan than is asked for by now?
            cut_short = (run.trial.planned_examples or 0) < self.planned_examples
        return (not cut_short, run.points[-1].step if run.points else 0)

    def run_of(self, batch_size: int, learning_rate: float, seed: int) -> Run | None:
        """The relevant run of one batch size, rate and seed; None where there is none."""
        runs = self.runs_at(batch_size, learning_rate)
        return next((run for run in runs if run.trial.seed == seed), None)

    def conclusive(self, run: Run) -> bool:
        """Whether a run tells something: it reached the target, or had its full chance and did not.

        A run that was stopped at an easier target, or planned shorter than now asked for, had no full chance.
        """
        if self.facts.length_bound:
            if not self.planned_examples and self.cost(run) is not None:
                return True  # nobody searches: the shortest length that reached is what is known
            return run.stop is not None and run.stop.reason not in INCONCLUSIVE
        if self.cost(run) is not None:
            return True
        stop = run.stop
        if stop is None or stop.reason in INCONCLUSIVE or stop.message in (curves.REACHED, curves.PAUSED):
            return False
        return stop.reason is not StopReason.FINISHED or (run.trial.planned_examples or 0) >= self.planned_examples

    def with_run(self, run: Run) -> Evidence:
        """The evidence with one run added, or put in place of what was known of it."""
        return replace(self, runs=(*(r for r in self.runs if r.identifier != run.identifier), run))

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell with a conclusive run, by batch size and rate. Fresh seeds are left out."""
        grouped: dict[tuple[int, float], list[Run]] = {}
        for run in self.relevant:
            if run.trial.seed < FRESH_SEED and self.conclusive(run):
                grouped.setdefault((run.trial.batch_size, run.trial.learning_rate), []).append(run)
        cells = []
        for (size, rate), group in sorted(grouped.items()):
            costs = [self.cost(run) for run in group]
            diverged = sum(run.stop is not None and run.stop.reason is StopReason.DIVERGED for run in group)
            reached = tuple(cost for cost in costs if cost is not None)
            shortfall = min(self._read(run)[1] for run in group)
            rung_error = self._rung_error(group)
            cells.append(Cell(size, rate, reached, len(costs) - len(reached), diverged, shortfall, rung_error))
        return tuple(cells)

    @cached_property
    def best_cell(self) -> Cell | None:
        """The cheapest cell that reaches the target; None if none does."""
        return cheapest(self.cells)

    def cells_of(self, batch_size: int) -> tuple[Cell, ...]:
        """The cells of one batch size, by rate."""
        return tuple(cell for cell in self.cells if cell.batch_size == batch_size)

    def runs_at(self, batch_size: int, learning_rate: float) -> tuple[Run, ...]:
        """The runs of one batch size and rate, fresh seeds included, conclusive or not."""
        wanted = (batch_size, learning_rate)
        return tuple(run for run in self.relevant if (run.trial.batch_size, run.trial.learning_rate) == wanted)

    def seeds_of(self, batch_size: int, learning_rate: float) -> frozenset[int]:
        """Seeds that are done with in a cell, fresh ones included: their run is conclusive and was not cut short."""
        runs = self.runs_at(batch_size, learning_rate)
        return frozenset(run.trial.seed for run in runs if self.conclusive(run) and not _can_go_on(run))

    def pending_rates(self, batch_size: int) -> frozenset[float]:
        """Rates at which runs of one batch size are under way."""
        return frozenset(trial.learning_rate for trial in self.pending if trial.batch_size == batch_size)

    def fresh_costs(self, batch_size: int, learning_rate: float) -> tuple[float | None, ...]:
        """Costs of the runs with fresh seeds in a cell; None for one that missed."""
        runs = self.runs_at(batch_size, learning_rate)
        return tuple(self.cost(run) for run in runs if run.trial.seed >= FRESH_SEED and self.conclusive(run))

    @cached_property
    def seed_noise(self) -> SeedNoise:
        """Pooled over all cells that reach the target."""
        return pool_seed_noise(cell.costs for cell in self.cells if cell.reaches)

    @cached_property
    def sizes(self) -> tuple[SizeEvidence, ...]:
        """Every batch size that was tried, with its rate tuned."""
        return tuple(self._size(size) for size in sorted({cell.batch_size for cell in self.cells}))

    @cached_property
    def choice(self) -> SizeEvidence | None:
        """The size whose tuned cost is lowest; None where none reaches the target."""
        return min(
            (size for size in self.sizes if size.cost is not None),
            key=lambda size: size.cost.estimate if size.cost else math.inf,
            default=None,
        )

    def _size(self, batch_size: int) -> SizeEvidence:
        return tune(
            batch_size,
            self.cells_of(batch_size),
            self.seed_noise,
            self.step_seconds(batch_size),
            self.seconds_error(batch_size),
        )


def _can_go_on(run: Run) -> bool:
    return run.stop is None or run.stop.reason in (StopReason.INTERRUPTED, StopReason.OUT_OF_BUDGET)
