"""Characters of Shakespeare: a GRU, an LSTM and a transformer that predict the next one.

The text is tiny Shakespeare (A. Karpathy, char-rnn, 2015; the plays are in the public domain): 1,115,394 characters,
65 kinds of them. The first 90 % train, the rest validates. An example is a window of 64 characters; windows do not
overlap, and the loss of an example is the mean over its window, in nats a character. The state of a recurrent model
starts anew in every window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn import functional

from rightbatch.bundled.data import DataFile, find, read_text
from rightbatch.errors import DataError
from rightbatch.records import Trial
from rightbatch.workload import Workload

FILE = DataFile(
    "tinyshakespeare/input.txt",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)
CHARACTERS = 1_115_394
WINDOW = 64
"""Characters that are predicted in one example."""
EMBEDDING, HIDDEN, HEADS, BLOCKS = 64, 128, 4, 2


def gru() -> Workload:
    """One layer of 128 gated recurrent units (87 thousand parameters), to 1.8 nats a character.

    Batch size 32 at rate 0.003 reaches it after 18,000 windows, a bit more than one pass.
    """
    return _workload("char_lm:gru", lambda kinds: Recurrent(nn.GRU, kinds), target=1.8, max_gradient_norm=1.0)


def lstm() -> Workload:
    """One layer of 128 LSTM units (112 thousand parameters), to 1.8 nats a character.

    Batch size 32 at rate 0.0056 reaches it after 18,000 windows, a bit more than one pass.
    """
    return _workload("char_lm:lstm", lambda kinds: Recurrent(nn.LSTM, kinds), target=1.8, max_gradient_norm=1.0)


def transformer() -> Workload:
    """Two transformer blocks of width 64 with four heads (113 thousand parameters), to 1.95 nats a character.

    Batch size 32 at rate 0.003 reaches it after 23,000 windows, one pass and a half.
    """
    return _workload("char_lm:transformer", Transformer, target=1.95, max_gradient_norm=None)


class Recurrent(nn.Module):
    """Embedding, one recurrent layer, logits of the next character: `[batch_size, window]` to `[..., kinds]`."""

    def __init__(self, layer: type[nn.GRU] | type[nn.LSTM], kinds: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(kinds, EMBEDDING)
        self.recurrent = layer(EMBEDDING, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, kinds)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.recurrent(self.embedding(text))
        return self.head(hidden)  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Embeddings of characters and places, blocks, logits of the next character."""

    def __init__(self, kinds: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(kinds, EMBEDDING)
        nn.init.normal_(self.embedding.weight, std=0.02)  # as small as the places, which else drown in it
        self.place = nn.Parameter(0.02 * torch.randn(WINDOW, EMBEDDING))
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.head = nn.Sequential(nn.LayerNorm(EMBEDDING), nn.Linear(EMBEDDING, kinds))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.embedding(text) + self.place))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Causal attention and a two-layer network, each normalised before and added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_network = nn.LayerNorm(EMBEDDING), nn.LayerNorm(EMBEDDING)
        self.queries_keys_values = nn.Linear(EMBEDDING, 3 * EMBEDDING)
        self.attended = nn.Linear(EMBEDDING, EMBEDDING)
        self.network = nn.Sequential(
            nn.Linear(EMBEDDING, 4 * EMBEDDING), nn.GELU(), nn.Linear(4 * EMBEDDING, EMBEDDING)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.queries_keys_values(self.before_attention(x)).chunk(3, dim=-1)
        queries, keys, values = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.attended(mixed.transpose(1, 2).flatten(2))
        return x + self.network(self.before_network(x))  # type: ignore[no-any-return]


def next_character(model: nn.Module, windows: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the next character in nats, the mean over each window: `[batch_size, 65]` to `[batch_size]`."""
    targets = windows[:, 1:]
    logits = model(windows[:, :-1])
    losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return losses.view_as(targets).mean(dim=1)


def adamw(parameters: Iterable[nn.Parameter], trial: Trial) -> torch.optim.Optimizer:
    """AdamW at the trial's rate, with its settings `beta2` and `weight_decay`."""
    beta2, weight_decay = float(trial.settings["beta2"]), float(trial.settings["weight_decay"])
    return torch.optim.AdamW(parameters, lr=trial.learning_rate, betas=(0.9, beta2), weight_decay=weight_decay)


def windows_of(codes: torch.Tensor) -> torch.Tensor:
    """A text as windows of 64 characters and the one after, shape `[n, 65]`: each character is predicted once."""
    return codes.unfold(0, WINDOW + 1, WINDOW).contiguous()


def _load() -> tuple[torch.Tensor, torch.Tensor, int]:
    """Training windows, validation windows, and how many kinds of characters there are."""
    path = find(FILE)
    text = read_text(path)
    if len(text) != CHARACTERS:
        raise DataError(f"{path} has {len(text)} characters, expected {CHARACTERS}. Delete it and run again.")
    kinds = {character: code for code, character in enumerate(sorted(set(text)))}
    codes = torch.tensor([kinds[character] for character in text])
    boundary = len(codes) * 9 // 10
    return windows_of(codes[:boundary]), windows_of(codes[boundary:]), len(kinds)


def _workload(
    name: str, model: Callable[[int], nn.Module], *, target: float, max_gradient_norm: float | None
) -> Workload:
    train, valid, kinds = _load()
    return Workload(
        name=name,
        model=lambda: model(kinds),
        data=train,
        valid=valid,
        loss=next_character,
        optimizer=adamw,
        max_gradient_norm=max_gradient_norm,
        settings={"beta2": 0.999, "weight_decay": 0.01},
        present=(32, 0.001),
        target=target,
        planned_examples=4 * len(train),
        evaluation_examples=500,  # 32,000 characters: to evaluate them all would cost as much as training
        evaluation_batch_size=100,  # what fits the cache of a core is faster
    )
