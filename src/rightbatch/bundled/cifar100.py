"""CIFAR-100 (A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009): colour images, 32x32.

A hundred classes of 500 training images each; published for research, without a licence of its own. Where only a subset
of 15,000 training images (150 a class, `cifar100/cifar100-15k.npz`) is at hand, that is used instead of a download of
161 MB, under the name `cifar100:15k`: studies of the two are never mixed.

A tenth of the training images validates, a fifth of the subset's: 1,500 images would make an accuracy jump too much.
The test images stay untouched: to evaluate them at every rung would cost as much as the validation does.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from rightbatch.bundled.classification import Pair, accuracy, cross_entropy
from rightbatch.bundled.data import DataFile, find, local
from rightbatch.bundled.rows import split_apart
from rightbatch.errors import DataError
from rightbatch.records import Trial
from rightbatch.workload import Workload

FULL = DataFile(
    "cifar100/cifar-100-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
)
SUBSET = "cifar100/cifar100-15k.npz"
CLASSES = 100
Part = Literal["train", "test"]


def cifar100() -> Workload:
    """Three 3x3 convolutions with group normalisation and a linear layer (49 thousand parameters), to 25 % accuracy.

    On the subset, batch size 32 at rate 0.018 reaches it after 58,000 examples (5 passes).
    """
    subset = local(SUBSET) if local(FULL.path) is None else None
    images, labels = read_subset(subset) if subset else read_full(find(FULL))
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
        nn.Linear(4 * 64, CLASSES),
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
        raise _damaged(path, error) from error
    return _checked(path, images.transpose(0, 3, 1, 2) if images.ndim == 4 else images, labels)


def read_full(path: Path, part: Part = "train") -> Pair:
    """Images of the published archive, bytes of shape `[n, 3, 32, 32]`, and labels. Raises `DataError`."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            member = archive.extractfile(f"cifar-100-python/{part}")
            if member is None:
                raise ValueError(f"cifar-100-python/{part} is no file")
            content = PlainUnpickler(io.BytesIO(member.read()), encoding="bytes").load()
        images, labels = np.asarray(content[b"data"]), np.asarray(content[b"fine_labels"])
    except Exception as error:  # a damaged archive may raise anything
        raise _damaged(path, error) from error
    return _checked(path, images.reshape(-1, 3, 32, 32) if images.shape[1:] == (3072,) else images, labels)


class PlainUnpickler(pickle.Unpickler):
    """Reads plain values and NumPy arrays, and nothing else: a pickle could run any code."""

    # NumPy has moved this function between versions; the archive names its place of 2009.
    _rebuild = np.empty(0).__reduce__()[0]
    _allowed: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _rebuild,
        ("numpy._core.multiarray", "_reconstruct"): _rebuild,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which an array does not need") from None


def _checked(path: Path, images: np.ndarray, labels: np.ndarray) -> Pair:
    fits = images.shape == (len(labels), 3, 32, 32) and images.dtype == np.uint8 and labels.ndim == 1
    if not fits or not len(labels) or not (labels.min() >= 0 and labels.max() < CLASSES):
        raise DataError(
            f"{path} has images of shape {images.shape} ({images.dtype}) and labels of shape {labels.shape}, expected "
            f"bytes of 32x32 in three colours, and a label of 0 to 99 for each. Delete the file and run again."
        )
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64))


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is damaged: {type(error).__name__}: {error}. Delete it and run again.")
