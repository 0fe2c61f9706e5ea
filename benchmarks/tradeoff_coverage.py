"""Do nominal 95 % intervals of the critical batch size hold the truth in 95 of 100 cases?

    python benchmarks/tradeoff_coverage.py [--repeats 500] [--out FILE.json]

Steps are drawn from the law S_min (1 + B_crit / B) itself, with lognormal noise between seeds: 6 to 10 sizes from 8 on
in factors of two, B_crit log-uniform within the inner half of the sizes, 2, 3 or 5 seeds, deviation .05, .1 or .2.
Prints the coverage of every cell, for B_crit and for S_min, and fails where that of B_crit is outside 92 to 98 %.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import scipy

from rightbatch.fit.tradeoff import fit_tradeoff

SIZES, DEVIATIONS, SEEDS = (6, 7, 8, 9, 10), (0.05, 0.1, 0.2), (2, 3, 5)
LOW, HIGH = 0.92, 0.98
MINIMUM_STEPS = 100.0


def coverage(
    sizes: int, deviation: float, seeds: int, repeats: int, generator: np.random.Generator
) -> dict[str, float]:
    """Shares of intervals that hold the truth, and of those that are unbounded, in one cell."""
    batch_sizes = 2.0 ** np.arange(3, 3 + sizes)
    ends = np.quantile(np.log(batch_sizes), [0.25, 0.75])
    critical_held = minimum_held = unbounded = 0
    for _ in range(repeats):
        critical = float(np.exp(generator.uniform(*ends)))
        expected = MINIMUM_STEPS * (1 + critical / batch_sizes)
        logs = np.log(expected)[:, None] + deviation * generator.standard_normal((sizes, seeds))
        fit = fit_tradeoff(batch_sizes.tolist(), np.exp(logs.mean(axis=1)).tolist())
        critical_held += critical in fit.critical_batch_size
        minimum_held += MINIMUM_STEPS in fit.minimum_steps
        unbounded += fit.critical_batch_size.note != ""
    return {
        "sizes": sizes,
        "deviation": deviation,
        "seeds": seeds,
        "critical_batch_size": critical_held / repeats,
        "minimum_steps": minimum_held / repeats,
        "unbounded": unbounded / repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    cells = []
    print("sizes  sd    seeds  B_crit  S_min   unbounded")
    for sizes in SIZES:
        for deviation in DEVIATIONS:
            for seeds in SEEDS:
                cell = coverage(sizes, deviation, seeds, arguments.repeats, generator)
                cells.append(cell)
                print(
                    f"{sizes:5}  {deviation:<4}  {seeds:5}  {cell['critical_batch_size']:.3f}   "
                    f"{cell['minimum_steps']:.3f}   {cell['unbounded']:.3f}",
                    flush=True,
                )
    shares = [cell["critical_batch_size"] for cell in cells]
    outside = sum(not LOW <= share <= HIGH for share in shares)
    print(
        f"B_crit: mean {np.mean(shares):.3f}, from {min(shares):.3f} to {max(shares):.3f}; outside 92-98 %: {outside}"
    )
    print(f"S_min: mean {np.mean([cell['minimum_steps'] for cell in cells]):.3f}")
    if arguments.out:
        machine = {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}
        command = f"python benchmarks/tradeoff_coverage.py --repeats {arguments.repeats} --seed {arguments.seed}"
        arguments.out.write_text(json.dumps({"command": command, "machine": machine, "cells": cells}, indent=1) + "\n")
    raise SystemExit(1 if outside else 0)


if __name__ == "__main__":
    main()
