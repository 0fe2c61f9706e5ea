"""Runs of a `Loop`. Pausing one is not advancing its generator."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version

from rightbatch import curves
from rightbatch.errors import InputError, WorkloadError
from rightbatch.fit.step_time import unsteady
from rightbatch.loops.code import Code
from rightbatch.loops.loop import FIRST_RUNG_BATCHES, USUAL_BATCH_SIZE, Loop, LoopTrial
from rightbatch.loops.step_times import time_steps
from rightbatch.machine import processor
from rightbatch.raised import MemoryExhausted, tell_left_out
from rightbatch.records import Environment, Point, Setting, Settings, StepTime, Stop, StopReason, Trial, WorkloadFacts
from rightbatch.runner import suits


class LoopRunner:
    """Starts runs of a `Loop` in this process.

    The seconds of a point count from when the loop is first advanced: making model and data are in them unless the
    loop yields a point at step 0 (seconds then begin there) or makes them inside `trial.evaluating()`. Evaluation that
    `due` asked for, blocks of `evaluating` and pauses are left out. Seconds that the loop fills in itself are kept.
    """

    def __init__(self, loop: Loop, settings: Mapping[str, Setting] | None = None) -> None:
        self.loop, self._facts = loop, loop.facts()
        self._settings = Settings(settings).other_than(self._facts.settings)
        # Once: a loop may import torch, or set its threads, only while it runs.
        torch = sys.modules.get("torch")
        self._environment = Environment(
            device="loop",
            threads=torch.get_num_threads() if torch else 0,
            precision="unknown",
            processor=processor(),
            python=platform.python_version(),
            torch=str(torch.__version__) if torch else "none",
            rightbatch=version("rightbatch"),
            settings=self._settings,
        )

    @property
    def facts(self) -> WorkloadFacts:
        return self._facts

    @property
    def environment(self) -> Environment:
        return self._environment

    @property
    def changes_batch_size(self) -> bool:
        """See `rightbatch.runner.ChangesBatchSize`."""
        return self.loop.follows_schedule

    def offers(self, trial: Trial) -> bool:
        return suits(trial, self.loop.train_examples, self.loop.settings)

    def start(self, trial: Trial, state: bytes | None = None) -> LoopRun:
        """Begin a run. Raises `InputError` for a state: that of a generator cannot be saved, so there is none."""
        if state is not None:
            raise InputError(
                f"The loop {self._facts.name!r} was given a saved state of {len(state)} bytes, but a generator cannot "
                f"go on from one. Start the run anew, without a state."
            )
        complete = self.loop.complete(trial)
        if not self.offers(trial):
            raise WorkloadError(
                f"batch_size={trial.batch_size} is larger than the data: {self.loop.train_examples} training examples. "
                f"Use at most {self.loop.train_examples}."
            )
        return LoopRun(self.loop, complete)

    def step_times(self, batch_sizes: Sequence[int], *, rounds: int) -> Iterator[StepTime]:
        """Seconds between calls of `due`, which is never true meanwhile, so that nothing is evaluated.

        Sizes take turns, in two passes with half of the repeats each, so that a machine that speeds up or slows down
        touches all alike. The rate is small: time does not depend on it, and the model must not diverge. A loop that
        never calls `due` is timed between its points, `evaluating` left out. A loop that ends early gives what it has.
        `wait_seconds` are 0: waiting is not told apart. A size at which the loop raises gets no record, with a warning;
        where that is every size, the first error is raised.

        Raises `WorkloadError` when not one size could be timed.
        """
        rate = (self.loop.present[1] if self.loop.present else 0.1) / 100
        trials = [
            self.loop.complete(Trial(size, rate, 0, settings=self._settings)) for size in sorted(set(batch_sizes))
        ]
        seconds: dict[Trial, list[float]] = {trial: [] for trial in trials if self.offers(trial)}
        lengths = {trial: trial.planned_steps for trial in seconds}
        failures: dict[int, WorkloadError] = {}
        passes = [repeats for repeats in (rounds - rounds // 2, rounds // 2) if repeats]
        for number, repeats in enumerate(passes, start=1):
            for trial in tuple(seconds):
                try:
                    found, lengths[trial] = time_steps(self.loop, trial, repeats, lengths[trial])
                except MemoryExhausted:  # this size does not fit, nor do larger ones: they get no record
                    seconds = {fits: s for fits, s in seconds.items() if fits.batch_size < trial.batch_size}
                    break
                except WorkloadError as error:
                    failures[trial.batch_size] = error
                    del seconds[trial]
                    continue
                seconds[trial] += found
                if timed := seconds[trial]:
                    waits, unfinished = (0.0,) * len(timed), number < len(passes)
                    yield StepTime(trial.batch_size, tuple(timed), waits, unsteady(timed), unfinished)
        if failures and not seconds:
            raise next(iter(failures.values()))
        tell_left_out(failures)
        if not any(seconds.values()):
            raise WorkloadError(
                f"Seconds per step could not be measured at batch sizes {', '.join(str(b) for b in batch_sizes)}: the "
                f"loop {self._facts.name!r} ended, or ran out of memory, before it had made the few steps of a repeat. "
                f"Call trial.due(step) after every optimizer step, and offer smaller batches or more data."
            )


class LoopRun:
    """One run in progress. See `rightbatch.runner.RunInProgress` for the contract."""

    def __init__(self, loop: Loop, trial: Trial) -> None:
        self.trial = trial
        self._loop = loop
        first_size = loop.present[0] if loop.present else USUAL_BATCH_SIZE
        ratio = curves.RATIO_OF_ENDS if loop.length_bound else curves.RATIO
        self._given = LoopTrial(trial, first_examples=FIRST_RUNG_BATCHES * first_size, ratio=ratio)
        self._code: Code | None = None
        self._too_large: Stop | None = None
        try:
            self._code = Code(loop, self._given)
        except MemoryExhausted as error:  # of a function that builds before it returns: the first `advance` says so
            self._too_large = Stop(StopReason.OUT_OF_MEMORY, str(error))

    def advance(self) -> Point | Stop:
        """Train until the loop yields its next point. Out of memory is a stop; an error of the loop is raised."""
        if self._too_large is not None:
            return self._too_large
        code, planned_steps = self._code, self._given.planned_steps
        assert code is not None, "advance() after close()"
        if planned_steps is not None and code.step >= planned_steps:  # the loop itself may go on for ever
            return self._end(Stop(StopReason.FINISHED))
        try:
            point = code.advance()
        except MemoryExhausted as error:
            return self._end(Stop(StopReason.OUT_OF_MEMORY, str(error)))
        if point is not None:
            return point
        if code.step < 1:
            raise WorkloadError(
                f"The loop {self._loop.called!r} ended, but no point was yielded after training ({code.where}). Was "
                f"the data smaller than a batch of {self.trial.batch_size}? Yield a point whenever trial.due(step)."
            )
        return self._end(Stop(StopReason.FINISHED))

    def _end(self, stop: Stop) -> Stop:
        self.close()
        return stop

    def close(self) -> None:
        if self._code is not None:
            self._code.close()
        self._code = None
