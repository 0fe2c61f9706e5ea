"""What happens between the gradients and the next batch: unscaling, clipping, the step, the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from rightbatch.closures import needs_closure
from rightbatch.errors import WorkloadError
from rightbatch.records import Trial
from rightbatch.workload import Workload

Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]
PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Update:
    """One optimizer step with all that a workload asks for around it. Call it after the backward pass."""

    def __init__(
        self, workload: Workload, trial: Trial, model: torch.nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        self._model, self._optimizer = model, optimizer
        self._norm = workload.max_gradient_norm
        device = torch.device(workload.device).type
        # Gradients of half precision underflow; those of bfloat16 have the range of float32.
        self._scaler = torch.amp.GradScaler(device) if workload.autocast == "float16" else None
        self._average: AveragedModel | None = None
        self._averaging_examples = workload.averaging_examples
        if workload.averaging_examples is not None:
            self._average = AveragedModel(model, use_buffers=True)
            self.resize(trial.batch_size)
        self._plain = self._norm is None and self._scaler is None and self._average is None
        self.by_closure = needs_closure(optimizer)
        """Whether the optimizer computes gradients itself, several times a step: see `solve`."""
        if self.by_closure and self._scaler is not None:
            raise WorkloadError(
                f"{type(optimizer).__name__} computes the gradients of a batch several times in a step, and those of "
                f'float16 are scaled for one step. Use autocast="bfloat16", or none.'
            )

    def resize(self, batch_size: int) -> None:
        """Go on with another batch size: the weight of an iterate falls by e in so many examples at every size."""
        if self._average is not None and self._averaging_examples is not None:
            self._average.multi_avg_fn = exponential_average(math.exp(-batch_size / self._averaging_examples))

    @property
    def averaged(self) -> torch.nn.Module | None:
        """The model with averaged weights; None where they are not averaged."""
        return self._average.module if self._average is not None else None

    @property
    def scale(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Scales a loss before its backward pass; None where nothing is scaled."""
        return self._scaler.scale if self._scaler is not None else None

    @property
    def current_scale(self) -> float:
        """By how much the gradients of a scaled loss are too large now; 1 where nothing is scaled."""
        return float(self._scaler.get_scale()) if self._scaler is not None else 1.0

    def __call__(self) -> None:
        if self._plain:
            self._optimizer.step()
            return
        if self._norm is not None:
            if self._scaler is not None:
                self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._norm)
        if self._scaler is not None:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        else:
            self._optimizer.step()
        self._average_in()

    def solve(self, gradients: Callable[[], torch.Tensor]) -> torch.Tensor:
        """One step of an optimizer that takes a closure; what `gradients` gave when it was first called.

        `gradients` leaves the gradients of a batch in the parameters, and returns the losses or their mean.
        """
        first: list[torch.Tensor] = []

        def closure() -> torch.Tensor:
            losses = gradients()
            if self._norm is not None:
                torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._norm)
            if not first:
                first.append(losses)
            return losses.mean()

        self._optimizer.step(closure)  # type: ignore[arg-type]  # a tensor, as torch's own examples return
        self._average_in()
        return first[0]

    def _average_in(self) -> None:
        if self._average is not None:
            self._average.update_parameters(self._model)

    def state(self) -> dict[str, Any]:
        """The scale and the average, to go on with."""
        return {
            "scaler": self._scaler.state_dict() if self._scaler is not None else None,
            "average": self._average.state_dict() if self._average is not None else None,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state that `state` gave."""
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])


def exponential_average(decay: float) -> Callable[[Tensors, Tensors, Any], None]:
    """Moves averages towards current values by `1 - decay`; whole numbers (counters, tables) are copied.

    torch's own averages whole numbers too and rounds them towards zero, so that a table of positions decays.
    """

    @torch.no_grad()
    def average(averaged: Tensors, current: Tensors, _: Any) -> None:
        if averaged[0].is_floating_point() or averaged[0].is_complex():
            torch._foreach_lerp_(averaged, current, 1 - decay)
        else:
            torch._foreach_copy_(averaged, current)

    return average


def under_autocast(function: Callable[..., Any], workload: Workload) -> Callable[..., Any]:
    """A loss or a metric with autocast around it, where the workload asks for it; else itself."""
    if workload.autocast is None:
        return function
    device, precision = torch.device(workload.device).type, PRECISIONS[workload.autocast]

    def cast(*arguments: Any) -> Any:
        with torch.autocast(device, dtype=precision):
            return function(*arguments)

    return cast
