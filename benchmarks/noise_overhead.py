"""What watching the gradient noise costs: time per step with the monitor over that without, in turns in one process.

    python benchmarks/noise_overhead.py --turns 15 --out benchmarks/noise_overhead.json

Four models at batch size 64 on random data, one thread: a bare loop; the monitor with its default share of 2 %; the
monitor at every step; and, where it is installed (pip install backpack-for-pytorch), BackPACK's BatchL2Grad at every
step, on the two models whose layers it knows. Each turn takes blocks of steps of all of them, in an order that changes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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
    monitor = None
    if variant == "monitor":
        monitor = NoiseScale(model, optimizer)
    elif variant == "every step":
        monitor = NoiseScale(model, optimizer, overhead=math.inf)

    def step() -> None:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()

    if variant != "backpack":
        return step, monitor
    import backpack

    model, loss = backpack.extend(model), backpack.extend(loss)

    def extended() -> None:
        optimizer.zero_grad()
        with backpack.backpack(backpack.extensions.BatchL2Grad()):
            loss(model(x), y).backward()
        optimizer.step()

    return extended, None


def measured(name: str, turns: int, steps: int) -> list[dict[str, Any]]:
    """Ratios of every variant to the bare loop of the same turn."""
    variants = ["bare", "bare again", "monitor", "every step"]
    if find_spec("backpack") is not None and name in ("mlp", "cnn"):
        variants.append("backpack")
    made = {variant: stepper(name, variant) for variant in variants}
    for step, _ in made.values():
        for _ in range(10):
            step()
    seconds: dict[str, list[float]] = {variant: [] for variant in variants}
    orders = itertools.cycle(itertools.permutations(variants))
    for _ in range(turns):
        for variant in next(orders):
            step, _ = made[variant]
            began = time.perf_counter()
            for _ in range(steps):
                step()
            seconds[variant].append((time.perf_counter() - began) / steps)
    rows = []
    for variant in variants:
        monitor = made[variant][1]
        ratios = sorted(mine / bare for mine, bare in zip(seconds[variant], seconds["bare"], strict=True))
        rows.append(
            {
                "model": name,
                "variant": variant,
                "step_seconds": statistics.median(seconds[variant]),
                "over_bare": statistics.median(ratios),
                "quartiles": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
                "sampled_steps": len(monitor.samples) if monitor else None,
                "uncovered": sorted(monitor.uncovered) if monitor else None,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/noise_overhead.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for name in MODELS for row in measured(name, given.turns, given.steps)]
    machine = {"python": platform.python_version(), "torch": torch.__version__.split("+")[0], "threads": 1}
    command = f"python benchmarks/noise_overhead.py --turns {given.turns} --steps {given.steps}"
    given.out.write_text(json.dumps({"command": command, "machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
