"""What EMSO solves on a batch: its loss, and gamma / 2 |w - w_0|^2 about the weights that it found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass
class Subproblem:
    """One batch's. `groups` are those of the optimizer; `closure` leaves the gradients of the batch's mean loss."""

    groups: Sequence[dict[str, Any]]
    closure: Callable[[], Any]
    evaluations: int = field(default=0, init=False)
    """Gradients of the batch that were computed so far."""

    def __post_init__(self) -> None:
        self.start = [parameter.detach().clone() for parameter in self.parameters]
        self.gammas = [float(group["gamma"]) for group in self.groups for _ in group["params"]]
        """The weight of the proximal term of each parameter."""

    @cached_property
    def parameters(self) -> list[Tensor]:
        """All that the optimizer has, in the order of its groups."""
        return [parameter for group in self.groups for parameter in group["params"]]

    @property
    def steps(self) -> int:
        """At most so many steps are to be made towards the solution."""
        return int(self.groups[0]["inner_steps"])

    @property
    def tolerance(self) -> float:
        """The solution is good enough when no entry of the gradient is larger."""
        return float(self.groups[0]["tolerance"])

    def differentiate(self) -> Tensor:
        """Leave the gradients of the subproblem in the parameters; the loss of the batch alone."""
        self.evaluations += 1
        with torch.enable_grad():
            loss = torch.as_tensor(self.closure())
        with torch.no_grad():
            for parameter, start, gamma in zip(self.parameters, self.start, self.gammas, strict=True):
                if gamma and parameter.grad is not None:
                    parameter.grad.add_(parameter - start, alpha=gamma)
        return loss.detach()

    @torch.no_grad()
    def pull(self) -> float:
        """The proximal term: 0 where the solution is sought from, and what does not learn adds nothing."""
        terms = zip(self.parameters, self.start, self.gammas, strict=True)
        return sum(0.5 * gamma * float((p - start).square().sum()) for p, start, gamma in terms if p.grad is not None)

    def solved(self) -> bool:
        """Whether the gradients that are there are small enough."""
        if self.tolerance == 0:  # nobody asks, so that nothing is read from the device
            return False
        return all(float(p.grad.abs().max()) <= self.tolerance for p in self.parameters if p.grad is not None)
