"""What the engine costs beside a loop written by hand: `python benchmarks/engine_overhead.py [--out FILE.json]`.

fashion_mnist:mlp, one thread, evaluation excluded. The two sides take turns, whole epochs at a time and at least half a
second each, and change places every turn; the only results are ratios of neighbours. The same hand-written loop runs
twice in each turn, and the ratio of its two times is the noise floor. A bar is kept or missed when the 95 % interval of
the median says so (order statistics, no assumption on the noise), else the run was too noisy to tell.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from scipy.stats import binom
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from rightbatch.bundled import WORKLOADS
from rightbatch.engine import WorkloadRunner
from rightbatch.records import Trial, to_json
from rightbatch.stepping import Stepper
from rightbatch.workload import Workload

CASES = [("tensors", 32), ("tensors", 256), ("loader", 32), ("loader", 256), ("loader", 1024)]
BARS = {"tensors": 1.05, "loader": 1.02}
RATE, SEED = 0.1, 0

Epochs = Callable[[int], None]


@dataclass(frozen=True)
class Row:
    """Ours over by hand, and by hand over by hand (the noise floor), one ratio a turn."""

    against: str
    batch_size: int
    epochs_a_side: int
    ratios: tuple[float, ...]
    noise: tuple[float, ...]
    bar: float


def by_hand_over_tensors(workload: Workload, trial: Trial) -> Epochs:
    """What a good practitioner writes over tensors in memory."""
    inputs, labels = workload.data
    model, optimizer = _model_and_optimizer(workload, trial)
    generator = torch.Generator().manual_seed(SEED)
    count, size = len(inputs), trial.batch_size

    def epochs(number: int) -> None:
        for _ in range(number):
            order = torch.randperm(count, generator=generator)
            for start in range(0, count - size + 1, size):
                indices = order[start : start + size]
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(inputs[indices]), labels[indices])
                loss.backward()
                optimizer.step()

    return epochs


def by_hand_over_a_loader(workload: Workload, trial: Trial) -> Epochs:
    """The same with torch's `DataLoader` over a `TensorDataset`."""
    model, optimizer = _model_and_optimizer(workload, trial)
    generator = torch.Generator().manual_seed(SEED)
    dataset = TensorDataset(*workload.data)
    loader = DataLoader(dataset, batch_size=trial.batch_size, shuffle=True, drop_last=True, generator=generator)

    def epochs(number: int) -> None:
        for _ in range(number):
            for inputs, labels in loader:
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(inputs), labels)
                loss.backward()
                optimizer.step()

    return epochs


def ours(workload: Workload, trial: Trial) -> Epochs:
    """Our own inner loop, over whatever data the workload has."""
    torch.manual_seed(SEED)
    stepper = Stepper(workload, trial)
    steps_an_epoch = len(stepper.source) // trial.batch_size

    def epochs(number: int) -> None:
        stepper.run(number * steps_an_epoch)

    return epochs


def _model_and_optimizer(workload: Workload, trial: Trial) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(SEED)
    model = workload.model()
    return model, workload.optimizer(model.parameters(), trial)


def seconds_of(epochs: Epochs, number: int) -> float:
    """How long so many epochs take."""
    started = time.perf_counter()
    epochs(number)
    return time.perf_counter() - started


def measure(workload: Workload, against: str, batch_size: int, *, turns: int, seconds: float) -> Row:
    """Ours, by hand, by hand again; the next turn in the opposite order, so that by hand is always a neighbour."""
    trial = workload.complete(Trial(batch_size, RATE, SEED))
    by_hand = by_hand_over_tensors if against == "tensors" else by_hand_over_a_loader
    data = workload.data if against == "tensors" else TensorDataset(*workload.data)
    sides = [ours(replace(workload, data=data), trial), by_hand(workload, trial), by_hand(workload, trial)]
    once = min(seconds_of(side, 1) for side in sides)  # also the warm-up of each
    epochs = max(1, math.ceil(1.2 * seconds / once))
    times: list[dict[int, float]] = []
    for turn in range(turns):
        order = (0, 1, 2) if turn % 2 == 0 else (2, 1, 0)
        times.append({side: seconds_of(sides[side], epochs) for side in order})
    ratios, noise = (tuple(turn[side] / turn[1] for turn in times) for side in (0, 2))
    return Row(against, batch_size, epochs, ratios, noise, BARS[against])


def interval_of_the_median(ratios: tuple[float, ...]) -> tuple[float, float]:
    """At 95 %: the order statistics that enclose it whatever the distribution."""
    inside = max(1, int(binom.ppf(0.025, len(ratios), 0.5)))
    return sorted(ratios)[inside - 1], sorted(ratios)[-inside]


def main() -> None:
    """Measure all cases, print the table, write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the ratios and the environment to this JSON file")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="least time of one side of a turn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    workload = WORKLOADS["fashion_mnist:mlp"].make()
    environment = WorkloadRunner(workload).environment
    print(f"{environment.processor}, {environment.device}, {environment.threads} thread, {environment.precision}")
    print(f"Python {environment.python}, torch {environment.torch}, rightbatch {environment.rightbatch}")
    print(f"fashion_mnist:mlp, ratios of seconds, median of {options.turns} turns [95 % interval] (min-max)\n")
    print(f"{'against':<9}{'B':>5}   {'ours / by hand':<36}{'by hand / by hand':<36}bar")
    rows = []
    for against, batch_size in CASES:
        row = measure(workload, against, batch_size, turns=options.turns, seconds=options.seconds)
        rows.append(row)
        low, high = interval_of_the_median(row.ratios)
        verdict = "kept" if high <= row.bar else "MISSED" if low > row.bar else "too noisy to tell"
        spreads = f"{_spread(row.ratios):<36}{_spread(row.noise):<36}"
        print(f"{against:<9}{batch_size:>5}   {spreads}{row.bar:<6}{verdict}", flush=True)
    if options.out:
        written = {"environment": to_json(environment), "rows": [asdict(row) for row in rows]}
        options.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def _spread(ratios: tuple[float, ...]) -> str:
    low, high = interval_of_the_median(ratios)
    return f"{statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}] ({min(ratios):.3f}-{max(ratios):.3f})"


if __name__ == "__main__":
    main()
