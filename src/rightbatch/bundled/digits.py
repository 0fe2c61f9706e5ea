"""Handwritten digits, embedded: the default that needs neither a download nor a GPU.

Source of the data: the test part of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI Machine
Learning Repository, 1998 (CC BY 4.0): 1,797 images of 8x8 pixels with values 0 to 16, and their digit.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import torch
from torch import nn

from rightbatch.bundled.classification import accuracy, cross_entropy, sgd_with_momentum, split
from rightbatch.workload import Workload


def digits() -> Workload:
    """An MLP on the digits, judged on validation loss: 360 images are too few for an accuracy to move smoothly."""
    with as_file(files("rightbatch.bundled") / "digits.csv.gz") as path:
        table = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.float32))
    train, valid = split(table[:, :64] / 16, table[:, 64].long(), valid_examples=360)
    return Workload(
        name="digits",
        model=lambda: nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)),
        data=train,
        valid=valid,
        loss=cross_entropy,
        metric=accuracy,
        direction="max",
        optimizer=sgd_with_momentum,
        settings={"momentum": 0.9},
        present=(32, 0.1),
        target=0.15,
        target_quantity="valid_loss",
        planned_examples=60 * 1437,
    )
