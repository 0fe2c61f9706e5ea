"""A network with one hidden layer on part of MNIST, at one rate from start to end; several seeds at once."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from rightbatch.bundled import mnist

torch.set_num_threads(1)

HIDDEN = 200
CLASSES = 10


@cache
def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images between 0 and 1, 14 by 14, `[N, 196]`, and labels: to train on, in a random order, and to test on."""
    (images, labels), (test_images, test_labels) = mnist.read("train"), mnist.read("t10k")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(5))
    return halved(images[order]), labels[order], halved(test_images), test_labels


def halved(images: Tensor) -> Tensor:
    """Means over squares of four: less to compute."""
    return torch.nn.functional.avg_pool2d(images, 2).flatten(1)


def accuracies(examples: int, batch_size: int, rate: float, momentum: float, steps: int, seeds: int) -> list[float]:
    """Of each seed: the share of the test images that the last weights get right.

    Batches are drawn with replacement from the first so many images. Weights `[seeds, ...]` are trained side by side,
    by gradients of the mean cross-entropy of each.
    """
    images, labels = (part[:examples] for part in data()[:2])
    generator = torch.Generator().manual_seed(batch_size + 100_000 * examples)
    parameters = begun(seeds, images.shape[1], generator)
    velocities = [torch.zeros_like(parameter) for parameter in parameters]
    for _ in range(steps):
        chosen = torch.randint(examples, (seeds, batch_size), generator=generator)
        for parameter, velocity, gradient in zip(
            parameters, velocities, gradients(parameters, images[chosen], labels[chosen]), strict=True
        ):
            parameter.sub_(velocity.mul_(momentum).add_(gradient), alpha=rate)
    return judged(parameters)


def begun(seeds: int, inputs: int, generator: torch.Generator) -> list[Tensor]:
    """Weights as `torch.nn.Linear` draws them, biases of zero."""
    return [
        (2 * torch.rand(seeds, inputs, HIDDEN, generator=generator) - 1) / math.sqrt(inputs),
        torch.zeros(seeds, 1, HIDDEN),
        (2 * torch.rand(seeds, HIDDEN, CLASSES, generator=generator) - 1) / math.sqrt(HIDDEN),
        torch.zeros(seeds, 1, CLASSES),
    ]


def gradients(parameters: list[Tensor], inputs: Tensor, labels: Tensor) -> list[Tensor]:
    """Of the mean cross-entropy, `inputs` [seeds, b, 196] and `labels` [seeds, b]."""
    first, first_bias, second, second_bias = parameters
    hidden = torch.baddbmm(first_bias, inputs, first).relu_()
    error = torch.baddbmm(second_bias, hidden, second).softmax(2)
    error.scatter_add_(2, labels[..., None], torch.full((*labels.shape, 1), -1.0))
    error /= labels.shape[1]
    below = torch.bmm(error, second.transpose(1, 2)) * (hidden > 0)
    return [
        torch.bmm(inputs.transpose(1, 2), below),
        below.sum(1, keepdim=True),
        torch.bmm(hidden.transpose(1, 2), error),
        error.sum(1, keepdim=True),
    ]


def judged(parameters: list[Tensor]) -> list[float]:
    """On the test images; weights that are not finite get none right."""
    _, _, images, labels = data()
    found = []
    for first, first_bias, second, second_bias in zip(*parameters, strict=True):
        scores = (images @ first + first_bias).relu() @ second + second_bias
        right = (scores.argmax(1) == labels) & scores.isfinite().all(1)
        found.append(float(right.float().mean()))
    return found
