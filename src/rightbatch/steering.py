"""A controller at work: what it is told after every step, and what is done with what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from rightbatch.controllers.contract import Controller, Seen
from rightbatch.errors import InputError
from rightbatch.gradients.monitor import NoiseScale
from rightbatch.records import GradientSample
from rightbatch.schedules import Pace, multiply_rates

KEPT = ("examples", "steps", "rate_factor")

T = TypeVar("T")


def processes() -> int:
    """How many train together, each on its share of every batch: those of `torch.distributed` where it is begun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def of_first_process(value: T) -> T:
    """What the first of the processes has: all of them go by it."""
    told = [value]
    dist.broadcast_object_list(told, src=0)
    return told[0]


def monitor_for(
    controller: Controller,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    overhead: float,
    scaler: Any = None,
) -> NoiseScale | None:
    """A monitor where the controller looks at gradients. Raises `InputError` in several processes."""
    if "gradients" not in controller.needs:
        return None
    if processes() > 1:
        raise InputError(
            f"{type(controller).__name__} looks at gradients, which are not watched here in several processes. Take a "
            f"controller that does not, or rightbatch.AdaptiveBatchSampler in a loop of your own."
        )
    inner_products = "inner products" in controller.needs
    return NoiseScale(model, optimizer, overhead=overhead, scaler=scaler, inner_products=inner_products)


def samples_after(monitor: NoiseScale | None, step: int) -> tuple[tuple[GradientSample, ...], int]:
    """What a monitor sampled after a step, and which step it sampled last; nothing where there is no monitor."""
    samples = () if monitor is None else tuple(monitor.samples_after(step))
    return samples, max([step, *(sample.step for sample in samples)])


class Steered:
    """Counts steps and examples, asks the controller after each step, and keeps rates and schedules in step.

    In several processes losses are averaged, and the choice is that of the first. `examples`, `steps`: Of all of them.
    `chosen`: The size that the controller chose last. `rate_factor`: What rates are multiplied by.
    """

    def __init__(
        self,
        controller: Controller,
        optimizer: torch.optim.Optimizer,
        batch_size: int,
        *,
        schedule: Any = None,
        monitor: NoiseScale | None = None,
        alpha_seconds: float | None = None,
        beta_seconds: float | None = None,
        largest: int = 2**53,
        paced: bool = True,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """`paced`: The schedule is stepped here. `state`: To go on from, where the optimizer has its own already."""
        given = {
            "gradients": monitor is not None,
            "inner products": monitor is not None and monitor.inner_products,
            "seconds": None not in (alpha_seconds, beta_seconds),
            "loss": True,
        }
        if missing := sorted(need for need in controller.needs if not given[need]):
            how = {
                "gradients": "monitor=NoiseScale(model, optimizer)",
                "inner products": "monitor=NoiseScale(model, optimizer, inner_products=True)",
                "seconds": "alpha_seconds= and beta_seconds=",
            }
            raise InputError(f"{type(controller).__name__} looks at {missing[-1]}, not given: add {how[missing[-1]]}.")
        self._controller, self._optimizer, self._schedule, self._monitor = controller, optimizer, schedule, monitor
        self._first, self._largest, self._law = batch_size, largest, (alpha_seconds, beta_seconds)
        self.chosen, self.rate_factor, self.examples, self.steps = batch_size, 1.0, 0, 0
        self._paced = paced and schedule is not None
        self._sampled = -1  # the last step that was sampled, of those that the controller was told
        self._pace = Pace(schedule, batch_size)
        self._losses: list[float] = []
        self._state = controller.begin()
        if state is None:
            self._choose()
        else:
            self.load_state_dict(state)

    def saw(self, loss: float | torch.Tensor) -> None:
        """Tell the training loss of the step that comes, for controllers that look at it."""
        if "loss" in self._controller.needs:
            self._losses.append(loss.item() if isinstance(loss, torch.Tensor) else loss)

    def _stepped(self, examples: int) -> None:
        """A step of the optimizer was made, on so many examples of all processes."""
        self.steps, self.examples = self.steps + 1, self.examples + examples
        if self._paced:
            self._pace.after(examples)
        self._choose()

    def _choose(self) -> None:
        samples, self._sampled = samples_after(self._monitor, self._sampled)
        seen = Seen(
            self.examples,
            self.steps,
            self.chosen,
            self._first,
            float(self._optimizer.param_groups[0]["lr"]),
            self._mean_loss(),
            samples,
            *self._law,
        )
        choice, state = self._controller.choose(self._state, seen)
        if self._controller.needs and processes() > 1:
            choice, state = of_first_process((choice, state))
        self.chosen, self._state = min(choice.batch_size, self._largest), state
        if choice.rate_factor != self.rate_factor:
            multiply_rates(self._optimizer, self._schedule, choice.rate_factor / self.rate_factor)
            self.rate_factor = choice.rate_factor

    def _mean_loss(self) -> float | None:
        """Of what was told since it was last asked for, by all processes."""
        losses, self._losses = self._losses, []
        if "loss" in self._controller.needs and processes() > 1:
            of_all: list[list[float]] = [[] for _ in range(processes())]
            dist.all_gather_object(of_all, losses)
            losses = [loss for of_one in of_all for loss in of_one]
        return sum(losses) / len(losses) if losses else None

    def state_dict(self) -> dict[str, Any]:
        """Where the training is, after a step: to be saved beside model, optimizer, schedule and monitor."""
        return {name: getattr(self, name) for name in KEPT} | {
            "batch_size": self.chosen,
            "unscheduled_examples": self._pace.owed_examples,
            "sampled": self._sampled,
            "controller": dict(self._state),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there. Rates are those of the optimizer's and the schedule's own states."""
        for name in KEPT:
            setattr(self, name, state[name])
        self.chosen, self._sampled = state["batch_size"], state["sampled"]
        self._pace.owed_examples = state["unscheduled_examples"]
        self._state = state["controller"]
