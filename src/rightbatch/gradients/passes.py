"""Squared norms of what each of several backward passes adds to the gradient: micro-batches as parts of a batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rightbatch.gradients.factors import squared, wide
from rightbatch.gradients.metrics import Metric


class Passes:
    """Listens to the gradients of the backward passes of one optimizer step.

    Works for every layer: it looks at `.grad` alone, at the moment when a pass has added to it, before anything clips,
    unscales or averages it. From the second pass on it keeps one copy of the gradient.

    Squared norms have the shape [1]; with a `metric`, P of each parameter, [2]: sum_k P_k g_k^2 is the second one.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], metric: Metric | None = None) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._handles = [
            p.register_post_accumulate_grad_hook(self._arrived)  # type: ignore[no-untyped-call]
            for p in self._parameters
        ]
        self.restart(metric)

    def restart(self, metric: Metric | None = None) -> None:
        """Another step begins."""
        self._metric = metric
        self._before: dict[nn.Parameter, Tensor] | None = None
        self._squared: dict[nn.Parameter, Tensor] = {}
        self._added: dict[nn.Parameter, Tensor] = {}
        self._parts: list[dict[nn.Parameter, Tensor]] = []

    def begin(self) -> None:
        """A forward pass begins: what was added since the last one is one part."""
        if self._added:
            self._parts.append(self._added)
            self._added = {}
            self._before = {p: p.grad.detach().clone() for p in self._parameters if p.grad is not None}

    def _arrived(self, parameter: nn.Parameter) -> None:
        gradient = parameter.grad
        assert gradient is not None, "a hook that is called when a gradient has been accumulated"
        metric = self._metric.get(parameter) if self._metric is not None else None
        squared = self._squares(gradient, metric)
        before = self._before.get(parameter) if self._before is not None else None
        self._squared[parameter] = squared
        self._added[parameter] = squared if before is None else self._squares(gradient - before, metric)

    @property
    def passes(self) -> int:
        """How many backward passes there were."""
        return len(self._parts) + bool(self._added)

    def batch_squared(self, parameter: nn.Parameter) -> Tensor | None:
        """|g|^2 of the gradient that all passes left together; None where none came."""
        return self._squared.get(parameter)

    def parts_squared(self, parameter: nn.Parameter) -> Tensor:
        """The sum over passes of the squared norm of what each of them added."""
        return torch.stack([part[parameter] for part in [*self._parts, self._added] if parameter in part]).sum(0)

    def close(self) -> None:
        """Take the hooks away. Allowed more than once."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._before = None

    def _squares(self, gradient: Tensor, metric: Tensor | None) -> Tensor:
        values = gradient.detach()
        if values.is_sparse:
            values = values.coalesce().values() if metric is None else values.to_dense()
        plain = squared(values)
        if self._metric is None:
            return plain.unsqueeze(0)
        if metric is None:
            return torch.stack([plain, plain])
        return torch.stack([plain, torch.dot(wide(values).reshape(-1).square(), metric.reshape(-1))])
