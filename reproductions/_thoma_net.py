"""What `thoma.py` trains: the thesis's baseline network on CIFAR-100, by a loop that is evaluated after every epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from rightbatch import LoopTrial, Point
from rightbatch.bundled import cifar100
from rightbatch.bundled.cifar import CIFAR100
from rightbatch.bundled.classification import Pair
from rightbatch.bundled.data import find, local

SHIFT = 3
"""Images are shifted by up to so many pixels each way, and mirrored."""

PENALTY = 1e-4
"""Times the squared weights, as the thesis adds it to the loss."""

SPLIT_SEED = 42


@dataclass(frozen=True)
class Images:
    """Bytes `[n, 32, 32, 3]` and labels `[n]`; those that train are wider by the shift on every side."""

    train: Pair
    valid: Pair
    test: Pair


def stratified(labels: Tensor, train_of_class: int, valid_of_class: int) -> tuple[Tensor, Tensor]:
    """Positions of so many images of each class to train on, and of so many others to validate."""
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    train, valid = [], []
    for label in range(CIFAR100.classes):
        places = (labels == label).nonzero()[:, 0]
        drawn = places[torch.randperm(len(places), generator=generator)]
        train.append(drawn[:train_of_class])
        valid.append(drawn[train_of_class : train_of_class + valid_of_class])
    return torch.cat(train), torch.cat(valid)


def split(train: Pair, test: Pair, train_of_class: int, valid_of_class: int) -> Images:
    """Images with their colours last: what convolutions on a processor are fastest with."""
    (pixels, labels), (test_pixels, test_labels) = train, test
    pixels, test_pixels = (part.permute(0, 2, 3, 1).contiguous() for part in (pixels, test_pixels))
    chosen, held_out = stratified(labels, train_of_class, valid_of_class)
    return Images(
        (widened(pixels[chosen]), labels[chosen]), (pixels[held_out], labels[held_out]), (test_pixels, test_labels)
    )


def widened(images: Tensor) -> Tensor:
    """The pixels of the rim repeated outwards."""
    places = torch.arange(-SHIFT, 32 + SHIFT).clamp(0, 31)
    return images[:, places][:, :, places]


def at_hand() -> tuple[Pair, Pair]:
    """Images that train and those that test: the subset where it is at hand, else all that were published."""
    if local(CIFAR100.file.path) is None and (path := local(cifar100.SUBSET)) is not None:
        return cifar100.read_subset(path), cifar100.read_subset(path, "test")
    path = find(CIFAR100.file)
    return CIFAR100.read(path), CIFAR100.read(path, "test")


@cache
def part() -> Images:
    """60 images of each class to train on, 15 to validate."""
    return split(*at_hand(), 60, 15)


@cache
def few() -> Images:
    """2 images of each class to train on, 2 to validate and to test: whether everything runs."""
    train, _ = at_hand()
    images = split(train, train, 2, 2)
    return Images(images.train, images.valid, images.valid)


@cache
def all_images() -> Images:
    """45,000 to train on and 5,000 to validate, as in the thesis."""
    return split(*at_hand(), 450, 50)


def drawn(images: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """Images of a batch, each shifted and mirrored at random, `[b, 3, 32, 32]` between 0 and 1."""
    rows, columns = torch.randint(2 * SHIFT + 1, (2, len(chosen), 1), generator=generator)
    inside = torch.arange(32)
    mirrored = torch.randint(2, (len(chosen), 1), generator=generator).bool()
    across = torch.where(mirrored, inside.flip(0), inside) + columns
    return scaled(images[chosen[:, None, None], (inside + rows)[:, :, None], across[:, None, :]])


def scaled(images: Tensor) -> Tensor:
    """Bytes `[n, 32, 32, 3]` to numbers from 0 to 1, `[n, 3, 32, 32]`."""
    return images.permute(0, 3, 1, 2).float() / 255


def network(narrower: int) -> nn.Sequential:
    """The baseline network of the thesis, with a share of its channels; logits `[b, 100]`."""

    def stage(inputs: int, outputs: int, size: int, padding: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, size, padding=padding)
        nn.init.kaiming_uniform_(convolution.weight, nonlinearity="relu")
        nn.init.zeros_(convolution.bias)
        return [convolution, nn.BatchNorm2d(outputs), nn.ELU(inplace=True)]

    a, b, c = 32 // narrower, 64 // narrower, 512 // narrower
    return nn.Sequential(
        *stage(3, a, 3, 1),
        *stage(a, a, 3, 1),
        nn.MaxPool2d(2),
        *stage(a, b, 3, 1),
        *stage(b, b, 3, 1),
        nn.MaxPool2d(2),
        *stage(b, b, 3, 1),
        nn.MaxPool2d(2),
        *stage(b, c, 4, 0),
        nn.Dropout(0.5),
        *stage(c, c, 1, 0),
        nn.Dropout(0.5),
        nn.Conv2d(c, CIFAR100.classes, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.BatchNorm1d(CIFAR100.classes),
    ).to(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share that is right."""
    model.eval()
    right = sum(
        int((model(scaled(pixels)).argmax(1) == truth).sum())
        for pixels, truth in zip(images.split(100), labels.split(100), strict=True)
    )
    return right / len(labels)


def trained(trial: LoopTrial, images: Images, narrower: int, epochs: int) -> Iterator[Point]:
    """Adam at one rate, a point after every epoch; test images are looked at where validation has never been better."""
    model = network(narrower)
    optimizer = torch.optim.Adam(model.parameters(), lr=trial.learning_rate, weight_decay=2 * PENALTY)
    generator = torch.Generator().manual_seed(trial.seed)
    pixels, labels = images.train
    best, step = accuracy(model, *images.valid), 0
    yield Point(0, valid_metric=best)
    for epoch in range(1, epochs + 1):
        model.train()
        for chosen in torch.randperm(len(labels), generator=generator).split(trial.batch_size):
            if len(chosen) == 1:  # of which batch normalisation knows no deviation
                continue
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(drawn(pixels, chosen, generator)), labels[chosen])
            loss.backward()
            optimizer.step()
            step += 1
        with trial.evaluating():
            valid = accuracy(model, *images.valid)
            test = accuracy(model, *images.test) if valid > best else None
            best = max(best, valid)
        yield Point(
            step, examples=epoch * len(labels), train_loss=float(loss.detach()), valid_metric=valid, test_metric=test
        )


def quarter(trial: LoopTrial) -> Iterator[Point]:
    """A quarter of the channels, on part of the images."""
    yield from trained(trial, part(), 4, 600)


def smoke(trial: LoopTrial) -> Iterator[Point]:
    """An eighth of the channels, three epochs."""
    yield from trained(trial, few(), 8, 3)


def whole(trial: LoopTrial) -> Iterator[Point]:
    """As in the thesis."""
    yield from trained(trial, all_images(), 1, 1000)
