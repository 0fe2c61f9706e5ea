"""How far off is a line through two sizes when it is drawn on to a larger one? Peak memory on a CPU, size by size.

    python benchmarks/memory_curves.py --out benchmarks/memory_curves.json

Each size is measured in a new process, as `rightbatch memory` does. Then every pair of sizes, one at most half of the
other, predicts every size from 1.2 to 2.5 times the larger one: how far off it is, relative to the measured increase
over the process before the model, and how often the 90 % interval has it. Once more with the C library told to keep no
freed blocks (MALLOC_MMAP_THRESHOLD_, Linux): what is left is what the tensors take.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rightbatch.fit.memory import CURVATURE_OF_HEAPS, fit_memory
from rightbatch.pipeline.runners import as_runner, maker_of
from rightbatch.probing import Allowance, Prober
from rightbatch.worker import Setup
from rightbatch.workers import pickled_maker

SIZES = {
    "fashion_mnist:mlp": (4, 1000, 4000, 8000, 12000, 16000, 20000, 25000, 30000, 36000, 42000, 50000),
    "fashion_mnist:cnn": (4, 256, 512, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10000),
    "char_lm:gru": (4, 64, 128, 256, 400, 500, 600, 700, 900, 1100, 1300, 1500, 1700),
    "char_lm:transformer": (4, 64, 128, 256, 400, 500, 600, 700, 800, 1000, 1200, 1500, 2000),
}
LEAST = 100e6
"""Bytes: smaller increases are not drawn on."""

LARGE = 500e6
"""Bytes: increases from here on are those that have to be predicted."""

KEEP_NOTHING = "MALLOC_MMAP_THRESHOLD_"


def increases(workload: str) -> dict[int, float]:
    """Bytes over those of the process before the model."""
    runner = as_runner(workload, threads=1)
    setup = Setup.of(pickled_maker(maker_of(workload, runner, threads=1)), 1)
    found = {}
    with Prober(Allowance(setup, 10**10, None, 0.0, on_cpu=True)) as prober:
        for size in SIZES[workload]:
            probe = prober.probe(size, size, fresh=True)
            assert probe.training_bytes is not None, probe.why
            found[size] = float(probe.training_bytes - probe.before_bytes)
    return found


def drawn_on(taken: dict[int, float]) -> Iterator[tuple[float, bool, float]]:
    """Of each prediction: its relative error, whether the interval has the measured increase, and that increase."""
    first = min(taken)
    for small, large in itertools.combinations(taken, 2):
        if first < small <= large / 2 and taken[large] >= LEAST:
            fit = fit_memory({size: taken[size] for size in (first, small, large)}, CURVATURE_OF_HEAPS)
            for size, truth in taken.items():
                if 1.2 * large <= size <= 2.5 * large:
                    said = fit.predict(size)
                    assert said.low is not None
                    assert said.high is not None
                    yield said.estimate / truth - 1, said.low <= truth <= said.high, truth


def judged(taken: dict[int, float]) -> dict[str, Any]:
    errors, covered, truths = (np.array(column) for column in zip(*drawn_on(taken), strict=True))
    errors_of_large = errors[truths >= LARGE]
    return {
        "predictions": len(errors),
        "root_mean_square_error": float(np.sqrt(np.mean(errors**2))),
        "mean_error": float(errors.mean()),
        "worst_error": float(errors[np.argmax(np.abs(errors))]),
        "of_500_MB_or_more": len(errors_of_large),
        "of_those_within_10_percent": float(np.mean(np.abs(errors_of_large) <= 0.1)) if len(errors_of_large) else None,
        "covered_by_the_90_percent_interval": float(covered.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/memory_curves.json"))
    given = parser.parse_args()
    rows = []
    for heap, workload in itertools.product(("as it is", "keeps nothing"), SIZES):
        if heap == "as it is":
            os.environ.pop(KEEP_NOTHING, None)
        else:
            os.environ[KEEP_NOTHING] = "65536"
        taken = increases(workload)
        rows.append({"workload": workload, "heap": heap, "increase_bytes": taken, **judged(taken)})
        print(json.dumps(rows[-1]), flush=True)
    record = {
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, 1 thread, torch {torch.__version__}",
        "date": time.strftime("%Y-%m-%d"),
        "rows": rows,
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
