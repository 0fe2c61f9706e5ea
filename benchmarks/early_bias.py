"""Small batches lead early: which size looks best when every run is stopped at the same early level, before and after.

All batch sizes and rates of a table, one seed each, are trained until they pass a level (a share of the gain to the
target). Naive: the size that passed it first. Corrected: the size that the search believes to be best at the target,
by these same curves: its laws let the critical batch size grow, and the best rate fall, on the way to the target.

    python benchmarks/early_bias.py --out benchmarks/early_bias.json

On a noisy quadratic (Zhang et al. 2019, arXiv 1907.04164) of 60 eigenvalues 1/k, gradient noise 4 sqrt(1/k) / sqrt(B),
plain SGD, a step costing 0.2 ms x (1 + B / 500); and on recorded tables.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path

import numpy as np

from rightbatch.evidence import Evidence
from rightbatch.question import Objective, Question
from rightbatch.records import Run, StopReason, Target, WorkloadFacts
from rightbatch.replay.scale import scale
from rightbatch.replay.table import Table, read_table
from rightbatch.search.few_runs import FewRuns
from rightbatch.search.progress import start_value
from rightbatch.tables import COLUMNS, write_rows

LEVELS = (0.5, 0.62, 0.72, 0.8, 0.86, 0.905, 0.94, 0.965, 0.982, 0.992)
EIGENVALUES = 1.0 / np.arange(1, 61)


def quadratic(to: Path, seeds: int = 4) -> None:
    """Simulate the noisy quadratic into a table: loss at rungs 8 % apart from 500 examples on, up to 4 s."""
    rows = []
    rates = [10 ** (k / 2) for k in range(-5, 3)]
    for size in (16, 32, 64, 128, 256, 512, 1024, 2048):
        step_seconds = 2e-4 * (1 + size / 500)
        rungs = sorted({max(1, round(500 * 1.08**k / size)) for k in range(120)})
        generator = np.random.default_rng(size)
        x = np.ones((len(rates), seeds, 60))
        diverged: set[tuple[int, ...]] = set()
        scale_of_noise = 4.0 * np.sqrt(EIGENVALUES / size)
        done = 0
        for rung in (r for r in rungs if r * step_seconds <= 4.0):
            for _ in range(rung - done):
                noise = scale_of_noise * generator.standard_normal((1, seeds, 60))
                x = np.clip(x - np.array(rates)[:, None, None] * (EIGENVALUES * x + noise), -1e6, 1e6)
            done = rung
            losses = 0.5 * (EIGENVALUES * x * x).sum(axis=2)
            for (k, seed), loss in np.ndenumerate(losses):
                if (k, seed) in diverged:
                    continue
                outcome = "diverged" if loss > 10 * EIGENVALUES.sum() / 2 else "finished"
                diverged |= {(k, seed)} if outcome == "diverged" else set()
                point = (size, rates[k], seed, rung, rung * size, rung * step_seconds, None, loss, -loss, outcome)
                rows.append(dict(zip(COLUMNS, ("quadratic", *point), strict=True)))
    write_rows(to, COLUMNS, rows)


def compare(table: Table, target: float, optimizer: str) -> dict[str, object]:
    """The best size in the table at the target, and by either reading at each early level."""
    found = scale(table, target)
    assert found is not None, f"no cell of {table.name} reaches {target}"
    aim = Target(target, "valid_metric", "max")
    runs = [table.runs[cell][0] for cell in table.cells]
    start = start_value(runs, aim)
    assert start is not None
    facts = WorkloadFacts(table.name, 0, 0, 0, "valid_metric", "max", optimizer)
    rows = []
    for level in LEVELS:
        early = Target(start + level * (target - start), "valid_metric", "max")
        passed = table.times_to(early.value)
        first = min(table.cells, key=lambda cell: passed[cell][0])
        cut = tuple(
            _until(run, passed[cell][0] / table.step_seconds[cell[0]])
            for cell, run in zip(table.cells, runs, strict=True)
        )
        evidence = Evidence(facts, tuple(run for run in cut if run.points), (), Question(Objective.TIME, aim))
        search = FewRuns(table.sizes, lambda evidence: table.rates, lambda trial: True)
        outlook = search.outlook(evidence)
        believed = outlook.belief.cells[outlook.best]
        at_target = table.times_to(target)
        rows.append(
            {
                "share_of_gain": level,
                "naive": first,
                "naive_regret": _regret(at_target[first], found.reference_seconds),
                "corrected": believed,
                "corrected_regret": _regret(at_target[believed], found.reference_seconds),
            }
        )
    return {"table": table.name, "target": target, "best": found.best, "levels": rows}


def _until(run: Run, steps: float) -> Run:
    """The curve up to two rungs beyond a number of steps: where the level that was passed there counts."""
    points = [point for point in run.points if point.step <= steps]
    points = run.points[: len(points) + 2] if math.isfinite(steps) else run.points
    diverged = run.stop is not None and run.stop.reason is StopReason.DIVERGED
    return Run(run.trial, tuple(points), run.stop if diverged and points == run.points else None)


def _regret(times: np.ndarray, reference: float) -> float:
    return float(np.median(times)) / reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/early_bias.json"))
    tables = Path(__file__).parent / "tables"
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "quadratic.csv.gz"
        quadratic(made)
        found = [
            compare(read_table(made), -0.07, "SGD"),
            compare(read_table(tables / "fashion_mlp.csv.gz"), 0.86, "SGD momentum"),
            compare(read_table(tables / "letter.csv.gz"), 0.93, "SGD momentum"),
        ]
    parser.parse_args().out.write_text(json.dumps(found, indent=1, default=str) + "\n")
    for one in found:
        print(f"{one['table']}: target {one['target']}, best {one['best']}")
        for row in one["levels"]:  # type: ignore[attr-defined]
            print(
                f"  at {row['share_of_gain']:5.3f} of the gain: naive {row['naive']} costs {row['naive_regret']:.2f}x, "
                f"corrected {row['corrected']} {row['corrected_regret']:.2f}x"
            )


if __name__ == "__main__":
    main()
