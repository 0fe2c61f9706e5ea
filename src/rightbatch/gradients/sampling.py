"""One step of a training that is sampled: the squared norms of its gradient and of the parts that make it up."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rightbatch.errors import InputError
from rightbatch.gradients.metrics import Metric
from rightbatch.gradients.passes import Passes
from rightbatch.gradients.slopes import Slopes
from rightbatch.gradients.totals import Totals


@dataclass(frozen=True)
class Sampled:
    """What one sampled step gave.

    by_parameter: For each parameter |g|^2 and sum |c_i|^2 over its parts, once or, with a metric, twice:
        ((|g|^2, parts), (|g|^2 in the metric, parts in the metric)).
    shares: sum p_i^2 over the shares of the parts in the loss.
    along_gradient: |G|^4 and G^T Sigma G, where they were asked for, or why they are not had.
    """

    examples: int
    by_parameter: Mapping[str, tuple[tuple[float, float], ...]]
    shares: float
    uncovered: Mapping[str, str]
    along_gradient: tuple[float, float] | str = ""


class Sampling:
    """Samples steps of a model, one after the other: all the backward passes of each."""

    def __init__(self, model: nn.Module, *, every_step: bool, inner_products: bool = False) -> None:
        self._compiled = hasattr(model, "_orig_mod")
        self._model: nn.Module = model._orig_mod if self._compiled else model  # type: ignore[assignment]
        self._keeps_hooks = every_step and not self._compiled
        self._slopes = Slopes()
        self._totals = Totals(self._model, self._slopes, inner_products=inner_products)
        self._passes: Passes | None = None
        self._eager = contextlib.ExitStack()

    def begin(self, scale: float, metric: Metric | None) -> None:
        """A step begins. `scale` is what a gradient scaler multiplies its loss by."""
        self._scale, self._metric = scale, metric
        if self._passes is None:
            self._trained = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
            self._passes = Passes(self._trained.values(), metric)
        else:
            self._passes.restart(metric)
        self._examples: list[int] = []
        self._shares: list[float] = []
        self._open = False
        self._found: list[tuple[tuple[str, ...], Tensor]] = []
        self._along: list[tuple[float, float] | str] = []
        self._uncovered: dict[str, str] = {}
        self._mixes: str | None = None  # why the examples of this model have no gradients of their own

    @property
    def seen(self) -> Passes:
        """The backward passes of this step."""
        assert self._passes is not None, "a step that has begun"
        return self._passes

    @property
    def waits(self) -> bool:
        """Whether the last forward pass has not been followed by a backward pass yet."""
        return self.seen.passes < len(self._examples)

    @property
    def added(self) -> bool:
        """Whether all forward passes so far have been followed by backward passes."""
        return bool(self._examples) and not self.waits

    def forward(self, examples: int | None) -> str | None:
        """A forward pass begins, of so many examples; what is wrong with it, if anything."""
        if self.waits:
            return "the model is called more than once for one backward pass, and examples cannot be told apart"
        if examples is None:
            return "no tensor was found among the inputs of the model, so its examples are not known"
        self.seen.begin()
        self._finish_pass()
        self._examples.append(examples)
        self._shares.append(1 / examples)
        if self._compiled:  # compiled code calls no hooks: this makes it eager without compiling anything again
            self._eager.enter_context(torch.compiler.set_stance("force_eager"))
        if self._mixes is None:
            try:
                self._totals.begin(examples, self._metric)
                self._open = True
            except InputError as error:
                self._mixes = str(error)
        return None

    def weigh(self, weights: Tensor) -> None:
        """The examples of the pass that has begun count by these weights, as their tokens."""
        weights = weights.detach().cpu().double()
        self._shares[-1] = float(weights.square().sum() / weights.sum() ** 2)

    def result(self) -> Sampled | str | None:
        """What the step gave, once its last backward pass is done; None if nothing, or why it never will."""
        passes = self.seen.passes
        if self.waits or not passes:
            return None
        self._finish_pass()
        if self._mixes is None and (not self._uncovered or passes == 1):
            names, parts = _added(self._found)
            shares = sum(self._shares) / passes**2  # the passes count alike
        elif passes > 1:
            self._uncovered = {}
            names = tuple(name for name, p in self._trained.items() if self.seen.batch_squared(p) is not None)
            parts, shares = torch.stack([self.seen.parts_squared(self._trained[n]) for n in names]), 1 / passes
        else:
            return self._mixes
        numbers = self._numbers(names, parts)
        return Sampled(sum(self._examples), numbers, shares, self._uncovered, self._along_gradient(passes))

    def end(self) -> None:
        """The step has ended. The hooks stand on if every step is sampled, but for now and then: see `Totals`."""
        self._eager.close()
        if not self._keeps_hooks or self._slopes.due_for_check:
            self.close()

    def close(self) -> None:
        """Take all hooks away. Allowed more than once."""
        self._eager.close()
        self._totals.close()
        if self._passes is not None:
            self._passes.close()
            self._passes = None

    def _finish_pass(self) -> None:
        self._eager.close()
        if self._open:
            self._open = False
            names, totals, uncovered = self._totals.finish()
            self._found.append((names, totals))
            self._uncovered |= uncovered
            self._along.append(self._totals.along_gradient)

    def _along_gradient(self, passes: int) -> tuple[float, float] | str:
        """The mean over passes, each of which adds its share of the gradient."""
        if faults := [found for found in self._along if isinstance(found, str)]:
            return faults[0]
        if self._mixes is not None:
            return self._mixes
        unscaled = (passes / self._scale) ** 4
        fourth, variance = (sum(found) / passes * unscaled for found in zip(*self._along, strict=True))
        return fourth, variance

    def _numbers(self, names: tuple[str, ...], parts: Tensor) -> dict[str, tuple[tuple[float, float], ...]]:
        """All of them at once, for each by itself would wait for the device."""
        if not names:
            return {}
        batch = [self.seen.batch_squared(self._trained[name]) for name in names]
        terms = torch.stack([torch.stack([b for b in batch if b is not None]).to(parts), parts], dim=2)
        unscaled = self._scale**2
        return {
            name: tuple((of_batch / unscaled, of_parts / unscaled) for of_batch, of_parts in rows)
            for name, rows in zip(names, terms.tolist(), strict=True)
        }


def _added(totals: list[tuple[tuple[str, ...], Tensor]]) -> tuple[tuple[str, ...], Tensor]:
    """The sum over passes, which may not all have used the same parameters."""
    if all(names == totals[0][0] for names, _ in totals):
        return totals[0][0], torch.stack([values for _, values in totals]).sum(0)
    rows: dict[str, list[Tensor]] = {}
    for names, values in totals:
        for name, value in zip(names, values, strict=True):
            rows.setdefault(name, []).append(value)
    return tuple(rows), torch.stack([torch.stack(of_passes).sum(0) for of_passes in rows.values()])
