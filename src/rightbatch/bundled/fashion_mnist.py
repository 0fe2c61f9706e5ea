"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, MIT licence): 60,000 images of clothes, 28x28, ten classes.

The 60,000 official training images are split: 55,000 train, 5,000 validate. The test images stay untouched.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from rightbatch.bundled.classification import Pair, accuracy, cross_entropy, read_labelled, sgd_with_momentum, split
from rightbatch.bundled.data import DataFile
from rightbatch.workload import Workload

BASE = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
FILES = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
MEAN, DEVIATION = 0.2860, 0.3530
"""Of the training pixels, scaled to 0..1."""


def mlp() -> Workload:
    """784-128-10 with SGD and momentum 0.9, to 86 % validation accuracy."""

    def model() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))

    return _workload("fashion_mnist:mlp", model, target=0.86, present=(32, 0.1))


def cnn() -> Workload:
    """Two 3x3 convolutions with pooling and two linear layers (29 thousand parameters), to 88 % validation accuracy."""

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(784, 32),
            nn.ReLU(),
            nn.Linear(32, 10),
        )

    return _workload("fashion_mnist:cnn", model, target=0.88, present=(32, 0.03))


def _workload(name: str, model: Callable[[], nn.Module], target: float, present: tuple[int, float]) -> Workload:
    train, valid = split(*_load("train"), valid_examples=5000)
    return Workload(
        name=name,
        model=model,
        data=train,
        valid=valid,
        loss=cross_entropy,
        metric=accuracy,
        direction="max",
        optimizer=sgd_with_momentum,
        settings={"momentum": 0.9},
        present=present,
        target=target,
        planned_examples=20 * 55_000,
    )


def _load(part: str) -> Pair:
    images, labels = read_labelled(_file(f"{part}-images-idx3-ubyte.gz"), _file(f"{part}-labels-idx1-ubyte.gz"))
    return images.sub_(MEAN).div_(DEVIATION), labels


def _file(name: str) -> DataFile:
    return DataFile(f"fashion-mnist/{name}", BASE + name, FILES[name])
