"""CIFAR-100 (A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009): colour images, 32x32.

A hundred classes of 500 training images each; published for research, without a licence of its own. Where only a subset
of 15,000 training images (150 a class, `cifar100/cifar100-15k.npz`) is at hand, that is used instead of a download of
161 MB, under the name `cifar100:15k`: studies of the two are never mixed.

A tenth of the training images validates, a fifth of the subset's: 1,500 images would make an accuracy jump too much.
The test images stay untouched: to evaluate them at every rung would cost as much as the validation does.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from rightbatch.bundled.cifar import CIFAR100, Part, checked, damaged
from rightbatch.bundled.classification import Pair, accuracy, cross_entropy
from rightbatch.bundled.data import find, local
from rightbatch.bundled.rows import split_apart
from rightbatch.records import Trial
from rightbatch.workload import Workload

SUBSET = "cifar100/cifar100-15k.npz"


def cifar100() -> Workload:
    """Three 3x3 convolutions with group normalisation and a linear layer (49 thousand parameters), to 25 % accuracy.

    On the subset, batch size 32 at rate 0.018 reaches it after 58,000 examples (5 passes).
    """
    subset = local(SUBSET) if local(CIFAR100.file.path) is None else None
    images, labels = read_subset(subset) if subset else CIFAR100.read(find(CIFAR100.file))
    train, valid = split_apart(images, labels, valid_examples=len(images) // (5 if subset else 10))
    mean, deviation = pixels(train[0])
    return Workload(
        name="cifar100:15k" if subset else "cifar100",
        model=lambda: network(mean, deviation),
        data=train,
        valid=valid,
        loss=cross_entropy,
        metric=accuracy,
        direction="max",
        optimizer=sgd,
        settings={"momentum": 0.9, "weight_decay": 0.0005},
        present=(128, 0.1),
        target=0.25,
        planned_examples=20 * len(train[0]),
        evaluation_batch_size=100,  # what fits the cache of a core is faster
    )


class Standardise(nn.Module):
    """Bytes to numbers of mean 0 and deviation 1 in each colour: data kept as bytes takes a quarter of the memory."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", deviation.view(3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images.float() - self.mean) / self.deviation


def network(mean: torch.Tensor, deviation: torch.Tensor) -> nn.Module:
    """The convolutional network: images as bytes, `[batch_size, 3, 32, 32]`, to logits `[batch_size, 100]`."""

    def stage(channels_in: int, channels: int) -> list[nn.Module]:
        convolution = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        return [convolution, nn.MaxPool2d(2), nn.GroupNorm(4, channels), nn.ReLU()]

    return nn.Sequential(
        Standardise(mean, deviation),
        *stage(3, 16),
        *stage(16, 32),
        *stage(32, 64),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 64, CIFAR100.classes),
    )


def sgd(parameters: Iterable[nn.Parameter], trial: Trial) -> torch.optim.Optimizer:
    """SGD at the trial's rate, with its settings `momentum` and `weight_decay`."""
    momentum, weight_decay = float(trial.settings["momentum"]), float(trial.settings["weight_decay"])
    return torch.optim.SGD(parameters, lr=trial.learning_rate, momentum=momentum, weight_decay=weight_decay)


def pixels(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each colour, shapes `[3]`; one colour at a time, to spare memory."""
    colours = [images[:, colour].float() for colour in range(3)]
    return torch.stack([c.mean() for c in colours]), torch.stack([c.std() for c in colours])


def read_subset(path: Path, part: Part = "train") -> Pair:
    """Images of the subset, bytes of shape `[n, 3, 32, 32]`, and labels. Raises `DataError`."""
    try:
        # Opened here: NumPy leaves a file open that it finds damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    except Exception as error:  # a damaged archive may raise anything
        raise damaged(path, error) from error
    images = images.transpose(0, 3, 1, 2) if images.ndim == 4 else images
    return checked(path, images, labels, CIFAR100.classes)
