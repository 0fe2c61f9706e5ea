"""What is trained for `shallue.py`: a small network on small images, and the paper's own, with Nesterov momentum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import nn

from rightbatch import Trial, Workload
from rightbatch.bundled import fashion_mnist, mnist
from rightbatch.bundled.classification import Pair, accuracy

HIDDEN = 100


def mnist_small() -> Workload:
    """196-100-10 on MNIST, to a validation error of 5 %."""
    return halved(of(mnist.f1(), "MNIST", small_network, goal=0.05))


def fashion_small() -> Workload:
    """196-100-10 on Fashion-MNIST, to a validation error of 16 %."""
    return halved(of(fashion_mnist.mlp(), "Fashion-MNIST", small_network, goal=0.16))


def mnist_paper() -> Workload:
    """The paper's simple convolutional network on MNIST, to its goal of 1 %."""
    return of(mnist.f1(), "MNIST, paper", simple_network, goal=0.01)


def fashion_paper() -> Workload:
    """The same on Fashion-MNIST, to its goal of 10 %."""
    return of(fashion_mnist.mlp(), "Fashion-MNIST, paper", simple_network, goal=0.1)


def of(bundled: Workload, name: str, network: Callable[[], nn.Module], goal: float) -> Workload:
    """Its 55,000 images to train and 5,000 to validate, with another network and goal."""
    return replace(
        bundled,
        name=f"shallue {name}",
        model=network,
        metric=error,
        direction="min",
        optimizer=momentum,
        settings={"momentum": 0.0},
        target=goal,
    )


def halved(workload: Workload) -> Workload:
    """The same on images of 14 by 14, means over squares of four: less to compute."""
    (images, labels), (valid_images, valid_labels) = workload.data, workload.valid
    pool = nn.AvgPool2d(2)
    return replace(workload, data=(pool(images), labels), valid=(pool(valid_images), valid_labels))


def error(model: nn.Module, batch: Pair) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss, and 1.0 where the most probable class is wrong, of each example."""
    losses, right = accuracy(model, batch)
    return losses, 1 - right


def momentum(parameters: Iterable[nn.Parameter], trial: Trial) -> torch.optim.Optimizer:
    """Nesterov momentum; plain SGD at a momentum of 0."""
    strength = float(trial.settings["momentum"])
    return torch.optim.SGD(parameters, lr=trial.learning_rate, momentum=strength, nesterov=strength > 0)


def small_network() -> nn.Module:
    """196-100-10, 20,710 parameters: images of 14 by 14 to logits `[batch_size, 10]`."""
    return nn.Sequential(nn.Flatten(), nn.Linear(196, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))


def simple_network() -> nn.Module:
    """The paper's "simple CNN": two convolutions of 5 by 5 with pooling, 1024 units with dropout of 0.4.

    How the convolutions are padded was not read; here they keep the size of the image.
    """
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 49, 1024),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Linear(1024, 10),
    )
