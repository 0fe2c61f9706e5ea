"""The inner loop: optimizer steps, as fast as a loop written by hand.

Python objects are touched once a block of steps, not once a step: no `.item()`, no records, no callbacks in the loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from rightbatch.batches import Source
from rightbatch.errors import WorkloadError
from rightbatch.records import Trial
from rightbatch.workload import Workload

BLOCK_STEPS = 256
"""Losses are summed once a block, so that a long stretch between evaluations does not pile up small tensors."""


class Stepper:
    """A model, its optimizer and its position in the data, advanced by whole numbers of steps."""

    def __init__(self, workload: Workload, trial: Trial, source: Source | None = None) -> None:
        self.workload, self.trial = workload, trial
        self.source = source or workload.source("data")
        if trial.batch_size > len(self.source):
            raise WorkloadError(
                f"batch_size={trial.batch_size} is larger than the data: {len(self.source)} training examples. "
                f"Use at most {len(self.source)}."
            )
        device = torch.device(workload.device)
        self.model = workload.model().to(device)
        self.optimizer = workload.optimizer(self.model.parameters(), trial)
        self.schedule = workload.schedule(self.optimizer, trial) if workload.schedule else None
        self.step = 0
        self._steps_per_epoch = len(self.source) // trial.batch_size
        # The mean of the losses as weights of the backward pass: one operation less than `losses.mean().backward()`.
        self._weights = torch.full((trial.batch_size,), 1.0 / trial.batch_size, device=device)
        self._order = torch.Generator().manual_seed(trial.seed)
        self._order_at_epoch_start = self._order.get_state()
        self._epochs_begun = 0
        self._batches = self._stream(done=0)

    def run(self, steps: int) -> float:
        """Make that many optimizer steps; the mean training loss over them.

        Raises `WorkloadError` when the losses do not have shape `[batch_size]`.
        """
        total = torch.zeros((), dtype=torch.float64)
        for start in range(0, steps, BLOCK_STEPS):
            losses = self._block(min(BLOCK_STEPS, steps - start))
            total += torch.stack(losses).mean(dim=1).cpu().double().sum()
        return float(total) / steps

    def _block(self, steps: int) -> list[torch.Tensor]:
        model, optimizer, schedule = self.model, self.optimizer, self.schedule
        loss, weights = self.workload.loss, self._weights
        dtype = weights.dtype
        kept: list[torch.Tensor] = []
        for batch in islice(self._batches, steps):
            optimizer.zero_grad()
            losses = loss(model, batch)
            try:
                if losses.dtype is not dtype:  # once, at the first step: weights are as precise as the losses
                    dtype = losses.dtype
                    weights = self._weights = torch.full_like(weights, 1.0 / len(weights), dtype=dtype)
                losses.backward(weights)  # type: ignore[no-untyped-call]
            except (RuntimeError, AttributeError, TypeError) as error:
                check_losses(losses, self.trial.batch_size, error)
                raise
            optimizer.step()
            if schedule is not None:
                schedule.step()
            kept.append(losses.detach())
        self.step += steps
        return kept

    def _stream(self, done: int) -> Iterator[Any]:
        """Batches without end, in a new order each epoch; `done` steps of the first epoch are left out."""
        while True:
            self._order_at_epoch_start = self._order.get_state()
            self._epochs_begun += 1
            order = torch.randperm(len(self.source), generator=self._order)
            yield from self.source.batches(order[done * self.trial.batch_size :], self.trial.batch_size)
            done = 0

    def state(self) -> dict[str, Any]:
        """All that a new process needs to go on to the bit, but for the random streams of the process."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule is not None else None,
            "step": self.step,
            "epochs_begun": self._epochs_begun,
            "order": self._order_at_epoch_start,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state that `state` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.step = state["step"]
        self._order.set_state(state["order"])
        # The stream begins the current epoch anew and skips what was done of it: all of it, at an epoch's end.
        self._epochs_begun = max(0, state["epochs_begun"] - 1)
        self._batches = self._stream(done=self.step - self._epochs_begun * self._steps_per_epoch)


def check_losses(losses: Any, batch_size: int, cause: Exception | None = None) -> None:
    """Raise `WorkloadError` if losses are not a tensor of shape `[batch_size]` with a gradient."""
    if not isinstance(losses, torch.Tensor):
        problem = f"returned a {type(losses).__name__}"
    elif losses.shape != (batch_size,):
        problem = f"returned shape {tuple(losses.shape)} for a batch of {batch_size}"
    elif not losses.requires_grad:
        problem = "returned losses without a gradient (was it computed under no_grad, or detached?)"
    else:
        return
    raise WorkloadError(
        f"loss(model, batch) {problem}. It must return the loss of each example, shape [batch_size]: "
        f"with torch's loss functions, reduction='none'."
    ) from cause


def is_memory_error(error: BaseException) -> bool:
    """Whether an allocator said no. The CPU one has no exception type of its own; its message is the only sign."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
