"""Tables whose times to a target are known exactly: the metric is the log of steps over the steps needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rightbatch.tables import COLUMNS, write_rows

SIZES, RATES = (4, 16, 32, 64, 256), (0.01, 0.03, 0.1, 0.3, 1.0)
TARGET, CAP_SECONDS = 0.0, 3.0


def step_seconds(size: int) -> float:
    return 1e-3 + 1e-5 * size


def steps_needed(size: int, rate: float, seed: int, noise: float) -> float:
    """S_min (1 + B_crit / B), times a parabola in log rate around 0.1 (64 / B)^-0.5, times noise between seeds."""
    off = math.log10(rate / 0.1) - 0.5 * math.log10(size / 64)
    draw = np.random.default_rng([size, round(1000 * rate), seed]).standard_normal()
    return float(60 * (1 + 64 / size) * math.exp(2.5 * off**2 + noise * draw))


def seconds_needed(size: int, rate: float, seed: int = 0, noise: float = 0.0) -> float:
    return steps_needed(size, rate, seed, noise) * step_seconds(size)


def write_table(
    path: Path,
    *,
    sizes: tuple[int, ...] = SIZES,
    rates: tuple[float, ...] = RATES,
    seeds: Callable[[int, float], int] = lambda size, rate: 3,
    noise: float = 0.1,
    diverges: Callable[[int, float], bool] = lambda size, rate: False,
    broken: Callable[[int, float], bool] = lambda size, rate: False,
    cap_seconds: float = CAP_SECONDS,
) -> Path:
    """A table. Where it `diverges` a run ends after a few points; where it is `broken` every third value is NaN.

    A cell with 0 seeds is left out.
    """
    rows: list[Mapping[str, Any]] = []
    for size in sizes:
        for rate in rates:
            for seed in range(seeds(size, rate)):
                needed = steps_needed(size, rate, seed, noise)
                last = cap_seconds / step_seconds(size)
                steps = sorted({*(round(4 * 1.1**k) for k in range(80) if 4 * 1.1**k < last), round(last)})
                for k, step in enumerate(steps[:6] if diverges(size, rate) else steps):
                    value = math.log(step / needed) if not diverges(size, rate) else -5.0 - k
                    rows.append(
                        {
                            "workload": path.name,
                            "batch_size": size,
                            "learning_rate": rate,
                            "seed": seed,
                            "step": step,
                            "examples": step * size,
                            "seconds": step * step_seconds(size),
                            "train_loss": 1.0,
                            "valid_loss": math.nan if diverges(size, rate) else 1.0,
                            "valid_metric": math.nan if broken(size, rate) and k % 3 == 0 else value,
                            "outcome": "diverged" if diverges(size, rate) else "stopped_by_rule",
                        }
                    )
    write_rows(path, COLUMNS, rows)
    return path


ODD: dict[str, dict[str, Any]] = {
    "whole": {},
    "one rate": {"rates": (0.1,)},
    "two sizes, not 32": {"sizes": (8, 128)},
    "one cell": {"sizes": (64,), "rates": (0.1,)},
    "missing values": {"broken": lambda size, rate: rate >= 0.1},
    "diverged": {"diverges": lambda size, rate: rate * 64 > 2.0 * size},
    "rates lacking": {"seeds": lambda size, rate: 3 if (size < 64) == (rate < 0.2) else 0},
    "single seeds": {"seeds": lambda size, rate: 3 if 0.02 < rate < 0.5 else 1},
    "short runs": {"cap_seconds": 0.35},
}
"""Tables that nobody tuned to."""
