"""What watching the gradient noise costs: time per step with the monitor over that without, in turns in one process.

    python benchmarks/noise_overhead.py --turns 60 --out benchmarks/noise_overhead.json

Four models at batch size 64 on random data, one thread: a bare loop; the monitor with its default share of 2 %; the
monitor at every step; and what others do at every step. BackPACK's BatchL2Grad, where it is installed
(pip install backpack-for-pytorch) and knows the layers; hooks on linear layers that multiply norms, which is exact for
an MLP (written out); two micro-batches instead of one batch, as k-diffusion does (written out). Each turn takes a short
block of steps of all of them in random order. The ratio is that of the whole times; its interval is from resampling the
turns.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rightbatch.gradients.monitor import NoiseScale

BATCH = 64


class Recurrent(nn.Module):
    """Embedding, GRU, and a layer over the characters, at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.gru, self.head = (
            nn.Embedding(64, 32),
            nn.GRU(32, 128, batch_first=True),
            nn.Linear(128, 64),
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(self.embedding(tokens))[0]).transpose(1, 2)


class Transformer(nn.Module):
    """Two blocks of width 64 over 32 characters, of plain modules."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(64, 64), nn.Linear(64, 64)
        self.blocks = nn.ModuleList(Block() for _ in range(2))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x).transpose(1, 2)


class Block(nn.Module):
    """Attention and a network, each behind a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(64), nn.LayerNorm(64)
        self.mix, self.project = nn.Linear(64, 192), nn.Linear(64, 64)
        self.network = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.mix(self.first(x)).unflatten(2, (3, 4, 16)).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(*parts.unbind(0), is_causal=True)
        x = x + self.project(seen.transpose(1, 2).flatten(2))
        return x + self.network(self.second(x))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


TOKENS = torch.randint(64, (BATCH, 32))
MODELS: dict[str, tuple[Callable[[], nn.Module], torch.Tensor, torch.Tensor]] = {
    "mlp": (mlp, torch.randn(BATCH, 784), torch.randint(10, (BATCH,))),
    "cnn": (cnn, torch.randn(BATCH, 1, 28, 28), torch.randint(10, (BATCH,))),
    "gru": (Recurrent, TOKENS, TOKENS),
    "transformer": (Transformer, TOKENS, TOKENS),
}


def stepper(name: str, variant: str) -> tuple[Callable[[], None], NoiseScale | None]:
    """A function that makes one step of a model, watched or not."""
    make, x, y = MODELS[name]
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss: nn.Module = nn.CrossEntropyLoss()
    if variant in PEERS:
        return PEERS[variant](model, optimizer, loss, x, y), None
    monitor = None
    if variant == "monitor":
        monitor = NoiseScale(model, optimizer)
    elif variant == "every step":
        monitor = NoiseScale(model, optimizer, overhead=math.inf)

    def step() -> None:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()

    return step, monitor


def backpack_norms(model: Any, optimizer: Any, loss: Any, x: Any, y: Any) -> Callable[[], None]:
    """BackPACK's squared norms of the gradients of single examples."""
    import backpack

    model, loss = backpack.extend(model), backpack.extend(loss)

    def step() -> None:
        optimizer.zero_grad()
        with backpack.backpack(backpack.extensions.BatchL2Grad()):
            loss(model(x), y).backward()
        optimizer.step()

    return step


def product_of_norms(model: Any, optimizer: Any, loss: Any, x: Any, y: Any) -> Callable[[], None]:
    """The squared norm of the output's gradient times that of the input, of every linear layer."""
    found: list[torch.Tensor] = []

    def forward(module: Any, entered: Any, output: Any) -> None:
        module.entered = entered[0].detach()

    def backward(module: Any, _: Any, gradient: Any) -> None:
        found.append((gradient[0].square().sum(1) * module.entered.square().sum(1)).sum())

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(forward)
            module.register_full_backward_hook(backward)

    def step() -> None:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        whole = torch.stack([parameter.grad.square().sum() for parameter in model.parameters()]).sum()
        float(whole), float(torch.stack(found).sum())
        found.clear()
        optimizer.step()

    return step


def two_micro_batches(model: Any, optimizer: Any, loss: Any, x: Any, y: Any) -> Callable[[], None]:
    """The squared norms of the gradients of both halves of the batch, and of the whole."""

    def step() -> None:
        optimizer.zero_grad()
        (loss(model(x[: BATCH // 2]), y[: BATCH // 2]) / 2).backward()
        first = [parameter.grad.clone() for parameter in model.parameters()]
        (loss(model(x[BATCH // 2 :]), y[BATCH // 2 :]) / 2).backward()
        whole = [parameter.grad for parameter in model.parameters()]
        second = torch._foreach_sub(whole, first)
        for gradients in (first, second, whole):
            float(torch.stack(torch._foreach_norm(gradients)).square().sum())
        optimizer.step()

    return step


PEERS: dict[str, Callable[..., Callable[[], None]]] = {
    "BackPACK": backpack_norms,
    "product of norms": product_of_norms,
    "two micro-batches": two_micro_batches,
}


def offered(name: str) -> list[str]:
    """The variants that there are for a model."""
    ours = ["bare", "bare again", "monitor", "every step", "two micro-batches"]
    ours += ["BackPACK"] if find_spec("backpack") is not None and name in ("mlp", "cnn") else []
    return [*ours, "product of norms"] if name == "mlp" else ours


def measured(name: str, turns: int, steps: int) -> list[dict[str, Any]]:
    """Ratios of every variant to the bare loop."""
    variants = offered(name)
    made = {variant: stepper(name, variant) for variant in variants}
    for step, _ in made.values():
        for _ in range(10):
            step()
    seconds = np.zeros((turns, len(variants)))
    order = np.random.default_rng(0)
    for turn in range(turns):
        for column in order.permutation(len(variants)):
            step, _ = made[variants[column]]
            began = time.perf_counter()
            for _ in range(steps):
                step()
            seconds[turn, column] = (time.perf_counter() - began) / steps
    again = order.integers(turns, size=(2000, turns))
    rows = []
    for column, variant in enumerate(variants):
        monitor = made[variant][1]
        ratios = seconds[again, column].sum(axis=1) / seconds[again, 0].sum(axis=1)
        rows.append(
            {
                "model": name,
                "variant": variant,
                "step_seconds": float(np.median(seconds[:, column])),
                "over_bare": float(seconds[:, column].sum() / seconds[:, 0].sum()),
                "interval": np.quantile(ratios, [0.025, 0.975]).tolist(),
                "sampled_steps": len(monitor.samples) if monitor else None,
                "uncovered": sorted(monitor.uncovered) if monitor else None,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/noise_overhead.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Full backward hook is firing")  # of a first layer
    rows = [row for name in MODELS for row in measured(name, given.turns, given.steps)]
    machine = {"python": platform.python_version(), "torch": torch.__version__.split("+")[0], "threads": 1}
    command = f"python benchmarks/noise_overhead.py --turns {given.turns} --steps {given.steps}"
    given.out.write_text(json.dumps({"command": command, "machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
