"""Five small problems of different kinds, each trained in seconds: their recorded tables judge searches by replay.

The planned length is more than any size sees within the limit of a run, and runs are evaluated from 1 % of it on, on a
small fixed part of the validation data: evaluating costs little beside training. See README.md for the commands.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional

from rightbatch import Trial, Workload
from rightbatch.bundled import char_lm, fashion_mnist, tabular

WINDOW = 32
"""Characters that are predicted in one example of text."""

WIDTH, HEADS = 32, 2
"""Of the transformer."""


def make_fashion_cnn() -> Workload:
    """Fashion-MNIST by two convolutions with stride and a linear layer; SGD with momentum 0.9."""

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(400, 10),
        )

    return replace(
        fashion_mnist.cnn(),
        name="fashion_cnn",
        model=model,
        target=0.85,
        planned_examples=260_000,
        evaluation_examples=2000,
    )


def make_char_gru() -> Workload:
    """Characters of Shakespeare by 64 gated recurrent units over 32 characters; Adam, gradients clipped to norm 1."""
    return replace(
        _short_windows(char_lm.gru()),
        name="char_gru",
        model=SmallGRU,
        target=2.15,
        planned_examples=52_000,
    )


def make_char_transformer() -> Workload:
    """Characters of Shakespeare by one transformer block of width 32 over 32 characters; Adam."""
    return replace(
        _short_windows(char_lm.transformer()),
        name="char_transformer",
        model=SmallTransformer,
        target=2.3,
        planned_examples=65_000,
    )


def make_protein_regression() -> Workload:
    """Distance of protein decoys by an MLP 9-256-256-1; plain SGD. The metric is the squared error, of the variance."""
    return replace(
        tabular.protein(),
        name="protein_regression",
        model=lambda: nn.Sequential(nn.Linear(9, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1)),
        settings={"momentum": 0.0},
        target=0.6,
        planned_examples=700_000,
        evaluation_examples=2000,
    )


def make_fashion_logistic() -> Workload:
    """Fashion-MNIST by logistic regression on 512 fixed random features; plain SGD, judged by the validation loss."""
    return replace(
        fashion_mnist.mlp(),
        name="fashion_logistic",
        model=lambda: nn.Sequential(FixedFeatures(), nn.Linear(512, 10)),
        settings={"momentum": 0.0},
        metric=None,
        direction="min",
        target=0.45,
        planned_examples=440_000,
        evaluation_examples=2000,
    )


class FixedFeatures(nn.Module):
    """The same 512 random features in every run, never trained: `[batch_size, 1, 28, 28]` to `[batch_size, 512]`.

    They give a step of a convex problem a cost that grows with its batch, as the frozen body of a larger model would.
    """

    weights: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        weights = torch.randn(784, 512, generator=torch.Generator().manual_seed(0)) / 28
        self.register_buffer("weights", weights)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(images.flatten(1) @ self.weights)


class SmallGRU(nn.Module):
    """Embedding, one layer of gated recurrent units, logits: `[batch_size, window]` to `[batch_size, window, 65]`."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(65, 32)
        self.recurrent = nn.GRU(32, 64, batch_first=True)
        self.head = nn.Linear(64, 65)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.recurrent(self.embedding(text))
        return self.head(hidden)  # type: ignore[no-any-return]


class SmallTransformer(nn.Module):
    """Characters and places, one block of causal attention and a two-layer network, logits of the next character."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(65, WIDTH)
        nn.init.normal_(self.embedding.weight, std=0.02)  # as small as the places, which else drown in it
        self.place = nn.Parameter(0.02 * torch.randn(WINDOW, WIDTH))
        self.before_attention, self.before_network = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.queries_keys_values = nn.Linear(WIDTH, 3 * WIDTH)
        self.attended = nn.Linear(WIDTH, WIDTH)
        self.network = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 65))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.embedding(text) + self.place
        parts = self.queries_keys_values(self.before_attention(x)).chunk(3, dim=-1)
        queries, keys, values = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.attended(mixed.transpose(1, 2).flatten(2))
        return self.head(x + self.network(self.before_network(x)))  # type: ignore[no-any-return]


def adam(parameters: Iterable[nn.Parameter], trial: Trial) -> torch.optim.Optimizer:
    """Adam at the trial's rate."""
    return torch.optim.Adam(parameters, lr=trial.learning_rate)


def _short_windows(workload: Workload) -> Workload:
    """The same text in windows of 32 characters, by Adam, evaluated on 600 of them."""
    return replace(
        workload,
        data=_halves(workload.data),
        valid=_halves(workload.valid),
        optimizer=adam,
        settings={},
        present=(32, 0.003),
        evaluation_examples=600,  # 19,200 characters
        evaluation_batch_size=200,
    )


def _halves(windows: torch.Tensor) -> torch.Tensor:
    """Windows of 64 characters and the one after as twice as many of 32 and the one after: each is predicted once."""
    return torch.cat([windows[:, : WINDOW + 1], windows[:, WINDOW:]])
