"""Batches whose size changes while training where a loader's does not: more or fewer of its micro-batches a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rightbatch.controllers.contract import Controller
from rightbatch.errors import InputError
from rightbatch.gradients.monitor import NoiseScale
from rightbatch.steering import Steered, processes


class AdaptiveAccumulation(Steered):
    """Says after how many micro-batches the optimizer is to be stepped: as many as a controller's batch has.

        batches = AdaptiveAccumulation(NormTest(), optimizer, micro_batch_size=32, batch_size=128, monitor=monitor)
        for images, labels in loader:            # batches of 32
            loss = cross_entropy(model(images), labels)
            batches.scaled(loss, len(images)).backward()
            if batches.due:
                optimizer.step()
                optimizer.zero_grad()

    The gradient of a step is that of the mean over all of its examples, also where a micro-batch is a smaller one (the
    last of a pass), or the step is made before it is due. A step that is not full at the end of a pass is gone on with
    in the next. While the controller holds the size, training is that of a fixed accumulation, to the bit.

    Where `torch.distributed` is begun, every process has micro-batches of its own, and sizes are those of all together;
    `due` is known before the backward pass, for `no_sync`.

    Parameters
    ----------
    controller, optimizer, batch_size, schedule, monitor, alpha_seconds, beta_seconds: As of `AdaptiveBatchSampler`.
    micro_batch_size: Of the loader, in each process.

    Raises
    ------
    InputError: For a size below 1, or when the controller needs what is not given.
    """

    def __init__(
        self,
        controller: Controller,
        optimizer: torch.optim.Optimizer,
        micro_batch_size: int,
        *,
        batch_size: int,
        schedule: Any = None,
        monitor: NoiseScale | None = None,
        alpha_seconds: float | None = None,
        beta_seconds: float | None = None,
    ) -> None:
        if min(micro_batch_size, batch_size) < 1:
            raise InputError(
                f"Batches and micro-batches have at least one example, got {batch_size} and {micro_batch_size}."
            )
        self._micro_batch_size, self._processes = micro_batch_size, processes()
        self._told: list[int] = []  # the examples of each micro-batch of the step that comes
        super().__init__(
            controller,
            optimizer,
            batch_size,
            schedule=schedule,
            monitor=monitor,
            alpha_seconds=alpha_seconds,
            beta_seconds=beta_seconds,
        )
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    @property
    def micro_batches(self) -> int:
        """How many of them, in each process, the next step has: at least one."""
        return max(1, round(self.chosen / (self._micro_batch_size * self._processes)))

    @property
    def batch_size(self) -> int:
        """Of the next step, of all processes together."""
        return self.micro_batches * self._micro_batch_size * self._processes

    @property
    def due(self) -> bool:
        """Whether the last micro-batch of the step is there."""
        return len(self._told) >= self.micro_batches

    def scaled(self, loss: torch.Tensor, examples: int | None = None) -> torch.Tensor:
        """The share of a micro-batch in the loss of the step, from its mean loss; to be called once for each.

        `examples`: How many it has; None: as many as all. After a step that was due and not made (a gradient scaler
        leaves out those that overflow) another one begins.
        """
        if self.due:
            self._told.clear()
        self.saw(loss)
        self._told.append(self._micro_batch_size if examples is None else examples)
        share = loss / self.micro_batches
        return share if self._told[-1] == self._micro_batch_size else share * (self._told[-1] / self._micro_batch_size)

    def _before_step(self, *_: object) -> None:
        if not self._told:
            raise InputError("The optimizer is stepped, and no loss went through `scaled` since it last was.")
        planned = self.micro_batches * self._micro_batch_size
        if sum(self._told) == planned:
            return
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(planned / sum(self._told))

    def _after_step(self, *_: object) -> None:
        examples = sum(self._told) * self._processes
        self._told.clear()
        self._stepped(examples)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there, with a new step. Rates are those of the optimizer's and the schedule's own states."""
        super().load_state_dict(state)
        self._told.clear()

    def close(self) -> None:
        """Count no further steps."""
        for handle in self._handles:
            handle.remove()
