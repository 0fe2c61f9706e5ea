"""What the bundled classification workloads share: losses, accuracy, a seeded split, SGD with momentum."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional

from rightbatch.bundled.data import DataFile, find
from rightbatch.bundled.idx import read_idx
from rightbatch.records import Trial

Pair = tuple[torch.Tensor, torch.Tensor]


def cross_entropy(model: nn.Module, batch: Pair) -> torch.Tensor:
    """Cross-entropy of each example in nats, shape `[batch_size]`."""
    inputs, labels = batch
    return functional.cross_entropy(model(inputs), labels, reduction="none")


def accuracy(model: nn.Module, batch: Pair) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss, and 1.0 where the most probable class is right, of each example: one forward pass for both."""
    inputs, labels = batch
    logits = model(inputs)
    losses = functional.cross_entropy(logits, labels, reduction="none")
    return losses, (logits.argmax(dim=1) == labels).float()


def sgd_with_momentum(parameters: Iterable[nn.Parameter], trial: Trial) -> torch.optim.Optimizer:
    """SGD at the trial's rate and its `momentum` setting."""
    return torch.optim.SGD(parameters, lr=trial.learning_rate, momentum=float(trial.settings["momentum"]))


def read_labelled(images: DataFile, labels: DataFile) -> Pair:
    """Images `[n, 1, rows, columns]`, numbers from 0 to 1, and their labels `[n]`."""
    shown, named = read_idx(find(images)), read_idx(find(labels))
    return torch.from_numpy(shown).float().div_(255).unsqueeze(1), torch.from_numpy(named).long()


def split(inputs: torch.Tensor, labels: torch.Tensor, valid_examples: int) -> tuple[Pair, Pair]:
    """Training and validation data: a fixed random split, the same on every machine."""
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    inputs, labels = inputs[order], labels[order]
    train = (inputs[valid_examples:], labels[valid_examples:])
    return train, (inputs[:valid_examples], labels[:valid_examples])
