"""Batches whose size changes while training, in any PyTorch loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import Sampler

from rightbatch.controllers.contract import Controller
from rightbatch.errors import InputError
from rightbatch.gradients.monitor import NoiseScale
from rightbatch.steering import Steered, processes

END = 0
"""Stands among the sizes of waiting batches where a pass ends."""


class AdaptiveBatchSampler(Steered, Sampler[list[int]]):
    """Draws batches for a `DataLoader`, of the size that a controller chooses after every step of the optimizer.

        batches = AdaptiveBatchSampler(Planned("1024@50000"), optimizer, len(data), batch_size=256)
        loader = DataLoader(data, batch_sampler=batches)
        ...                                      # train as ever, one optimizer step a batch

    Every pass is a new order of all examples. What is left of it when the size changes is cut into batches of the new
    size; examples that do not fill a batch are left out (`drop_last=False`: they are a smaller one). A pass that was
    broken off is gone on with. Batches that worker processes of the loader have read ahead keep the size they were
    drawn with.

    Where `torch.distributed` is begun, sizes are those of the batches of all processes together, rounded to a multiple
    of their number: each draws its own equal share of every batch, from one order.

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
    seed: Of the orders, the same in all processes.

    Raises
    ------
    InputError: When the first batch is larger than the data or has no example for each process, or the controller needs
        what is not given.
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
        self._processes = processes()
        self._process = dist.get_rank() if self._processes > 1 else 0
        if not self._processes <= batch_size <= examples:
            raise InputError(
                f"A batch has from {self._processes} to {examples:,} examples, which is all there are"
                f"{', at least one for each process' if self._processes > 1 else ''}; got {batch_size}."
            )
        self._all, self._drop_last, self._seed = examples, drop_last, seed
        self.epoch = 0
        self._read = 0  # of this pass, by steps that were made
        self._waiting: deque[int] = deque()  # sizes of batches that were drawn, and not trained on yet
        super().__init__(
            controller,
            optimizer,
            batch_size,
            schedule=schedule,
            monitor=monitor,
            alpha_seconds=alpha_seconds,
            beta_seconds=beta_seconds,
            largest=examples,
        )
        self._handle = optimizer.register_step_post_hook(self._after_step)

    @property
    def batch_size(self) -> int:
        """Of the next batch that is drawn, of all processes together."""
        share = max(1, round(self.chosen / self._processes))
        return min(share, self._all // self._processes) * self._processes

    def __iter__(self) -> Iterator[list[int]]:
        """The batches that are left of this pass, or of the next one where none is left."""
        if not len(self):
            self._end_pass()
        order = torch.randperm(self._all, generator=torch.Generator().manual_seed(self._seed + self.epoch)).tolist()
        at = self._read
        self._waiting.clear()
        while at < self._all:
            size = min(self.batch_size, self._all - at)
            share = size // self._processes
            if not share or (size < self.batch_size and self._drop_last):
                break
            mine = at + self._process * share
            at += share * self._processes
            self._waiting.append(share * self._processes)
            yield order[mine : mine + share]
        if self._waiting:  # drawn ahead: the pass ends when they have been trained on
            self._waiting.append(END)
        else:
            self._end_pass()

    def _end_pass(self) -> None:
        self._read, self.epoch = 0, self.epoch + 1

    def __len__(self) -> int:
        """How many batches are left of this pass, if the size stays as it is."""
        whole, rest = divmod(self._all - self._read, self.batch_size)
        return whole + (not self._drop_last and rest >= self._processes)

    def _after_step(self, *_: object) -> None:
        size = self._waiting.popleft() if self._waiting else self.batch_size
        self._read += size
        if self._waiting and self._waiting[0] == END:
            self._waiting.popleft()
            self._end_pass()
        self._stepped(size)

    def state_dict(self) -> dict[str, Any]:
        """Where the training is, after a step: to be saved beside model, optimizer, schedule and monitor."""
        return super().state_dict() | {"epoch": self.epoch, "read": self._read}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there. Rates are those of the optimizer's and the schedule's own states."""
        super().load_state_dict(state)
        self.epoch, self._read = state["epoch"], state["read"]
        self._waiting.clear()

    def close(self) -> None:
        """Count no further steps."""
        self._handle.remove()
