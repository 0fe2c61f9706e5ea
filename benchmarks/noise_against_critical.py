"""How far the noise scale is from the critical batch size: seven recorded tables, and the noise measured on the same.

    python benchmarks/noise_against_critical.py --out benchmarks/noise_against_critical.json

The critical size is that of the law of steps and examples, fitted to the steps to a target at each size's best rate,
of benchmarks/tables. The noise scale is sampled along a training to that target at the fastest size and its best rate:
over the last quarter, over all of it, and over its first tenth (at least 40 steps). What the ratios of the two are on
problems like these is the width with which a noise scale can stand for a critical size that nobody measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rightbatch.bundled import fashion_mnist, tabular
from rightbatch.engine import WorkloadRunner
from rightbatch.fit.noise import noise_scale
from rightbatch.fit.tradeoff import fit_tradeoff
from rightbatch.records import Trial
from rightbatch.replay.table import Table, read_table

TABLES = Path(__file__).parent / "tables"
sys.path.insert(0, str(TABLES))
import workloads  # noqa: E402 - a file beside the tables that it made

MAKES: dict[str, Any] = {
    "letter": tabular.letter,
    "fashion_mlp": fashion_mnist.mlp,
    "fashion_cnn": workloads.make_fashion_cnn,
    "fashion_logistic": workloads.make_fashion_logistic,
    "char_gru": workloads.make_char_gru,
    "char_transformer": workloads.make_char_transformer,
    "protein_regression": workloads.make_protein_regression,
}


def steps_at_best_rates(table: Table, target: float) -> dict[int, tuple[float, float]]:
    """For each size the fewest steps (a geometric mean over seeds) with their rate, where a rate always got there."""
    return {
        size: (float(np.exp(np.mean(np.log(seconds / table.step_seconds[size])))), rate)
        for size, (rate, seconds) in table.at_best_rates(target).items()
    }


def compared(name: str) -> dict[str, Any]:
    """Critical size and noise scales of one table, at the workload's own target."""
    workload, table = MAKES[name](), read_table(TABLES / f"{name}.csv.gz")
    # Tables are higher-is-better: what falls is negated.
    falls = any((run.points[0].valid_metric or 0.0) < 0 for runs in table.runs.values() for run in runs)
    steps = steps_at_best_rates(table, -workload.target if falls else workload.target)
    critical = fit_tradeoff(list(steps), [count for count, _ in steps.values()]).critical_batch_size
    size = min(steps, key=lambda size: steps[size][0] * table.step_seconds[size])
    count, rate = steps[size]
    samples = list(WorkloadRunner(workload).gradient_samples(Trial(size, rate, 0), max(60, round(count))))
    row: dict[str, Any] = {
        "table": name,
        "target": workload.target,
        "critical_batch_size": [critical.estimate, critical.low, critical.high],
        "sizes": len(steps),
        "batch_size": size,
        "learning_rate": rate,
        "steps": len(samples),
    }
    for metric in ("plain", "preconditioned"):
        of_metric = [sample for sample in samples if sample.metric == metric]
        for part, chosen in {
            "last quarter": of_metric[-len(of_metric) // 4 :],
            "all": of_metric,
            "first tenth": of_metric[: max(40, len(of_metric) // 10)],
        }.items():
            if chosen:
                scale = noise_scale(chosen).scale
                row[f"{metric}, {part}"] = {
                    "noise_scale": [scale.estimate, scale.low, scale.high],
                    "critical_over_noise": critical.estimate / scale.estimate,
                }
    print(json.dumps(row), flush=True)
    return row


def spread(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The geometric mean of the ratios, and by what factor they stray (standard deviation of the log)."""
    found = {}
    for key in [key for key in rows[0] if key.startswith("plain, ")]:
        logs = np.log([row[key]["critical_over_noise"] for row in rows])
        found[key] = {"mean": float(np.exp(logs.mean())), "deviation_of_log": float(logs.std(ddof=1))}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/noise_against_critical.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [compared(name) for name in MAKES]
    machine = {"python": platform.python_version(), "torch": torch.__version__.split("+")[0], "threads": 1}
    result = {"command": "python benchmarks/noise_against_critical.py", "machine": machine, "rows": rows}
    given.out.write_text(json.dumps({**result, "spread": spread(rows)}, indent=1, allow_nan=True) + "\n")
    print(json.dumps(spread(rows)))


if __name__ == "__main__":
    main()
