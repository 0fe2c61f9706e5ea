"""For tests, ours and other people's: studies simulated from the laws, with a known truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rightbatch import curves
from rightbatch.evidence import Evidence
from rightbatch.lattice import index_of, rate_at
from rightbatch.question import Objective, Question
from rightbatch.records import (
    Environment,
    Point,
    Run,
    Setting,
    Settings,
    StepTime,
    Stop,
    StopReason,
    Target,
    Trial,
    WorkloadFacts,
)
from rightbatch.store import Study

START, TARGET = 1.0, 0.1
"""The loss of every simulated run begins here, and its target lies there."""


@dataclass(frozen=True)
class Truth:
    """The world that a synthetic study is drawn from. Other worlds are subclasses of it, with a law of their own.

    Steps to the target at the best rate are `minimum_steps` (1 + `critical_batch_size` / B); the best rate is
    `rate_scale` / (1 + `rate_knee` / B); a rate that is a factor e off costs `rate_penalty` in log steps (a parabola in
    log rate), and beyond `divergence_factor` times the best it diverges. Log steps vary by `noise` from seed to seed.
    Seconds per step are max(`floor_seconds`, `alpha_seconds` + `beta_seconds` B), each repeat within `time_noise`.
    """

    minimum_steps: float = 100.0
    critical_batch_size: float = 200.0
    rate_scale: float = 1.0
    rate_knee: float = 200.0
    rate_penalty: float = 0.25
    divergence_factor: float = 8.0
    noise: float = 0.1
    floor_seconds: float = 0.0
    alpha_seconds: float = 1e-3
    beta_seconds: float = 1e-5
    time_noise: float = 0.02
    quality_noise: float = 0.0

    def steps(self, batch_size: float) -> float:
        """Expected steps to the target at the best rate."""
        return self.minimum_steps * (1 + self.critical_batch_size / batch_size)

    def best_rate(self, batch_size: float) -> float:
        """The rate that needs the fewest steps."""
        return self.rate_scale / (1 + self.rate_knee / batch_size)

    def step_seconds(self, batch_size: float) -> float:
        """Seconds per step without noise."""
        return max(self.floor_seconds, self.alpha_seconds + self.beta_seconds * batch_size)

    def best_loss(self, trial: Trial) -> float:
        """Where the loss of a run stays, however long it goes on."""
        return 0.0

    def progress(self, batch_size: float) -> float:
        """The log of the loss falls as this power of the steps."""
        return 0.5

    def seconds(self, batch_size: float) -> float:
        """Expected training seconds to the target at the best rate."""
        return self.steps(batch_size) * self.step_seconds(batch_size)

    def curve(self, trial: Trial, planned_examples: int, generator: np.random.Generator) -> tuple[list[Point], Stop]:
        """One run: its points on the ladder and why it stopped.

        The log of the loss falls as a power of the steps that passes the target exactly at the drawn number of steps,
        down to the best loss, which varies by `quality_noise` (in logs) from seed to seed.
        """
        factor = trial.learning_rate / self.best_rate(trial.batch_size)
        penalty = self.rate_penalty * math.log(factor) ** 2
        noise = self.noise * float(generator.standard_normal())
        steps_to_target = self.steps(trial.batch_size) * math.exp(penalty + noise)
        power = self.progress(trial.batch_size)
        lowest = self.best_loss(trial)
        if self.quality_noise:
            lowest *= math.exp(self.quality_noise * float(generator.standard_normal()))
        points = [self._point(trial, 0, START)]
        for step in curves.rungs_in_steps(planned_examples, trial.batch_size):
            if factor > self.divergence_factor:
                points.append(self._point(trial, step, 20 * START))
                return points, Stop(StopReason.DIVERGED)
            loss = START * (TARGET / START) ** ((step / steps_to_target) ** power)
            points.append(self._point(trial, step, max(lowest, loss)))
        return points, Stop(StopReason.FINISHED)

    def _point(self, trial: Trial, step: int, loss: float) -> Point:
        size = trial.batch_size
        return Point(step, step * size, step * self.step_seconds(size), loss, loss, loss, size, trial.learning_rate)


@dataclass(frozen=True)
class Simulated:
    """A study that was drawn and not written down."""

    facts: WorkloadFacts
    runs: tuple[Run, ...]
    step_times: tuple[StepTime, ...]

    @property
    def evidence(self) -> Evidence:
        """What it says for the objective time and its own target."""
        question = Question(Objective.TIME, Target(TARGET, "valid_metric", "min"))
        return Evidence(self.facts, self.runs, self.step_times, question)


def simulate(
    truth: Truth = Truth(),
    *,
    batch_sizes: Sequence[int] = (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048),
    seeds: int = 3,
    rates_around: int = 4,
    rates: Sequence[float] | None = None,
    train_examples: int = 50_000,
    planned_examples: int | None = None,
    timed_sizes: Sequence[int] = (),
    optimizer: str = "SGD",
    settings: Mapping[str, Setting] | None = None,
    name: str = "synthetic",
    random_seed: int = 0,
) -> Simulated:
    """Draw a study from the laws with the given truth: runs at `rates_around` lattice points to either side of each
    size's best rate (or at the given `rates`), `seeds` each, and step times of nine repeats, of `timed_sizes` too.

    The planned length is by default twice what the largest size needs.
    """
    generator = np.random.default_rng(random_seed)
    largest = max(batch_sizes)
    planned = planned_examples or round(2 * largest * truth.steps(largest) * math.exp(3 * truth.noise))
    facts = WorkloadFacts(
        name=name,
        train_examples=train_examples,
        valid_examples=1000,
        planned_examples=planned,
        metric="validation loss",
        direction="min",
        optimizer=optimizer,
        target=TARGET,
        present=(32, rate_at(index_of(truth.best_rate(32)))),
        settings=Settings(settings),
    )
    step_times: list[StepTime] = []
    runs: list[Run] = []
    for size in (*batch_sizes, *timed_sizes):
        repeats = truth.step_seconds(size) * np.exp(truth.time_noise * generator.standard_normal(9))
        step_times.append(StepTime(size, tuple(map(float, repeats)), (0.0,) * 9))
        if size not in batch_sizes:
            continue
        middle = index_of(truth.best_rate(size))
        for rate in rates or map(rate_at, range(middle - rates_around, middle + rates_around + 1)):
            for seed in range(seeds):
                trial = Trial(size, rate, seed, planned, Settings(settings))
                points, stop = truth.curve(trial, planned, generator)
                runs.append(Run(trial, tuple(points), stop, points[-1].seconds, len(runs) + 1))
    return Simulated(facts, tuple(runs), tuple(step_times))


def synthetic_study(path: str | Path, **drawn: Any) -> Study:
    """A study at a new path, as `simulate` draws it from the same arguments; returned open to write."""
    found = simulate(**drawn)
    study = Study.create(path, found.facts)
    environment = Environment("simulated", 1, "float64", "simulated", "-", "-", "-")
    for record in found.step_times:
        study.add_step_time(record, environment)
    for run in found.runs:
        kept = study.start_run(run.trial, environment)
        study.add_points(kept, run.points)
        assert run.stop is not None
        study.stop_run(kept, run.stop, run.wall_seconds)
    return study
