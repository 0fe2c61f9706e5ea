"""The inner loop: optimizer steps, as fast as a loop written by hand.

Python objects are touched once a block of steps, not once a step: no `.item()`, no records, no callbacks in the loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from rightbatch.accumulation import accumulate
from rightbatch.batches import LoaderSource, Source
from rightbatch.errors import WorkloadError
from rightbatch.losses import check_loss, mean_loss
from rightbatch.parts import split
from rightbatch.records import Trial
from rightbatch.schedules import Pace, multiply_rates
from rightbatch.update import Update, under_autocast
from rightbatch.workload import Workload

BLOCK_STEPS = 256
"""Losses are summed once a block, so that a long stretch between evaluations does not pile up small tensors."""


class Stepper:
    """A model, its optimizer and its position in the data, advanced by whole numbers of steps.

    Batches of more than `micro_batch_size` examples are accumulated from parts of at most so many. `examples` are those
    of all steps so far, `batch_size` is that of the next one: the trial's, until `resize` is called.
    """

    def __init__(
        self, workload: Workload, trial: Trial, source: Source | None = None, micro_batch_size: int | None = None
    ) -> None:
        self.workload, self.trial = workload, trial
        self.source, self._micro_batch_size = source or workload.source("data"), micro_batch_size
        self._device = torch.device(workload.device)
        self.step = self.examples = 0
        self._begin_size(trial.batch_size)
        self.model = workload.model().to(self._device)
        self.optimizer = workload.optimizer(self.model.parameters(), trial)
        self.schedule = workload.schedule(self.optimizer, trial) if workload.schedule else None
        self.update = Update(workload, trial, self.model, self.optimizer)
        if self.schedule is not None and self.update.scale is not None:
            # A first step that overflows is left out on purpose; the schedule would warn that it comes before any step.
            self.optimizer._opt_called = True  # type: ignore[attr-defined]
        self._pace = Pace(self.schedule, trial.batch_size)
        self.rate_factor = 1.0
        self._order = torch.Generator().manual_seed(trial.seed)
        self._order_at_epoch_start = self._order.get_state()
        self._read_in_epoch = 0
        self._batches = self._stream(skip_examples=0)

    def _begin_size(self, batch_size: int) -> None:
        """All that depends on the batch size but the data and the average."""
        if 0 < len(self.source) < batch_size:
            raise WorkloadError(
                f"batch_size={batch_size} is larger than the data: {len(self.source)} training examples. "
                f"Use at most {len(self.source)}."
            )
        self.batch_size = batch_size
        self.accumulation_steps = accumulation_steps(batch_size, self._micro_batch_size)
        # Loaders may count their batches otherwise (tokens, buckets); tensors and datasets always give full batches.
        self._of_batch = None if isinstance(self.source, LoaderSource) else batch_size
        # The mean of the losses as weights of the backward pass: one operation less than `losses.mean().backward()`.
        self._weights = torch.full((batch_size,), 1.0 / batch_size, device=self._device)

    def resize(self, batch_size: int, rate_factor: float = 1.0) -> None:
        """Go on with this batch size and this multiple of the trial's rate, in the same pass over the data.

        The rest of the pass is cut into batches of the new size; a loader of one's own begins a new pass. Nothing is
        changed where both are as they were. Raises `WorkloadError` for a batch larger than the data.
        """
        if rate_factor != self.rate_factor:
            multiply_rates(self.optimizer, self.schedule, rate_factor / self.rate_factor)
            self.rate_factor = rate_factor
        if batch_size == self.batch_size:
            return
        self._begin_size(batch_size)
        self.update.resize(batch_size)
        if isinstance(self.source, LoaderSource):
            self._batches = self._stream(skip_examples=0)
        else:
            self._order.set_state(self._order_at_epoch_start)
            self._batches = self._stream(skip_examples=self._read_in_epoch)

    @property
    def judged(self) -> torch.nn.Module:
        """The model that evaluation looks at: the averaged weights where the workload averages them."""
        return self.model if self.update.averaged is None else self.update.averaged

    def run(self, steps: int) -> float:
        """Make that many optimizer steps; the mean training loss over them.

        Raises `WorkloadError` when the losses are none of the kinds of `rightbatch.losses`.
        """
        total = torch.zeros((), dtype=torch.float64)
        for start in range(0, steps, BLOCK_STEPS):
            losses = self._block(min(BLOCK_STEPS, steps - start))
            total += torch.stack(losses).reshape(len(losses), -1).mean(dim=1).cpu().double().sum()
        return float(total) / steps

    def batches(self) -> Iterator[Any]:
        """The batches to come, without end, for whoever makes the steps by hand: see `finish_step`."""
        return self._batches

    def finish_step(self, batch: Any) -> None:
        """Update the weights by the gradients that are there: the end of a step that was made by hand.

        An optimizer that takes a closure makes its step on the batch instead.
        """
        if self.update.by_closure:
            self._solve(batch)
        else:
            self.update()
            if self.schedule is not None:
                self._pace.after(self.batch_size)
        self._count(1)

    def _count(self, steps: int) -> None:
        self.step += steps
        self.examples += steps * self.batch_size

    def _block(self, steps: int) -> list[torch.Tensor]:
        model, optimizer, schedule = self.model, self.optimizer, self.schedule
        loss, backward, update = under_autocast(self.workload.loss, self.workload), self._backward, self.update
        parts, kept = self.accumulation_steps, []
        if update.by_closure:
            kept = [self._solve(batch) for batch in islice(self._batches, steps)]
            self._count(steps)
            return kept
        for batch in islice(self._batches, steps):
            optimizer.zero_grad()
            kept.append(
                backward(loss(model, batch))
                if parts == 1
                else accumulate(loss, model, split(batch, parts), model.parameters(), update.scale)
            )
            update()
            if schedule is not None:
                self._pace.after(self.batch_size)
        self._count(steps)
        return kept

    def _solve(self, batch: Any) -> torch.Tensor:
        """A step of an optimizer that looks at its batch several times; the losses that it found."""
        loss, parts = under_autocast(self.workload.loss, self.workload), self.accumulation_steps

        def gradients() -> torch.Tensor:
            self.optimizer.zero_grad()
            if parts == 1:
                return self._backward(loss(self.model, batch))
            return accumulate(loss, self.model, split(batch, parts), self.model.parameters())

        losses = self.update.solve(gradients)
        if self.schedule is not None:
            self._pace.after(self.batch_size)
        return losses

    def _backward(self, loss: Any) -> torch.Tensor:
        """The gradients of the mean loss; the losses of the examples, or their mean, without a gradient."""
        weights, scale = self._weights, self.update.scale
        # Of a loader only means: the losses of its full and its smaller batches could not be stacked.
        known = self._of_batch is not None and scale is None
        if known and isinstance(loss, torch.Tensor) and loss.shape == weights.shape:
            if loss.dtype is not weights.dtype:  # once, at the first step: weights are as precise as the losses
                weights = self._weights = torch.full_like(weights, 1.0 / len(weights), dtype=loss.dtype)
            try:
                loss.backward(weights)  # type: ignore[no-untyped-call]
            except RuntimeError as error:
                check_loss(loss, self._of_batch, error)
                raise
            return loss.detach()
        mean = mean_loss(loss, self._of_batch)
        (mean if scale is None else scale(mean)).backward()  # type: ignore[no-untyped-call]
        return mean.detach()

    def _stream(self, skip_examples: int) -> Iterator[Any]:
        """Batches without end, in a new order each epoch; `skip_examples` of the first epoch are left out."""
        size = self.batch_size
        while True:
            self._order_at_epoch_start = self._order.get_state()
            self._read_in_epoch = skip_examples
            for batch in self.source.epoch(size, self._order, skip_examples):
                self._read_in_epoch += size
                yield batch
            skip_examples = 0

    def state(self) -> dict[str, Any]:
        """All that a new process needs to go on to the bit, but for the random streams of the process."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule is not None else None,
            "update": self.update.state(),
            "step": self.step,
            "examples": self.examples,
            "batch_size": self.batch_size,
            "rate_factor": self.rate_factor,
            "unscheduled_examples": self._pace.owed_examples,
            "order": self._order_at_epoch_start,
            "read_in_epoch": self._read_in_epoch,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state that `state` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.update.load(state["update"])
        self.step, self.examples = state["step"], state["examples"]
        self.rate_factor, self._pace.owed_examples = state["rate_factor"], state["unscheduled_examples"]
        if state["batch_size"] != self.batch_size:
            self._begin_size(state["batch_size"])
            self.update.resize(state["batch_size"])
        self._order.set_state(state["order"])
        self._order_at_epoch_start, self._read_in_epoch = state["order"], state["read_in_epoch"]
        # The stream begins the current epoch anew and skips what was done of it: all of it, at an epoch's end.
        self._batches = self._stream(skip_examples=state["read_in_epoch"])


def accumulation_steps(batch_size: int, micro_batch_size: int | None) -> int:
    """The fewest parts of a batch that have at most so many examples each."""
    return 1 if micro_batch_size is None else -(-batch_size // micro_batch_size)
