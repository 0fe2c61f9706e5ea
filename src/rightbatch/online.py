"""A training of a `Workload` whose batch size a controller chooses as it goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rightbatch import curves
from rightbatch.batch_schedule import Phase
from rightbatch.controllers.contract import Controller, Seen
from rightbatch.errors import InputError
from rightbatch.evaluation import Evaluator
from rightbatch.fit.step_time import fit_step_time
from rightbatch.raised import explained
from rightbatch.records import Point, StepTime, Target, Trial
from rightbatch.steering import monitor_for, samples_after
from rightbatch.stepping import Stepper
from rightbatch.streams import RandomStreams
from rightbatch.workload import Workload


class OnlineRun:
    """A training under a controller, from evaluation to evaluation: `advance` as of any run in progress.

    The trial says the first batch size and the rate that the controller's factors are of. Evaluations lie on the ladder
    of examples of every run, each at the first step at or beyond its rung. `phases` is what was chosen so far.

    Parameters
    ----------
    step_times: Of the batch sizes that it may choose, for controllers that weigh seconds.
    overhead: Share of training time that looking at the gradients may add, where the controller does.

    Raises
    ------
    InputError: When the controller weighs seconds and fewer than two sizes were timed.
    """

    def __init__(
        self,
        workload: Workload,
        trial: Trial,
        controller: Controller,
        step_times: Sequence[StepTime] = (),
        overhead: float = 0.02,
    ) -> None:
        self.trial = workload.complete(trial)
        assert self.trial.planned_examples is not None  # `Workload.complete` sees to it
        law = fit_step_time(step_times) if len(step_times) > 1 else None
        if law is None and "seconds" in controller.needs:
            raise InputError(f"{type(controller).__name__} weighs seconds: give step_times of two sizes or more.")
        self._law = (law.alpha_seconds.estimate, law.beta_seconds.estimate) if law else (None, None)
        self._random, self._valid = RandomStreams(self.trial.seed), Evaluator(workload, workload.source("valid"))
        with self._random.active(), explained("while the model was made"):
            self.stepper = Stepper(workload, self.trial)
        self._monitor = monitor_for(controller, self.stepper.model, self.stepper.optimizer, overhead)
        self._controller, self._state, self._sampled = controller, controller.begin(), -1
        self._loss: float | None = None
        self._rungs = iter((0.0, *curves.ladder(self.trial.planned_examples)))
        self._seconds = 0.0
        self.phases: list[Phase] = []

    def advance(self) -> Point | None:
        """Train to the next rung and evaluate; None at the end of the planned length."""
        stepper = self.stepper
        rung = next((rung for rung in self._rungs if rung == 0 or rung > stepper.examples), None)
        if rung is None:
            return None
        losses = []
        started = time.perf_counter()
        with self._random.active(), explained(f"in a training under a controller, after step {stepper.step}"):
            while stepper.examples < rung:
                losses.append(self._step())
        self._seconds += time.perf_counter() - started
        with RandomStreams(0).active():  # as in a run: an evaluation that draws is repeatable and disturbs nothing
            valid_loss, valid_metric = self._valid(stepper.judged)
        return Point(
            step=stepper.step,
            examples=stepper.examples,
            seconds=self._seconds,
            train_loss=sum(losses) / len(losses) if losses else None,
            valid_loss=valid_loss,
            valid_metric=valid_metric,
            batch_size=stepper.batch_size,
            learning_rate=float(stepper.optimizer.param_groups[0]["lr"]),
        )

    def _step(self) -> float:
        stepper = self.stepper
        samples, self._sampled = samples_after(self._monitor, self._sampled)
        rate = float(stepper.optimizer.param_groups[0]["lr"])
        first = self.trial.batch_size
        seen = Seen(stepper.examples, stepper.step, stepper.batch_size, first, rate, self._loss, samples, *self._law)
        choice, self._state = self._controller.choose(self._state, seen)
        size = min(choice.batch_size, len(stepper.source) or choice.batch_size)
        stepper.resize(size, choice.rate_factor)
        if not self.phases or (self.phases[-1].batch_size, self.phases[-1].rate_factor) != (size, choice.rate_factor):
            self.phases.append(Phase(stepper.examples, size, choice.rate_factor))
        self._loss = stepper.run(1)
        return self._loss

    def close(self) -> None:
        """Take the monitor off the model."""
        if self._monitor is not None:
            self._monitor.close()


def points_of(run: OnlineRun, target: Target | None) -> Iterator[Point]:
    """Its points, until the target is reached, the loss is beyond saving, or the planned length is."""
    seen: list[Point] = []
    try:
        while (point := run.advance()) is not None:
            seen.append(point)
            yield point
            if curves.diverged(seen) or (target is not None and curves.until_target(target)(seen)):
                return
    finally:
        run.close()
