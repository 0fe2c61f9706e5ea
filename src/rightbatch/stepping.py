"""The inner loop: optimizer steps, as fast as a loop written by hand.

Python objects are touched once a block of steps, not once a step: no `.item()`, no records, no callbacks in the loop.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
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


class RandomStreams:
    """The random generators of one run (Python, NumPy, torch on CPU and GPU), swapped in while the run advances.

    So several runs take turns in one process, and what else the process draws changes none of them.
    """

    def __init__(self, seed: int) -> None:
        with self._outside_kept():
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002 - the person's code may use NumPy's global generator
            torch.manual_seed(seed)
            self._mine = _get_random_states()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The block's draws come from these streams."""
        with self._outside_kept():
            _set_random_states(self._mine)
            try:
                yield
            finally:
                self._mine = _get_random_states()

    @contextlib.contextmanager
    def _outside_kept(self) -> Iterator[None]:
        outside = _get_random_states()
        try:
            yield
        finally:
            _set_random_states(outside)

    def state(self) -> dict[str, Any]:
        """The streams as plain values and tensors."""
        return self._mine

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state that `state` gave."""
        self._mine = state


def _get_random_states() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    }


def _set_random_states(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    # A state may have been saved on another machine: without its device, there is nothing to set.
    if states["cuda"] and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
    if states["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])
