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
    "mnist:f1": Bundled(
        "rightbatch.bundled.mnist",
        "f1",
        "MLP 784-512x5-10 with batch normalisation, Adam, validation accuracy 97 % (F1 of Keskar et al.)",
        "MNIST: 60,000 images, 28x28",
    ),
    "cifar100": Bundled(
        "rightbatch.bundled.cifar100",
        "cifar100",
        "three convolutions and a linear layer, SGD with momentum 0.9, validation accuracy 25 %",
        "CIFAR-100: 50,000 colour images, 32x32; or a subset of 15,000",
    ),
    "char_lm:gru": Bundled(
        "rightbatch.bundled.char_lm",
        "gru",
        "GRU of 128 units, AdamW, validation loss 1.8 nats a character",
        "tiny Shakespeare: 1,115,394 characters",
    ),
    "char_lm:lstm": Bundled(
        "rightbatch.bundled.char_lm",
        "lstm",
        "LSTM of 128 units, AdamW, validation loss 1.8 nats a character",
        "tiny Shakespeare: 1,115,394 characters",
    ),
    "char_lm:transformer": Bundled(
        "rightbatch.bundled.char_lm",
        "transformer",
        "two transformer blocks of width 64, AdamW, validation loss 1.95 nats a character",
        "tiny Shakespeare: 1,115,394 characters",
    ),
    "wikitext2": Bundled(
        "rightbatch.bundled.wikitext2",
        "wikitext2",
        "LSTM of 128 units with its state carried along parallel streams, clipped SGD, perplexity 45",
        "WikiText-2: the first 400,000 words",
    ),
    "tabular:wine": Bundled(
        "rightbatch.bundled.tabular",
        "wine",
        "MLP 11-64-64-1, SGD with momentum 0.9, validation loss 0.62 of the variance",
        "quality of 4,898 white wines, 11 measurements",
    ),
    "tabular:protein": Bundled(
        "rightbatch.bundled.tabular",
        "protein",
        "MLP 9-64-64-1, SGD with momentum 0.9, validation loss 0.52 of the variance",
        "structure of 45,730 protein decoys, 9 features",
    ),
    "tabular:a9a": Bundled(
        "rightbatch.bundled.tabular",
        "a9a",
        "logistic regression, SGD, validation loss 0.325",
        "income of 32,561 people, 123 binary features",
    ),
    "tabular:a9a-emso": Bundled(
        "rightbatch.bundled.tabular",
        "a9a_emso",
        "the same by EMSO, 5 inner steps on each batch",
        "income of 32,561 people, 123 binary features",
    ),
    "letter": Bundled(
        "rightbatch.bundled.tabular",
        "letter",
        "MLP 16-128-128-26, SGD with momentum 0.9, validation accuracy 93 %",
        "20,000 printed capitals, 16 features",
    ),
    "quadratic": Bundled(
        "rightbatch.bundled.quadratic",
        "quadratic",
        "noisy quadratic whose expected loss is known exactly: the ground truth of the tests",
        "none: noise is drawn as it trains",
    ),
}
