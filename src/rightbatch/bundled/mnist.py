"""MNIST (Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits"): 60,000 images, 28x28.

The 60,000 official training images are split: 55,000 train, 5,000 validate. The test images stay untouched.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from rightbatch.bundled.classification import Pair, accuracy, cross_entropy, read_labelled, split
from rightbatch.bundled.data import DataFile
from rightbatch.records import Trial
from rightbatch.workload import Workload

BASE = "https://storage.googleapis.com/cvdf-datasets/mnist/"
FILES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
HIDDEN, LAYERS = 512, 5


def f1() -> Workload:
    """The network F1 of Keskar et al. (arXiv 1609.04836) with Adam, to 97 % validation accuracy."""
    train, valid = split(*read("train"), valid_examples=5000)
    return Workload(
        name="mnist:f1",
        model=f1_network,
        data=train,
        valid=valid,
        loss=cross_entropy,
        metric=accuracy,
        direction="max",
        optimizer=adam,
        present=(256, 0.001),
        target=0.97,
        planned_examples=20 * len(train[0]),
    )


def f1_network() -> nn.Module:
    """784-512x5-10: batch normalisation and a rectifier after each hidden layer; images to logits `[batch_size, 10]`.

    1,462,794 parameters. As in E. Hoffer's reproduction of the paper; the paper's own appendix was not read.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for width in (784, *[HIDDEN] * (LAYERS - 1)):
        layers += [nn.Linear(width, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(HIDDEN, 10))


def adam(parameters: Iterable[nn.Parameter], trial: Trial) -> torch.optim.Optimizer:
    """Adam at the trial's rate, all else as PyTorch has it."""
    return torch.optim.Adam(parameters, lr=trial.learning_rate)


def read(part: Literal["train", "t10k"]) -> Pair:
    """The training images (60,000) or test images (10,000), numbers from 0 to 1, and their labels."""
    return read_labelled(_file(f"{part}-images-idx3-ubyte.gz"), _file(f"{part}-labels-idx1-ubyte.gz"))


def _file(name: str) -> DataFile:
    return DataFile(f"mnist/{name}", BASE + name, FILES[name])
