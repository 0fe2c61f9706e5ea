"""What the checks of a `Workload` look at, made once and on demand: a batch, a model, a short run, an evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch

from rightbatch.batches import Source, is_loader
from rightbatch.checks.looking import Cannot, stage
from rightbatch.directions import has_learned
from rightbatch.errors import WorkloadError
from rightbatch.evaluation import Evaluator, evaluating
from rightbatch.losses import CONTRACT, check_loss, examples_in, is_total
from rightbatch.measure.step_time import measure_step_times
from rightbatch.records import Point, StepTime, Target, Trial, WorkloadFacts
from rightbatch.stepping import Stepper
from rightbatch.streams import RandomStreams
from rightbatch.update import under_autocast
from rightbatch.workload import Workload

STEPS, STEPS_SECONDS = 50, 5.0
"""The short run has so many steps, or ends after this time."""

REPEATED_STEPS = 10
"""Steps that a second run of the same seed repeats."""

EVALUATION_SECONDS = 5.0
"""An evaluation that takes longer is cut off, and its time is scaled up."""

QUICK_SECONDS = 0.3
"""An evaluation that is over sooner is made again: the first one also allocates."""

ROUNDS = 3

FURTHER_STEPS, FURTHER_SECONDS = 800, 2.0
"""Where learning is not seen in the short run, it goes on to so many steps in all, or for so long."""

WATCHED_EXAMPLES = 1000
"""Learning is watched on at most so many validation examples."""

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class ShortRun:
    """A few steps at the present choice: the model, its weights before any step, the loss of each step.

    `ungraded` are trainable parameters that no step gave a gradient, `left_out` those that the optimizer was not given.
    `stepper` can go on with it.
    """

    stepper: Stepper
    model: torch.nn.Module
    start: Weights
    losses: tuple[float, ...]
    ungraded: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation before training: its values, and the seconds and examples of a whole one."""

    loss: float
    metric: float
    seconds: float
    examples: int


class Rehearsal:
    """A workload at the choice that it is checked at."""

    def __init__(self, workload: Workload, facts: WorkloadFacts, trial: Trial, target: Target | None = None) -> None:
        self.workload, self.facts, self.target = workload, facts, target
        self.trial = workload.complete(trial)
        self.born: Weights = {}

    @stage("reading the training data")
    def source(self) -> Source:
        return self.workload.source("data")

    @stage("reading the training data")
    def batch(self) -> Any:
        size, known = self.trial.batch_size, len(self.source)
        if 0 < known < size:
            raise WorkloadError(
                f"batch_size={size} is larger than the data: {known} training examples. Use at most {known}."
            )
        with RandomStreams(self.trial.seed).active():
            return next(iter(self.source.epoch(self.trial.batch_size, torch.Generator().manual_seed(0))))

    @stage("reading the training data")
    def other_batch(self) -> Any:
        """The first batch of another seed; with a loader that has one order, the second of this one."""
        with RandomStreams(self.trial.seed).active():
            if not is_loader(self.workload.data):
                return next(iter(self.source.epoch(self.trial.batch_size, torch.Generator().manual_seed(1))))
            batches = islice(self.source.epoch(self.trial.batch_size, torch.Generator().manual_seed(0)), 1, 2)
            return next(batches, self.batch)

    @stage("reading the validation data")
    def valid_batch(self) -> Any:
        workload = self.workload
        with RandomStreams(0).active():
            batches = workload.source("valid").fixed(workload.evaluation_examples, workload.evaluation_batch_size)
            return next(iter(batches))

    @stage("model()")
    def model(self) -> torch.nn.Module:
        """A fresh model; its weights are kept in `born` before anything is done with it."""
        with RandomStreams(self.trial.seed).active():
            model = self.workload.model().to(torch.device(self.workload.device))
        self.born = weights(model)
        return model

    @stage("loss(model, batch)")
    def returned(self) -> Any:
        """What the loss returns for the first batch, in training mode."""
        model, batch = self.model, self.batch
        with RandomStreams(self.trial.seed).active():
            return under_autocast(self.workload.loss, self.workload)(model, batch)

    @stage("loss(model, batch)")
    def loss_problem(self) -> WorkloadError | None:
        """Why a loss of this kind cannot be trained on, but for its gradient; None where it can."""
        loss = self.returned
        total = loss[0] if is_total(loss) else loss
        if is_total(loss) and not isinstance(total, torch.Tensor):
            return WorkloadError(f"loss(model, batch) returned a total that is a {type(total).__name__}. {CONTRACT}.")
        if isinstance(total, torch.Tensor):  # whether it has a gradient is another question
            total = total.detach().double().requires_grad_()
            loss = (total, loss[1]) if is_total(loss) else total
        try:
            check_loss(loss, None if is_loader(self.workload.data) else self.trial.batch_size)
        except WorkloadError as error:
            return error
        return None

    @stage("metric(model, batch)")
    def metric_problem(self) -> WorkloadError | None:
        """What is wrong with the values of the metric; None where nothing is, or it judges the whole set."""
        workload, model = self.workload, self.model
        _ = self.valid_batch  # what reading raises is told as that
        if workload.metric is None or workload.metric_on == "set":
            return None
        # Of one batch, and with a loss that is right for certain: what goes wrong is then the metric.
        alone = replace(
            workload, loss=lambda model, batch: torch.zeros(()), evaluation_examples=workload.evaluation_batch_size
        )
        try:
            Evaluator(alone, alone.source("valid"))(model)
        except WorkloadError as error:
            return error
        return None

    @stage("training")
    def run(self) -> ShortRun:
        self.require_loss()
        return self._train(STEPS)

    @stage("training a second time")
    def second_run(self) -> ShortRun:
        """The same seed once more, after the first run has trained."""
        return self._train(min(REPEATED_STEPS, len(self.run.losses)))

    @stage("evaluation")
    def evaluation(self) -> Evaluation:
        if self.loss_problem is not None or self.metric_problem is not None:
            raise Cannot("loss or metric returns what it may not")
        workload = self.workload
        source = _Within(workload.source("valid"), EVALUATION_SECONDS)
        evaluator = Evaluator(workload, source)
        with RandomStreams(0).active():
            seconds, (loss, metric) = _timed(lambda: evaluator(self.model))
            if seconds < QUICK_SECONDS:
                seconds = min(seconds, *(_timed(lambda: evaluator(self.model))[0] for _ in range(2)))
        whole = min(len(source), workload.evaluation_examples) if len(source) else workload.evaluation_examples
        if source.cut_off:
            return Evaluation(loss, metric, seconds * whole / max(1, source.given), whole)
        return Evaluation(loss, metric, seconds, source.given)

    @stage("evaluation")
    def points(self) -> tuple[Point, ...]:
        """Evaluations before and along the short run, which goes on until learning is clearly seen, or for a while.

        Raises `Cannot` where an evaluation takes long.
        """
        if self.evaluation.seconds > EVALUATION_SECONDS:
            raise Cannot(f"an evaluation takes more than {EVALUATION_SECONDS:g} s")
        fewer = min(self.workload.evaluation_examples, WATCHED_EXAMPLES)
        workload = replace(self.workload, evaluation_examples=fewer)
        evaluator, stepper = Evaluator(workload, workload.source("valid")), self.run.stepper

        def point(step: int, model: torch.nn.Module) -> Point:
            with RandomStreams(0).active():
                loss, metric = evaluator(model)
            return Point(step, valid_loss=loss, valid_metric=metric)

        until = time.perf_counter() + FURTHER_SECONDS
        found = [point(0, self.model), point(len(self.run.losses), stepper.judged)]
        most = min(FURTHER_STEPS, self.trial.planned_steps or FURTHER_STEPS)
        with RandomStreams(self.trial.seed).active():
            while not has_learned(found) and stepper.step < most and time.perf_counter() < until:
                stepper.run(min(stepper.step, most - stepper.step))
                found.append(point(stepper.step, stepper.judged))
        return tuple(found)

    @stage("measuring step times")
    def step_time(self) -> StepTime:
        self.require_loss()
        for record in measure_step_times(self.workload, [self.trial.batch_size], rounds=ROUNDS):
            if not record.unfinished:
                return record
        raise Cannot(f"out of memory at batch size {self.trial.batch_size}")

    def require_loss(self) -> None:
        """Raise `Cannot` where the loss cannot be trained on: that is a finding of its own."""
        if self.loss_problem is not None or not _has_gradient(self.returned):
            raise Cannot("the loss cannot be trained on")

    def judge(self, function: Callable[..., Any], model: torch.nn.Module, batch: Any, *, seed: int = 0) -> Any:
        """What a loss or a metric returns in evaluation mode, without gradients."""
        with evaluating(model), RandomStreams(seed).active():
            return under_autocast(function, self.workload)(model, batch)

    def training_loss(self, batch: Any) -> torch.Tensor:
        """What the loss returns for a batch in training mode, after the short run: of a pair, the total."""
        model = self.run.model
        with torch.no_grad(), RandomStreams(self.trial.seed).active():
            returned = under_autocast(self.workload.loss, self.workload)(model, batch)
        found: torch.Tensor = returned[0] if is_total(returned) else returned
        return found.detach()

    def _train(self, steps: int) -> ShortRun:
        steps = min(steps, self.trial.planned_steps or steps)
        until = time.perf_counter() + STEPS_SECONDS
        losses: list[float] = []
        with RandomStreams(self.trial.seed).active():
            stepper = Stepper(self.workload, self.trial, self.source)
            start = weights(stepper.model)
            trained = {name: p for name, p in stepper.model.named_parameters() if p.requires_grad}
            ungraded = set(trained)
            while len(losses) < steps and (time.perf_counter() < until or len(losses) < 2):
                losses.append(stepper.run(1))
                # Over several steps: a part that is left out at random gets its gradient in another one.
                ungraded = {name for name in ungraded if trained[name].grad is None}
                if not math.isfinite(losses[-1]):
                    break
        given = {id(parameter) for group in stepper.optimizer.param_groups for parameter in group["params"]}
        return ShortRun(
            stepper=stepper,
            model=stepper.model,
            start=start,
            losses=tuple(losses),
            ungraded=tuple(name for name in trained if name in ungraded),
            left_out=tuple(name for name, parameter in trained.items() if id(parameter) not in given),
        )


def weights(model: torch.nn.Module) -> Weights:
    """Copies of all parameters and buffers by name, but for those that have no shape before the first batch."""
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: t.detach().clone() for name, t in named if not torch.nn.parameter.is_lazy(t)}


def alike(one: Weights, other: Weights) -> bool:
    """Whether two sets of weights are the same to the bit; a NaN is like a NaN."""
    if one.keys() != other.keys():
        return False
    return all(t.shape == other[n].shape and torch.equal(_bytes(t), _bytes(other[n])) for n, t in one.items())


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _has_gradient(loss: Any) -> bool:
    total = loss[0] if is_total(loss) else loss
    return isinstance(total, torch.Tensor) and total.requires_grad


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = function()  # ends with a number read from the device, so nothing is left to wait for
    return time.perf_counter() - started, result


class _Within:
    """A source that ends an evaluation when its time is over. Counts the examples `given` by the last one."""

    def __init__(self, source: Source, seconds: float) -> None:
        self._source, self._seconds = source, seconds
        self.given, self.cut_off = 0, False

    def __len__(self) -> int:
        return len(self._source)

    def epoch(self, batch_size: int, generator: torch.Generator, skip_examples: int = 0) -> Iterator[Any]:
        return self._source.epoch(batch_size, generator, skip_examples)

    def fixed(self, examples: int, batch_size: int) -> Iterator[Any]:
        self.given, self.cut_off = 0, False
        until = time.perf_counter() + self._seconds
        for batch in self._source.fixed(examples, batch_size):
            if self.given and time.perf_counter() > until:
                self.cut_off = True
                return
            self.given += examples_in(batch) or 1
            yield batch
