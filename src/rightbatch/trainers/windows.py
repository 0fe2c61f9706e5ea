"""Steps of a trainer that counts micro-batches from the beginning of a pass, and steps after every k-th of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from rightbatch.controllers.contract import Controller
from rightbatch.steering import Steered


class Windows(Steered):
    """How many micro-batches the next step of a trainer has: a multiple of what the first one has, its unit.

    `micro_batches`: So many. The k-th of a pass ends a step where that number divides k: it changes where this goes on
    to be so.
    """

    def __init__(
        self,
        controller: Controller,
        optimizer: torch.optim.Optimizer,
        unit: int,
        examples: int,
        *,
        state: Mapping[str, Any] | None = None,
        **how: Any,
    ) -> None:
        """`unit`: Micro-batches of the first step. `examples`: Of one of them, of all processes together."""
        self._unit, self._examples, self.micro_batches = unit, examples, unit
        super().__init__(controller, optimizer, unit * examples, paced=False, state=state, **how)
        if state is None:
            self.align(0)

    def made(self, micro_batches: int, done: int) -> int:
        """A step was made of so many, as the last of the first `done` of a pass.

        Returns how many steps of the first size it was worth beside one, for schedules and for what counts steps.
        """
        self._stepped(micro_batches * self._examples)
        self.align(done)
        return math.ceil(micro_batches / self._unit) - 1

    def align(self, done: int) -> None:
        """Take the number that the controller chose, or the nearest one that divides the `done` ones of this pass."""
        wanted = max(1, round(self.chosen / (self._unit * self._examples)))
        units = nearest_divisor(wanted, self.micro_batches // self._unit, done // self._unit)
        self.micro_batches = units * self._unit

    def state_dict(self) -> dict[str, Any]:
        """As of `Steered`, with the number that is in force."""
        return super().state_dict() | {"micro_batches": self.micro_batches}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        self.micro_batches = state["micro_batches"]


def nearest_divisor(wanted: int, now: int, done: int) -> int:
    """Of the divisors of `done` that are at most `wanted`, and `now`, the nearest to `wanted` in their ratio."""
    if done == 0:
        return wanted
    divisors = {now, *(n for n in range(1, wanted + 1) if done % n == 0)}
    return min(divisors, key=lambda n: abs(math.log(n / wanted)))
