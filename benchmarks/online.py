"""`rightbatch.train` on problems that none of its constants was chosen on, beside a fixed 32 and what `find` says.

    RIGHTBATCH_DATA=data python benchmarks/online.py --out benchmarks/online.json [NAME ...]

`find` tunes the rate of batch size 32, then size and rate. Both are trained with six seeds of their own, and so is
`rightbatch.train`, begun at 32 and the rate of 32, with its constants and with others; all in training seconds, each
step at the median time of its batch size. What is done is kept: the same command goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from growing import LARGEST, USUAL, controlled, ratios, write  # a file beside this one

import rightbatch
from rightbatch import Trial, curves
from rightbatch.controllers import Controller, Goodput, Limits, TunedGoodput
from rightbatch.evidence import FRESH_SEED
from rightbatch.growth import fixed_plan, mean_cost
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.desk import unwatched
from rightbatch.pipeline.loop import drive
from rightbatch.pipeline.profile import measure_step_times
from rightbatch.pipeline.runners import as_runner
from rightbatch.pipeline.setting_up import open_study, pose
from rightbatch.search.strategy import fixed

PROBLEMS = ("digits", "tabular:wine", "tabular:a9a", "tabular:protein")
SEEDS = range(FRESH_SEED + 20, FRESH_SEED + 26)
"""None that `find` looks at."""

CONTROLLERS: dict[str, Callable[[Limits], Controller]] = {
    "rightbatch.train": lambda limits: TunedGoodput(limits=limits),
    "no caution": lambda limits: TunedGoodput(caution=0.0, limits=limits),
    "the noise scale once": lambda limits: TunedGoodput(ratio=1.0, limits=limits),
    "twice": lambda limits: TunedGoodput(ratio=2.0, limits=limits),
    "eight times": lambda limits: TunedGoodput(ratio=8.0, limits=limits),
    "a memory of 5,000 examples": lambda limits: TunedGoodput(memory_examples=5_000.0, limits=limits),
    "the published goodput": lambda limits: Goodput(limits=limits),
}


def measured(name: str, folder: Path) -> dict[str, Any]:
    """One problem: seconds of the fixed 32, of what `find` says and of every controller."""
    runner = as_runner(name)
    path = folder / f"{name.replace(':', '-')}.study.db"
    most = min(LARGEST, runner.facts.train_examples // 4)
    sizes = [2**k for k in range(2, most.bit_length()) if 2**k <= most]
    plans = {}
    for called, among in (("fixed 32", [USUAL]), ("find", sizes)):
        found = rightbatch.find(name, study=path, batch_sizes=among, threads=1)
        plans[called] = fixed_plan(found.batch_size, found.learning_rate)
    with open_study(path, runner.facts) as kept:
        measure_step_times(kept, runner, sizes)
        evidence = pose(kept, runner, Ask(), unwatched, [0])
        trials = [Trial(plan.batch_size, plan.learning_rate, seed) for plan in plans.values() for seed in SEEDS]
        reach = curves.until_target(evidence.question.target)
        evidence, _ = drive(kept, runner, fixed(trials, "seeds of their own", reach), evidence)
    costs = {called: [plan.cost(evidence, seed) for seed in SEEDS] for called, plan in plans.items()}
    usual = tuple(costs["fixed 32"])
    told: dict[str, Any] = {
        called: {"plan": str(plan)} | ratios(costs[called], usual) for called, plan in plans.items()
    }
    for called, make in CONTROLLERS.items():
        start = (USUAL, plans["fixed 32"].learning_rate)
        runs = [
            controlled(runner.workload, make(Limits(4, most)), start, seed, evidence, mean_cost(usual))
            for seed in SEEDS
        ]
        told[called] = ratios([cost for cost, _ in runs], usual) | {"last sizes": [size for _, size in runs]}
        print(f"  {called}: {told[called]}", flush=True)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("online.json"))
    parser.add_argument("--folder", type=Path, default=Path())
    given = parser.parse_args()
    torch.set_num_threads(1)
    problems = json.loads(given.out.read_text())["problems"] if given.out.exists() else {}
    for name in given.names or PROBLEMS:
        if name not in problems:
            print(name, flush=True)
            problems[name] = measured(name, given.folder)
            write(given.out, "python benchmarks/online.py", problems)


if __name__ == "__main__":
    main()
