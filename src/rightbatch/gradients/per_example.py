"""Squared norms of the contributions of single examples to a gradient, from the backward pass that made it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rightbatch.errors import InputError
from rightbatch.gradients.capture import Arrival, Capture
from rightbatch.gradients.factors import Found, combinable, measure


class PerExampleNorms:
    """While it is entered, the next forward and backward passes of a model leave the squared norms behind.

        with PerExampleNorms(model, examples=len(x)) as norms:
            loss(model(x), y).backward()
        norms.squared()

    If the loss is sum_i p_i loss_i (p_i = 1/B for a mean over examples, 1 for a sum, w_i/W for a mean over tokens), the
    contribution of example i to the gradient is c_i = p_i grad loss_i, and the gradient is sum_i c_i. What is had is
    |c_i|^2, of the gradient as backward makes it: before clipping, with the factor of a gradient scaler, without what
    was in `.grad` before. Gradients are the same as without it, to the bit.

    Layers with a rule (`gradients.layers`) are covered if their input has the examples along its first dimension. That
    it has as many rows as there are examples is all that can be checked: positions first, and as many of them as
    examples, would give the norms of positions. For each parameter the sum of all contributions is compared with the
    gradient, along one random direction; a parameter that is used elsewhere too (`F.linear(x, embedding.weight)`), or
    whose gradient a hook changes, is uncovered.

    The model may be called more than once before the backward pass. One backward pass is had each time it is entered.
    Activation checkpointing is allowed; with reentry, a weight in two checkpoints counts as two backward passes.

    Parameters
    ----------
    model: In eager mode; compiled code calls no hooks, and leaves all parameters uncovered.
    examples: The size of the first dimension of the batch.

    Raises
    ------
    InputError: On entering, for a model with batch normalisation in training mode, where the gradient of one example is
        not defined. On reading, when no backward pass came, or more than one.
    """

    def __init__(self, model: nn.Module, examples: int) -> None:
        if examples < 1:
            raise InputError(f"A batch has at least 1 example, got examples={examples}.")
        self._examples = examples
        self._capture = Capture(model)
        self._begin()

    def _begin(self) -> None:
        self._found: dict[str, Found] = {}
        self._uncovered: dict[str, str] = {}
        self._arrived_again: list[str] = []
        self._judged = False

    def __enter__(self) -> PerExampleNorms:
        self._capture.detach()  # entered again after an error: what is trained may have changed
        self._begin()
        self._capture.attach()
        self._capture.begin(self._examples, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        """Take all hooks away and forget what was captured; what was found stays."""
        self._capture.detach()

    # ------------------------------------------------------------------------------------------------------- results

    @property
    def covered(self) -> tuple[str, ...]:
        """Trained parameters with a gradient whose norms were had, as `model.named_parameters` calls them."""
        return tuple(self._judge())

    @property
    def uncovered(self) -> Mapping[str, str]:
        """All other trained parameters with a gradient, and why."""
        self._judge()
        return dict(self._uncovered)

    def squared(self) -> Tensor:
        """|c_i|^2 over all covered parameters, shape [examples], at least float32."""
        found = [part.squared for part in self._judge().values()]
        if not found:
            return torch.zeros(self._examples)
        return torch.stack([squared.to(found[0].device) for squared in found]).sum(0)

    def by_parameter(self) -> dict[str, Tensor]:
        """|c_i|^2 of each covered parameter, shape [examples]."""
        return {name: part.squared for name, part in self._judge().items()}

    def _judge(self) -> dict[str, Found]:
        """What was found, less what does not add up to the gradient: here, so that no hook waits for a device."""
        if self._arrived_again:
            raise InputError(
                f"The gradient of {self._arrived_again[0]} came more than once, so that it is not known which calls "
                f"belong to which part of it. Enter PerExampleNorms anew for each backward pass, and use "
                f"torch.utils.checkpoint with use_reentrant=False."
            )
        if not self._found and not self._uncovered:
            raise InputError(
                "No gradient came while norms were being taken: no backward pass, or none of this model's trained "
                "parameters took part in it. Call backward within the with block."
            )
        if not self._judged:
            for name in [name for name, found in self._found.items() if not found.adds_up()]:
                self._uncovered[name] = "used outside its layer too, or its gradient is changed by a hook"
                del self._found[name]
        self._judged = True
        return self._found

    def _arrived(self, arrival: Arrival) -> None:
        if arrival.name in self._found or arrival.name in self._uncovered:
            self._arrived_again.append(arrival.name)
            return
        parts = [call.factors(arrival.parameter) for call in arrival.calls]
        if len(parts) == 1 or (parts and combinable(parts)):
            self._found[arrival.name] = measure(parts, arrival.gradient)
        else:
            self._uncovered[arrival.name] = arrival.reason or "its layers use it in ways that cannot be added"
