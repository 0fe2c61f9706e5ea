"""A plateau before the target: the adding problem of Hochreiter and Schmidhuber (1997), by an LSTM.

    python benchmarks/adding.py --out benchmarks/adding.json

Of 60 numbers two are marked, their sum is asked for. Every run soon predicts the mean (0.165) and stays there until it
has learned to remember. `find` is given the loop as it is, which has no end; then all cells about its choice are
trained with two other seeds, and what it said of every batch size is held against that, at the same step times.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import rightbatch
from rightbatch import Loop, LoopTrial, Point
from rightbatch.lattice import index_of, rate_at
from rightbatch.machine import processor

TRAIN, VALID, LENGTH, WIDTH = 6000, 1000, 60, 32
SIZES = (8, 16, 32, 64, 128, 256, 512)
LONGEST = 120_000
"""Examples after which a run of the grid is given up."""


def sums(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sequences of (number, mark), shape `[n, LENGTH, 2]`, and the sums of the marked numbers, `[n]`."""
    numbers = torch.rand(n, LENGTH, generator=generator)
    places = torch.rand(n, LENGTH, generator=generator).argsort(1)[:, :2]
    marks = torch.zeros(n, LENGTH).scatter_(1, places, 1.0)
    return torch.stack([numbers, marks], 2), (numbers * marks).sum(1)


class Adder(nn.Module):
    """An LSTM, and the sum from its last state; `[n, LENGTH, 2]` to `[n]`."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = nn.LSTM(2, WIDTH, batch_first=True)
        self.says = nn.Linear(WIDTH, 1)

    def forward(self, sequences: Tensor) -> Tensor:
        states, _ = self.reads(sequences)
        said: Tensor = self.says(states[:, -1])[:, 0]
        return said


def train(trial: LoopTrial) -> Iterator[Point]:
    """Adam, clipped gradients, on and on."""
    with trial.evaluating():
        generator = torch.Generator().manual_seed(0)
        (sequences, targets), (unseen, wanted) = sums(TRAIN, generator), sums(VALID, generator)
        torch.manual_seed(trial.seed)
        model = Adder()
        optimizer = torch.optim.Adam(model.parameters(), lr=trial.learning_rate)
    step = 0
    while trial.planned_steps is None or step < trial.planned_steps:
        for chosen in torch.randperm(TRAIN).split(trial.batch_size):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(sequences[chosen]), targets[chosen]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            if trial.due(step):
                with torch.no_grad():
                    yield Point(step, valid_loss=float(nn.functional.mse_loss(model(unseen), wanted)))


LOOP = Loop(train, name="adding", train_examples=TRAIN, present=(32, 0.003), target=0.03)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("adding.json"))
    out = parser.parse_args().out
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "adding.study.db"
        found = rightbatch.find(LOOP, study=study, batch_sizes=SIZES)
        with rightbatch.Study.open(study) as kept:
            searched = len(kept.runs())
        rates = [rate_at(index_of(found.learning_rate) + k) for k in (-3, -2, -1, 0, 1)]
        grid = rightbatch.sweep(
            replace(LOOP, planned_examples=LONGEST), SIZES, study=study, rates=rates, seeds=(10, 11), until="target"
        )
    true = {row.batch_size: row.cost.estimate for row in grid.sizes if row.cost is not None}
    told = {row.batch_size: row.cost.estimate for row in found.sizes if row.cost is not None}
    result = {
        "command": "python benchmarks/adding.py",
        "machine": processor(),
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "found": [found.batch_size, found.learning_rate],
        "runs": searched,
        "spent_seconds": {name: round(seconds, 1) for name, seconds in found.spent_seconds.items()},
        "best of the grid": [grid.batch_size, grid.learning_rate],
        "found over the best": round(true[found.batch_size] / true[grid.batch_size], 3),
        "told over trained": {size: round(told[size] / true[size], 2) for size in SIZES if size in true},
    }
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
