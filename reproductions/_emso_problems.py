"""The logistic regressions of `emso.py`: three published data sets, a synthetic one, and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rightbatch.bundled.data import DataFile, find
from rightbatch.bundled.rows import read_libsvm
from rightbatch.bundled.tabular import ADULT, LIBSVM

WEB = DataFile("libsvm/w8a", LIBSVM + "w8a", "b464b4f6ce6a5d9e181ffc793e19a04751036273722312398ef7673705014902")
SKIN = DataFile(
    "uci/Skin_NonSkin.txt",
    "https://archive.ics.uci.edu/ml/machine-learning-databases/00229/Skin_NonSkin.txt",
    (  # its numbers between tabs, with the line ends of Windows and without
        "e30c0a845385dcc95a45c45ed263465674a49638e98ef740afd520769c7714a4",
        "008f1fb6a169498dec54fb5951be6478e5465942cc4f6df3b5dabbe484c9a98f",
    ),
)
RIDGE = 1e-4


@dataclass(frozen=True, eq=False)
class Logistic:
    """Logistic regression under a ridge on all weights: the mean over these examples is what is to be minimised.

    inputs `[N, d]`, labels `[N]`, 0 or 1, both float32; rows drawn with replacement are the stochastic problem.
    """

    inputs: Tensor
    labels: Tensor
    ridge: float

    @property
    def size(self) -> int:
        """d."""
        return self.inputs.shape[1]

    def above(self, weights: Tensor) -> list[float]:
        """How much above the least loss each row of `weights`, `[k, d]`, is."""
        return [float(value) for value in self._losses(weights.double()) - self.least]

    def _losses(self, weights: Tensor) -> Tensor:
        total = torch.zeros(len(weights), dtype=torch.float64)
        for some, labels in zip(self.inputs.split(20_000), self.labels.split(20_000), strict=True):
            scores = some.double() @ weights.T
            total += torch.nn.functional.softplus(scores).sum(0) - labels.double() @ scores
        return total / len(self.labels) + 0.5 * self.ridge * weights.square().sum(1)

    @cached_property
    def solution(self) -> Tensor:
        """The weights of least loss, by Newton's method with the step halved where it is too long."""
        inputs, labels = self.inputs.double(), self.labels.double()
        weights = torch.zeros(self.size, dtype=torch.float64)
        for _ in range(100):
            mean = (inputs @ weights).sigmoid()
            gradient = inputs.T @ (mean - labels) / len(labels) + self.ridge * weights
            if float(gradient.abs().max()) < 1e-12:
                break
            curvature = (inputs.T * (mean * (1 - mean))) @ inputs / len(labels)
            step = torch.linalg.solve(curvature + self.ridge * torch.eye(self.size, dtype=torch.float64), gradient)
            before, share = float(self._losses(weights[None])), 1.0
            while float(self._losses((weights - share * step)[None])) > before and share > 1e-6:
                share /= 2
            weights = weights - share * step
        return weights

    @cached_property
    def least(self) -> float:
        """The least loss."""
        return float(self._losses(self.solution[None]))

    @cached_property
    def distance(self) -> float:
        """Of the solution from zero, where all runs begin."""
        return float(self.solution.norm())

    @cache  # noqa: B019  # one problem a process, kept as long as it lives
    def smoothness(self, batch_size: int) -> float:
        """The largest curvature of the losses of batches: the mean of eight plus two deviations, ridge included."""
        draw, found = torch.Generator().manual_seed(batch_size), []
        for _ in range(8):
            chosen = torch.randint(len(self.labels), (min(batch_size, 4096),), generator=draw)
            some = self.inputs[chosen].double()
            gram = some @ some.T if len(some) < self.size else some.T @ some
            found.append(float(torch.linalg.eigvalsh(gram)[-1]) / len(some) / 4)
        return float(np.mean(found) + 2 * np.std(found)) + self.ridge


def _made(inputs: Tensor, labels: Tensor, ridge: float) -> Logistic:
    """With a column of ones, and all divided by one number so that the mean squared length of a row is 1."""
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    return Logistic(inputs / inputs.square().sum(1).mean().sqrt(), labels.float(), ridge)


def a9a() -> Logistic:
    """Income of 32,561 people from 123 binary features."""
    return _made(*read_libsvm(find(ADULT), rows=32_561, features=123), ridge=RIDGE)


def w8a() -> Logistic:
    """Whether 49,749 web pages are of a category, from 300 words in them."""
    return _made(*read_libsvm(find(WEB), rows=49_749, features=300), ridge=RIDGE)


def skin() -> Logistic:
    """Whether 245,057 pixels are skin, from three colours of variance 1."""
    lines = Path(find(SKIN)).read_text(encoding="utf-8").splitlines()
    rows = [line.replace("\t", ",").split(",") for line in lines if line[:1].isdigit()]
    table = torch.from_numpy(np.array(rows, dtype=np.float32).reshape(-1, 4))
    inputs = (table[:, :3] - table[:, :3].mean(0)) / table[:, :3].std(0)
    return _made(inputs, table[:, 3] == 1, ridge=RIDGE)


def synthetic(ridge: float, examples: int = 50_000, size: int = 10) -> Logistic:
    """Rows of length 1, more of it in the first directions, and labels of a logistic model."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(examples, size, generator=draw) / torch.arange(1, size + 1).sqrt()
    inputs = torch.nn.functional.normalize(inputs, dim=1)
    labels = torch.rand(examples, generator=draw) < (2 * inputs.sum(1)).sigmoid()
    return Logistic(inputs, labels.float(), ridge)
