"""What `keskar.py` trains: F1 on MNIST, all of it and 15,000 images of it; C3 at a quarter of its width; C1 and C3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from rightbatch import Workload
from rightbatch.bundled import cifar100, mnist
from rightbatch.bundled.cifar import CIFAR10, CIFAR100, Archive
from rightbatch.bundled.classification import Pair, accuracy, cross_entropy
from rightbatch.bundled.data import find, local

FEW = 15_000
"""Images of the controls; ten thousand others judge them."""

GHOST = 250


def f1() -> Workload:
    """F1 on all 60,000 training images, judged on the 10,000 test images as the paper does; Adam."""
    images, labels = mnist.read("train")
    return replace(
        mnist.f1(),
        name="keskar F1",
        data=(images, labels),
        valid=mnist.read("t10k"),
        planned_examples=100 * len(images),
    )


def f1_few() -> Workload:
    """F1 on 15,000 training images, judged on 10,000 other training images: nothing here looks at the test images."""
    images, labels = mnist.read("train")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, valid = order[:FEW], order[FEW : FEW + 10_000]
    return replace(
        mnist.f1(),
        name="keskar F1, 15,000 images",
        data=(images[train], labels[train]),
        valid=(images[valid], labels[valid]),
        target=0.9,
        planned_examples=40 * FEW,
    )


def f1_ghost() -> Workload:
    """The same, batches normalised 250 images at a time (ghost batch normalisation, Hoffer et al. 2017)."""
    return replace(f1_few(), name="keskar F1, 15,000 images, ghost batches", model=ghost_network)


def ghost_network() -> nn.Module:
    """F1 with ghost batch normalisation; its weights have the names of F1's."""
    network = mnist.f1_network()
    for name, layer in list(network.named_children()):
        if isinstance(layer, nn.BatchNorm1d):
            setattr(network, name, GhostBatchNorm(layer.num_features))
    return network


def narrow_network() -> nn.Module:
    """784-64x5-10, as F1 otherwise."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width in (784, 64, 64, 64, 64):
        layers += [nn.Linear(width, 64), nn.BatchNorm1d(64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


class GhostBatchNorm(nn.BatchNorm1d):
    """Batch normalisation by the statistics of each 250 examples, in training; as usual in evaluation."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(inputs)
        ghosts = torch.tensor_split(inputs, max(1, len(inputs) // GHOST))
        return torch.cat([super(GhostBatchNorm, self).forward(ghost) for ghost in ghosts])


def c3() -> Workload:
    """C3 at a quarter of its width on 15,000 images of CIFAR-100 (all 50,000 where they are at hand)."""
    if local(CIFAR100.file.path) is None and (subset := local(cifar100.SUBSET)) is not None:
        train, valid = cifar100.read_subset(subset), cifar100.read_subset(subset, "test")
    else:
        train, valid = published(CIFAR100)
    return convolutional("keskar C3, quarter width", quarter_c3_network, train, valid, passes=40)


def c3_whole() -> Workload:
    """C3 as wide as in the paper, on all 50,000 images of CIFAR-100."""
    return convolutional("keskar C3", c3_network, *published(CIFAR100), passes=100)


def c1_whole() -> Workload:
    """C1 as in the paper, on all 50,000 images of CIFAR-10."""
    return convolutional("keskar C1", c1_network, *published(CIFAR10), passes=100)


def published(archive: Archive) -> tuple[Pair, Pair]:
    """All images of an archive: those that train, and the test images, which judge as in the paper."""
    path = find(archive.file)
    return archive.read(path), archive.read(path, "test")


def convolutional(name: str, network: Callable[[], nn.Module], train: Pair, valid: Pair, *, passes: int) -> Workload:
    """A convolutional network on images, trained with Adam."""
    return Workload(
        name=name,
        model=network,
        data=train,
        valid=valid,
        loss=cross_entropy,
        metric=accuracy,
        direction="max",
        optimizer=mnist.adam,
        present=(256, 0.001),
        target=0.1,
        planned_examples=passes * len(train[0]),
        evaluation_batch_size=100,  # what fits the cache of a core is faster
    )


def quarter_c3_network() -> nn.Module:
    """C3 with 16 channels for 64: images as bytes to logits `[batch_size, 100]`."""
    return shallow_network(16, CIFAR100.classes)


def c3_network() -> nn.Module:
    """C3: images as bytes to logits `[batch_size, 100]`."""
    return shallow_network(64, CIFAR100.classes)


def c1_network() -> nn.Module:
    """C1: images as bytes to logits `[batch_size, 10]`."""
    return shallow_network(64, CIFAR10.classes)


def shallow_network(channels: int, classes: int) -> nn.Module:
    """The authors' shallow convolutional network, after AlexNet."""

    def stage(channels_in: int) -> list[nn.Module]:
        convolution = nn.Conv2d(channels_in, channels, 5, padding=2)
        return [convolution, nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]

    def dense(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(0.5)]

    wide = 6 * channels
    return nn.Sequential(
        Scaled(),
        *stage(3),
        *stage(channels),
        nn.Flatten(),
        *dense(64 * channels, wide),
        *dense(wide, wide // 2),
        nn.Linear(wide // 2, classes),
    )


class Scaled(nn.Module):
    """Bytes to numbers from 0 to 1."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float() / 255


def f1_smoke() -> Workload:
    """F1 an eighth as wide on 3,000 training images, judged on 1,000 others: whether everything runs."""
    workload = f1_few()
    return replace(
        workload,
        name="keskar F1, an eighth as wide, 3,000 images",
        model=narrow_network,
        data=tuple(tensor[:3000] for tensor in workload.data),
        valid=tuple(tensor[:1000] for tensor in workload.valid),
        target=0.5,
        planned_examples=3 * 3000,
    )
