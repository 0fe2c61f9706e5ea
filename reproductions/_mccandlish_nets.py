"""What is trained for `mccandlish.py` beside the recorded tables: MNIST by a small network and plain SGD."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from rightbatch import Trial, Workload
from rightbatch.bundled import mnist
from rightbatch.bundled.classification import cross_entropy, split


def sgd(parameters: Iterable[nn.Parameter], trial: Trial) -> torch.optim.Optimizer:
    """Without momentum."""
    return torch.optim.SGD(parameters, lr=trial.learning_rate)


def mnist_mlp() -> Workload:
    """784-64-10, to a validation loss of 0.15."""
    train, valid = split(*mnist.read("train"), valid_examples=5000)
    return Workload(
        name="mnist_mlp",
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)),
        data=train,
        valid=valid,
        loss=cross_entropy,
        optimizer=sgd,
        present=(32, 0.3),
        target=0.15,
        planned_examples=10 * len(train[0]),
        evaluation_examples=2000,
    )
