"""Squared norms of what each of several backward passes adds to the gradient: micro-batches as parts of a batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


class Passes:
    """Listens to the gradients of the backward passes of one optimizer step.

    Works for every layer: it looks at `.grad` alone, at the moment when a pass has added to it, before anything clips,
    unscales or averages it. From the second pass on it keeps one copy of the gradient.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._handles = [
            p.register_post_accumulate_grad_hook(self._arrived)  # type: ignore[no-untyped-call]
            for p in self._parameters
        ]
        self._before: dict[nn.Parameter, torch.Tensor] | None = None
        self._squared: dict[nn.Parameter, torch.Tensor] = {}
        self._added: dict[nn.Parameter, torch.Tensor] = {}
        self._parts: list[dict[nn.Parameter, torch.Tensor]] = []

    def begin(self) -> None:
        """A forward pass begins: what was added since the last one is one part."""
        if self._added:
            self._parts.append(self._added)
            self._added = {}
            self._before = {p: p.grad.detach().clone() for p in self._parameters if p.grad is not None}

    def _arrived(self, parameter: nn.Parameter) -> None:
        gradient = parameter.grad
        assert gradient is not None, "a hook that is called when a gradient has been accumulated"
        squared = _squared(gradient)
        before = self._before.get(parameter) if self._before is not None else None
        self._squared[parameter] = squared
        self._added[parameter] = squared if before is None else _squared(gradient - before)

    @property
    def passes(self) -> int:
        """How many backward passes there were."""
        return len(self._parts) + bool(self._added)

    def batch_squared(self, parameters: Iterable[nn.Parameter]) -> torch.Tensor:
        """|g|^2 of the gradient that all passes left together, over these parameters."""
        return _sum(self._squared[p] for p in parameters if p in self._squared)

    def parts_squared(self, parameters: Iterable[nn.Parameter]) -> torch.Tensor:
        """The sum over passes of the squared norm of what each of them added, over these parameters."""
        wanted = set(parameters)
        parts = [*self._parts, self._added]
        return _sum(squared for part in parts for p, squared in part.items() if p in wanted)

    def close(self) -> None:
        """Take the hooks away. Allowed more than once."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._before = None


def _squared(gradient: torch.Tensor) -> torch.Tensor:
    values = gradient.detach()
    if values.is_sparse:
        values = values.coalesce().values()
    flat = values.reshape(-1)
    flat = flat.float() if flat.dtype.itemsize < 4 else flat
    return torch.dot(flat, flat)  # one pass over the numbers and nothing in between


def _sum(values: Iterable[torch.Tensor]) -> torch.Tensor:
    found = [value.double() for value in values]
    return torch.stack(found).sum() if found else torch.zeros((), dtype=torch.float64)
