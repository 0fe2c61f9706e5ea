"""Batches whose size changes while training, in any PyTorch loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler

from rightbatch.controllers.contract import Controller, Seen
from rightbatch.errors import InputError
from rightbatch.gradients.monitor import NoiseScale
from rightbatch.schedules import Pace, multiply_rates

END = 0
"""Stands among the sizes of waiting batches where a pass ends."""


class AdaptiveBatchSampler(Sampler[list[int]]):
    """Draws batches for a `DataLoader`, of the size that a controller chooses after every step of the optimizer.

        batches = AdaptiveBatchSampler(Planned("1024@50000"), optimizer, len(data), batch_size=256)
        loader = DataLoader(data, batch_sampler=batches)
        ...                                      # train as ever, one optimizer step a batch

    Every pass is a new order of all examples. What is left of it when the size changes is cut into batches of the new
    size; examples that do not fill a batch are left out (`drop_last=False`: they are a smaller one). A pass that was
    broken off is gone on with. Batches that worker processes of the loader have read ahead keep the size they were
    drawn with.

    Parameters
    ----------
    controller: One of `rightbatch.controllers`.
    optimizer: Its steps are counted, and its rates multiplied as the controller says.
    examples: How many there are to draw from.
    batch_size: Of the first step.
    schedule: A scheduler of the rate, made for steps of `batch_size`. It is stepped here, so that it has always seen
        the examples it would have seen with that size: do not step it in the loop.
    monitor: Gradients are taken from it, for controllers that look at them.
    alpha_seconds, beta_seconds: A step of B examples takes alpha + beta B, as `rightbatch profile` says; for goodput.
    seed: Of the orders.

    Raises
    ------
    InputError: When the first batch is larger than the data, or the controller needs what is not given.
    """

    def __init__(
        self,
        controller: Controller,
        optimizer: torch.optim.Optimizer,
        examples: int,
        *,
        batch_size: int,
        schedule: Any = None,
        monitor: NoiseScale | None = None,
        alpha_seconds: float | None = None,
        beta_seconds: float | None = None,
        drop_last: bool = True,
        seed: int = 0,
    ) -> None:
        if not 1 <= batch_size <= examples:
            raise InputError(f"A batch has from 1 to {examples:,} examples, which is all there are; got {batch_size}.")
        given = {"gradients": monitor is not None, "seconds": None not in (alpha_seconds, beta_seconds), "loss": True}
        if missing := [need for need in controller.needs if not given[need]]:
            how = {"gradients": "monitor=NoiseScale(model, optimizer)", "seconds": "alpha_seconds= and beta_seconds="}
            raise InputError(
                f"{type(controller).__name__} looks at {missing[0]}, which is not given: add {how[missing[0]]}."
            )
        self._controller, self._optimizer, self._all, self._schedule = controller, optimizer, examples, schedule
        self._monitor, self._law, self._drop_last, self._seed = monitor, (alpha_seconds, beta_seconds), drop_last, seed
        self._first, self.batch_size, self.rate_factor = batch_size, batch_size, 1.0
        self.examples = self.steps = self.epoch = 0
        self._read = 0  # of this pass, by steps that were made
        self._waiting: deque[int] = deque()  # sizes of batches that were drawn, and not trained on yet
        self._sampled = 0
        self._pace = Pace(schedule, batch_size)
        self._losses: list[float] = []
        self._state = controller.begin()
        self._handle = optimizer.register_step_post_hook(self._after_step)
        self._choose()

    def __iter__(self) -> Iterator[list[int]]:
        """The batches that are left of this pass, or of the next one where none is left."""
        if not len(self):
            self._end_pass()
        order = torch.randperm(self._all, generator=torch.Generator().manual_seed(self._seed + self.epoch)).tolist()
        at = self._read
        self._waiting.clear()
        while at < self._all:
            batch = order[at : at + self.batch_size]
            if len(batch) < self.batch_size and (self._drop_last or not batch):
                break
            at += len(batch)
            self._waiting.append(len(batch))
            yield batch
        if self._waiting:  # drawn ahead: the pass ends when they have been trained on
            self._waiting.append(END)
        else:
            self._end_pass()

    def _end_pass(self) -> None:
        self._read, self.epoch = 0, self.epoch + 1

    def __len__(self) -> int:
        """How many batches are left of this pass, if the size stays as it is."""
        left = self._all - self._read
        return left // self.batch_size if self._drop_last else -(-left // self.batch_size)

    def saw(self, loss: float | torch.Tensor) -> None:
        """Tell the training loss of the step that comes, for controllers that look at it."""
        self._losses.append(loss.item() if isinstance(loss, torch.Tensor) else loss)

    def _after_step(self, *_: object) -> None:
        size = self._waiting.popleft() if self._waiting else self.batch_size
        self.steps, self.examples, self._read = self.steps + 1, self.examples + size, self._read + size
        if self._waiting and self._waiting[0] == END:
            self._waiting.popleft()
            self._end_pass()
        if self._schedule is not None:
            self._pace.after(size)
        self._choose()

    def _choose(self) -> None:
        samples = () if self._monitor is None else tuple(self._monitor.samples[self._sampled :])
        self._sampled += len(samples)
        seen = Seen(
            self.examples,
            self.steps,
            self.batch_size,
            self._first,
            float(self._optimizer.param_groups[0]["lr"]),
            sum(self._losses) / len(self._losses) if self._losses else None,
            samples,
            *self._law,
        )
        self._losses.clear()
        choice, self._state = self._controller.choose(self._state, seen)
        self.batch_size = min(choice.batch_size, self._all)
        if choice.rate_factor != self.rate_factor:
            multiply_rates(self._optimizer, self._schedule, choice.rate_factor / self.rate_factor)
            self.rate_factor = choice.rate_factor

    def state_dict(self) -> dict[str, Any]:
        """Where the training is, after a step: to be saved beside model, optimizer, schedule and monitor."""
        names = ("examples", "steps", "epoch", "batch_size", "rate_factor")
        return {name: getattr(self, name) for name in names} | {
            "read": self._read,
            "unscheduled_examples": self._pace.owed_examples,
            "sampled": self._sampled,
            "controller": dict(self._state),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there. Rates are those of the optimizer's and the schedule's own states."""
        for name in ("examples", "steps", "epoch", "batch_size", "rate_factor"):
            setattr(self, name, state[name])
        self._read, self._sampled = state["read"], state["sampled"]
        self._pace.owed_examples = state["unscheduled_examples"]
        self._state = state["controller"]
        self._waiting.clear()

    def close(self) -> None:
        """Count no further steps."""
        self._handle.remove()
