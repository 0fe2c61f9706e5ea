"""One training, and short branches off it: same weights, optimizer state and data, other batch sizes and rates."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import torch

from rightbatch.batches import LoaderSource, Source
from rightbatch.evaluation import Evaluator
from rightbatch.raised import explained
from rightbatch.records import Trial
from rightbatch.stepping import Stepper
from rightbatch.streams import RandomStreams
from rightbatch.workload import Workload

DIVERGED = 10
"""A branch whose loss is so many times that at its start is beyond saving."""


class Trunk:
    """One training that stands still while branches are trained from it. See `rightbatch.runner.Trunk`.

    The trunk follows the workload's schedule. A branch has none: it keeps the rate in force where it begins, times its
    factor, because a schedule is written for a whole run at one batch size.
    """

    def __init__(self, workload: Workload, trial: Trial, data: Source, valid: Evaluator, widest: int) -> None:
        self._unscheduled = replace(workload, schedule=None)
        self._trial, self._data, self._valid = workload.complete(trial), data, valid
        # What a loader gives for a seed and a batch size is its own business: its passes cannot be cut alike.
        self._alike: Source = data if isinstance(data, LoaderSource) else _CutPasses(data, widest * trial.batch_size)
        self._random = RandomStreams(trial.seed)
        with self._random.active(), explained("while the trunk was made"):
            self.stepper = Stepper(workload, self._trial, data)
        self._loss = math.nan

    def advance(self, step: int) -> float:
        """Train to a step; the loss on the validation set there."""
        with explained(f"in the trunk, after step {self.stepper.step}"):
            if step > self.stepper.step:
                with self._random.active():
                    self.stepper.run(step - self.stepper.step)
            self._loss = self._judge(self.stepper)
        return self._loss

    @property
    def learning_rate(self) -> float:
        """The rate in force now."""
        return float(self.stepper.optimizer.param_groups[0]["lr"])

    @property
    def cautions(self) -> tuple[str, ...]:
        """What makes its branches less comparable than they should be."""
        found = []
        if isinstance(self._data, LoaderSource):
            found.append("the data comes from a loader: branches of one seed need not see the same examples")
        # The class that the three of torch have in common; SyncBatchNorm too.
        if any(isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in self.stepper.model.modules()):
            found.append("BatchNorm sees the whole batch: a branch with a larger one trains another model in part")
        return tuple(found)

    def branch(self, factor: int, rate_factor: float, seed: int | None, examples: int) -> float:
        """The loss on the validation set after a branch of so many examples; infinite where it diverged.

        `seed` draws the order of the data and what else is random. None: the trunk's own, as if it went on itself.
        """
        trial = replace(
            self._trial,
            batch_size=factor * self._trial.batch_size,
            learning_rate=rate_factor * self._trial.learning_rate,
            seed=self._trial.seed if seed is None else seed,
        )
        random = RandomStreams(trial.seed)
        where = f"in a branch of batch_size={trial.batch_size}, seed={trial.seed}, after step {self.stepper.step}"
        with explained(where):
            with random.active():
                stepper = Stepper(self._unscheduled, trial, self._data if seed is None else self._alike)
            state = self.stepper.state() | {"batch_size": trial.batch_size}
            if seed is None:
                random.load(self._random.state())
            else:
                state |= {"order": torch.Generator().manual_seed(seed).get_state(), "read_in_epoch": 0}
            # A copy: an optimizer takes over the tensors of a state as they are, and would change the trunk's.
            stepper.load(copy.deepcopy(state))
            for group in stepper.optimizer.param_groups:
                group["lr"] = rate_factor * group["lr"]
            with random.active():
                stepper.run(examples // trial.batch_size)
            loss = self._judge(stepper)
        diverged = not math.isfinite(loss) or (self._loss > 0 and loss > DIVERGED * self._loss)
        return math.inf if diverged else loss

    def _judge(self, stepper: Stepper) -> float:
        with RandomStreams(0).active():  # as in a run: an evaluation that draws is repeatable and disturbs nothing
            return self._valid(stepper.judged)[0]


class _CutPasses:
    """A source whose passes end at a multiple of the widest batch, so that batches of all sizes leave out the same."""

    def __init__(self, source: Source, unit: int) -> None:
        self._source, self._unit = source, unit

    def __len__(self) -> int:
        return len(self._source)

    def epoch(self, batch_size: int, generator: torch.Generator, skip_examples: int = 0) -> Iterator[Any]:
        whole = (len(self) // self._unit * self._unit - skip_examples) // batch_size
        return islice(self._source.epoch(batch_size, generator, skip_examples), whole)

    def fixed(self, examples: int, batch_size: int) -> Iterator[Any]:
        return self._source.fixed(examples, batch_size)
