"""Workloads that ship with rightbatch. This table imports no torch; a workload's module does, when it is made."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bundled:
    """One entry of the table: where the function is that makes the workload, and what it is in a line."""

    module: str
    function: str
    description: str
    data: str

    def make(self) -> Any:
        """The `Workload`. Raises `DataError` when its data cannot be had, `ImportError` without torch."""
        function: Callable[[], Any] = getattr(importlib.import_module(self.module), self.function)
        return function()


WORKLOADS: dict[str, Bundled] = {
    "digits": Bundled(
        "rightbatch.bundled.digits",
        "digits",
        "MLP 64-256-10, SGD with momentum 0.9, validation loss 0.15",
        "embedded: 1,797 handwritten digits, 8x8",
    ),
    "fashion_mnist:mlp": Bundled(
        "rightbatch.bundled.fashion_mnist",
        "mlp",
        "MLP 784-128-10, SGD with momentum 0.9, validation accuracy 86 %",
        "Fashion-MNIST: 60,000 images, 28x28",
    ),
    "fashion_mnist:cnn": Bundled(
        "rightbatch.bundled.fashion_mnist",
        "cnn",
        "two convolutions and two linear layers, SGD with momentum 0.9, validation accuracy 88 %",
        "Fashion-MNIST: 60,000 images, 28x28",
    ),
    "quadratic": Bundled(
        "rightbatch.bundled.quadratic",
        "quadratic",
        "noisy quadratic whose expected loss is known exactly: the ground truth of the tests",
        "none: noise is drawn as it trains",
    ),
}
