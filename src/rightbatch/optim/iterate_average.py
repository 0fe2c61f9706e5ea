"""Means of iterates of constant SGD over passes, as samples of the posterior (Mandt, Hoffman and Blei 2017, 5.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from rightbatch.errors import InputError
from rightbatch.fit.iterates import IterateTests, iterate_tests
from rightbatch.optim.samples import Prediction, predicted


class IterateAverage:
    """Keeps the mean of the iterates of every so many steps: each is a sample of the posterior, whatever the rate.

        averages = IterateAverage(model.parameters(), steps=round(len(data) / batch_size))
        for batch in batches:  # any optimizer of a constant rate and preconditioner, at its optimum
            ...
            optimizer.step()
            averages.update()

    The loss has to be that of the paper, with as much noise as curvature (a model that is right about its data): else
    the means have the covariance A^-1 C A^-1 / N, that of the estimate of maximal likelihood, for A^-1 / N. Whether a
    rate is in the regime of this, `fit.averaging.averaging_regime` tells; `tests` looks at the means themselves.

    Parameters
    ----------
    parameters: Whose iterates to average.
    steps: Of a mean: N over the batch size.

    Raises `InputError` for fewer than 1 step, or no parameters.
    """

    def __init__(self, parameters: Iterable[Tensor], *, steps: int) -> None:
        self._parameters = list(parameters)
        if not self._parameters:
            raise InputError("There are no parameters to average.")
        if steps < 1:
            raise InputError(f"A mean is over at least 1 step, got {steps}.")
        self.steps = steps
        self._count = 0
        self._sum = self._iterate().zero_()
        self._means: list[Tensor] = []

    def _iterate(self) -> Tensor:
        return torch.cat([parameter.detach().flatten().double() for parameter in self._parameters])

    def update(self) -> None:
        """Count in the present weights: call it after each step of the optimizer."""
        self._sum += self._iterate()
        self._count += 1
        if self._count == self.steps:
            self._means.append((self._sum / self.steps).to(self._parameters[0].dtype))
            self._sum.zero_()
            self._count = 0

    @property
    def samples(self) -> Tensor:
        """The means so far, `[k, d]`: parameters in the order they were given in."""
        if not self._means:
            return self._parameters[0].new_zeros((0, len(self._sum)))
        return torch.stack(self._means)

    def predict(self, function: Callable[[], Tensor]) -> Prediction:
        """What a function of the model gives with each mean as its weights; they are put back afterwards.

        Raises `InputError` where there is no mean yet.
        """
        return predicted(self._parameters, self.samples, function)

    def tests(self) -> IterateTests:
        """Whether the means bear out what makes them samples. Raises `InputError` for fewer than 8."""
        return iterate_tests(self.samples.double().cpu().numpy())

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {"steps": self.steps, "count": self._count, "sum": self._sum.clone(), "samples": self.samples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state. Raises `InputError` for one of another number of parameters."""
        if len(state["sum"]) != len(self._sum):
            raise InputError(f"This state is of {len(state['sum']):,} parameters, not of {len(self._sum):,}.")
        self.steps, self._count = state["steps"], state["count"]
        self._sum = state["sum"].to(self._sum).clone()
        self._means = list(state["samples"].to(self._parameters[0]))
