"""The loss over a fixed part of the data, as a function of all trained weights in one vector."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from rightbatch.errors import InputError
from rightbatch.evaluation import Evaluator
from rightbatch.gradients.hessian import gradient_of, hessian_products, shaped, twice_differentiable
from rightbatch.losses import examples_in, summed_loss, totals
from rightbatch.minima import Statistics
from rightbatch.streams import RandomStreams
from rightbatch.update import under_autocast
from rightbatch.workload import Workload

Array = NDArray[np.float64]

BATCH_SIZE = 2000
"""Examples of one pass; also those over which batch normalisation takes its statistics where it takes them anew."""


class Surface:
    """f(x): the mean training loss of a model whose weights are x, in evaluation mode (no dropout).

    Parameters
    ----------
    workload, model: The model is copied, and left as it is.
    examples: A fixed subset of at most so many training examples; None: all of them.
    statistics: What batch normalisation divides by. "running": the averages that training left, as in use. "batch":
        those of each pass of `batch_size` examples, as in training. "recomputed": averages over this data at the
        weights as they are, the same for all others.

    Vectors have shape `[size]`, in the order of `model.parameters()`, those without a gradient left out. `evaluations`
    counts passes over the data: a gradient is one, a Hessian-vector product is two.
    """

    def __init__(
        self,
        workload: Workload,
        model: nn.Module,
        *,
        examples: int | None = None,
        statistics: Statistics = "running",
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self._workload = workload
        self._loss = under_autocast(workload.loss, workload)
        self._model = copy.deepcopy(model).to(workload.device).eval()
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        if not self._parameters:
            raise InputError(f"The model of {workload.name!r} has no parameter with a gradient: it has no sharpness.")
        source = workload.source("data")
        self.examples = min(examples or len(source), len(source))
        self._batches = list(source.fixed(self.examples, batch_size))
        self.evaluations = 0.0
        self._use(statistics)
        self.start: Array = _flat(self._parameters)
        """The weights as they were given."""

    @property
    def size(self) -> int:
        """The number of weights."""
        return len(self.start)

    def value_and_gradient(self, x: Array) -> tuple[float, Array]:
        """f(x) and its gradient, shape `[size]`. Infinite, with a gradient of zeros, where the loss is not finite."""
        self._place(x)
        total, weight, sums = 0.0, 0.0, [torch.zeros_like(p) for p in self._parameters]
        for batch in self._passes():
            loss, count = summed_loss(self._loss(self._model, batch), examples_in(batch))
            for own, part in zip(sums, gradient_of(loss, self._parameters), strict=True):
                own += part
            total, weight = total + float(loss.detach().double()), weight + count
        if not math.isfinite(total):
            return math.inf, np.zeros(self.size)
        return total / weight, _flat(sums) / weight

    def value(self, x: Array) -> float:
        """f(x); infinite where the loss is not finite."""
        self._place(x)
        total, weight = 0.0, 0.0
        with torch.no_grad():
            for batch in self._passes():
                summed, count = totals(self._loss(self._model, batch), examples_in(batch) or 1, "loss")
                total, weight = total + float(summed), weight + count
        return total / weight if math.isfinite(total) else math.inf

    def hessian_products(self, vectors: Array) -> Array:
        """H v at the weights as they were given, for each row v of `vectors`, shape `[n, size]`."""
        self._place(self.start)
        split = [shaped(torch.from_numpy(vector), self._parameters) for vector in vectors]
        sums, weight = np.zeros_like(vectors), 0.0
        for batch in self._passes(2.0 * len(vectors)):
            with twice_differentiable():
                loss, count = summed_loss(self._loss(self._model, batch), examples_in(batch))
                products = hessian_products(loss, self._parameters, split)
            for own, product in zip(sums, products, strict=True):
                own += _flat(product)
            weight += count
        return sums / weight

    def judge(self, x: Array, evaluator: Evaluator) -> tuple[float, float]:
        """Mean loss and metric of the weights x on other data."""
        self._place(x)
        with RandomStreams(0).active():
            return evaluator(self._model)

    def _use(self, statistics: Statistics) -> None:
        layers = [layer for layer in self._model.modules() if isinstance(layer, _BatchNorm)]
        layers = [layer for layer in layers if layer.running_mean is not None]
        if statistics == "batch":
            for layer in layers:  # without averages it takes those of the batch, in evaluation mode too
                layer.running_mean = layer.running_var = None
        elif statistics == "recomputed" and layers:
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None  # a plain mean over the batches to come
                layer.training = True
            with torch.no_grad():
                for batch in self._passes():
                    self._loss(self._model, batch)
            for layer in layers:
                layer.training = False

    def _place(self, x: Array) -> None:
        like = self._parameters[0]
        vector_to_parameters(torch.from_numpy(x).to(like.device, like.dtype), self._parameters)

    def _passes(self, evaluations: float = 1.0) -> Iterator[Any]:
        self.evaluations += evaluations
        # A loss that draws (noise, sampling) draws the same at every x: else there is no function to maximise.
        with RandomStreams(0).active():
            yield from self._batches


def _flat(tensors: Iterable[Tensor]) -> Array:
    flat: Array = parameters_to_vector(t.detach() for t in tensors).cpu().double().numpy()
    return flat
