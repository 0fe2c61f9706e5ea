"""The regressions of `mandt.py`: data, how it may be scaled, and what the theory needs of each optimum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rightbatch.bundled.data import DataFile, find
from rightbatch.fit.posterior import Optimum

Array = NDArray[np.float64]

SKIN = DataFile(
    "uci/Skin_NonSkin.txt",
    "https://archive.ics.uci.edu/ml/machine-learning-databases/00229/Skin_NonSkin.txt",
    (  # its numbers between tabs, with the line ends of Windows and without
        "e30c0a845385dcc95a45c45ed263465674a49638e98ef740afd520769c7714a4",
        "008f1fb6a169498dec54fb5951be6478e5465942cc4f6df3b5dabbe484c9a98f",
    ),
)
PRIOR = 1.0
"""The precision of the normal prior: "quadratic regularizer", parameter 1."""

SCALINGS: Mapping[str, Callable[[Array], Array]] = {
    "columns of length 1": lambda x: x / np.linalg.norm(x, axis=0),
    "centred columns of length 1": lambda x: (x - x.mean(0)) / np.linalg.norm(x - x.mean(0), axis=0),
    "columns of variance 1": lambda x: (x - x.mean(0)) / x.std(0),
    "columns up to 1": lambda x: x / np.abs(x).max(0),
    "rows of length 1": lambda x: x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12),
}
"""What "feature vectors were rescaled to unit length" may mean."""


@dataclass(frozen=True)
class Regression:
    """Linear regression with unit noise, or logistic regression, under the prior. inputs `[N, d]`, labels `[N]`."""

    inputs: Array
    labels: Array
    logistic: bool = False

    def errors(self, inputs: Array, labels: Array, theta: Array) -> Array:
        """What a gradient is in proportion to: predictions less labels. theta `[..., d]`, inputs `[..., n, d]`."""
        scores = np.einsum("...nd,...d->...n", inputs, theta)
        return (1 / (1 + np.exp(-scores)) if self.logistic else scores) - labels

    def gradients(self, theta: Array, chosen: NDArray[np.int64]) -> Array:
        """Of the mean loss over batches of examples, `[chains, d]`; theta `[chains, d]`, chosen `[chains, S]`."""
        inputs = self.inputs[chosen]
        errors = self.errors(inputs, self.labels[chosen], theta)
        return np.einsum("csd,cs->cd", inputs, errors) / chosen.shape[1] + PRIOR / len(self.labels) * theta

    @cached_property
    def solution(self) -> Array:
        """The most probable parameters, by Newton's method."""
        theta = np.zeros(self.inputs.shape[1])
        for _ in range(50 if self.logistic else 1):
            gradient = self.inputs.T @ self.errors(self.inputs, self.labels, theta) + PRIOR * theta
            theta = theta - np.linalg.solve(self._curvature(theta), gradient)
        return theta

    def _curvature(self, theta: Array) -> Array:
        """The Hessian of the sum of all losses and the prior."""
        weights = np.ones(len(self.labels))
        if self.logistic:
            error = self.errors(self.inputs, np.zeros(len(self.labels)), theta)  # the probability
            weights = error * (1 - error)
        return (self.inputs.T * weights) @ self.inputs + PRIOR * np.eye(self.inputs.shape[1])

    @cached_property
    def optimum(self) -> Optimum:
        """Hessian and gradient noise at the solution."""
        examples = len(self.labels)
        rows = self.inputs * self.errors(self.inputs, self.labels, self.solution)[:, None]
        return Optimum(self._curvature(self.solution) / examples, np.cov(rows.T, bias=True), examples)


def wine(scaling: str) -> Regression:
    """Quality from 11 measurements of 4,898 wines."""
    from rightbatch.bundled.tabular import WINE  # which needs torch: only what is run asks for it

    table = _table(WINE, 12)
    return Regression(SCALINGS[scaling](table[:, :11]), table[:, 11])


def protein(scaling: str) -> Regression:
    """The distance from the native structure from 9 features of 45,730 decoys (the paper counts 8)."""
    from rightbatch.bundled.tabular import PROTEIN

    table = _table(PROTEIN, 10)
    return Regression(SCALINGS[scaling](table[:, 1:]), table[:, 0])


def skin(scaling: str) -> Regression:
    """Whether one of 245,057 pixels is skin, from its three colours."""
    table = _table(SKIN, 4)
    return Regression(SCALINGS[scaling](table[:, :3]), (table[:, 3] == 1).astype(float), logistic=True)


def synthetic(examples: int, size: int = 10) -> Regression:
    """Features of unit covariance, labels of a linear model with unit noise."""
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(examples, size))
    return Regression(inputs, inputs @ draw.normal(size=size) + draw.normal(size=examples))


def _table(file: DataFile, columns: int) -> Array:
    lines = Path(find(file)).read_text(encoding="utf-8").splitlines()
    rows = [line.replace("\t", ",").replace(";", ",").split(",") for line in lines if line[:1].isdigit()]
    return np.array(rows, dtype=np.float64).reshape(-1, columns)
