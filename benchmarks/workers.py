"""Do two workers of one sweep get as much done as two processes started by hand?

    python benchmarks/workers.py [--turns 12] [--out FILE.json]

The same fixed list of runs (the digits, all of one length, 5 to 8 seconds each on one core) is made by a sweep with two
worker processes, and by two independent processes that make half of it each, with the same code, one thread and a
study of their own. The two sides take turns and change places every turn; the only results are ratios of neighbours:
seconds by hand over seconds of the sweep, which is the ratio of their throughputs. The start of processes is not
counted: all of them are kept from turn to turn. The bar of 0.95 is kept or missed when the 95 % interval of the median
says so (order statistics, no assumption on the noise), else the machine was too noisy to tell.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from scipy.stats import binom

from rightbatch import curves
from rightbatch.bundled.digits import digits
from rightbatch.engine import WorkloadRunner
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.loop import drive
from rightbatch.pipeline.setting_up import gather, question
from rightbatch.records import Target, Trial, to_json
from rightbatch.search.strategy import Strategy, fixed
from rightbatch.search.sweep import Sweep
from rightbatch.store import Study
from rightbatch.workers import Crew, Workers

BAR = 0.95
BATCH_SIZE, RATES = 64, (0.03162, 0.1)
EASY = Target(1.0, "valid_loss", "min")
"""Both rates reach it at once: a sweep leaves out the further seeds of a rate that misses. All runs go to their end."""


def trials(runs: int, planned_examples: int) -> list[Trial]:
    """The list of runs: all seeds at both rates."""
    return [Trial(BATCH_SIZE, RATES[k % 2], k // 2, planned_examples) for k in range(runs)]


def seconds_of(strategy: Strategy, planned_examples: int, runs: int, crew: Crew | None = None) -> float:
    """Wall seconds of a search with a new study, to its end; it must have made so many runs."""
    runner = WorkloadRunner(digits())
    facts = replace(runner.facts, planned_examples=planned_examples)
    with tempfile.TemporaryDirectory() as folder, Study.create(Path(folder) / "a.study.db", facts) as study:
        evidence = gather(study, facts, question(Ask(objective="steps"), EASY), runner=runner)
        started = time.perf_counter()
        evidence, _ = drive(study, runner, strategy, evidence, crew=crew)
        seconds = time.perf_counter() - started
    finished = [run for run in evidence.runs if run.points[-1].examples >= planned_examples - BATCH_SIZE]
    assert len(finished) == len(evidence.runs) == runs, "a side has not made all of its runs"
    return seconds


def by_hand(half: int, runs: int, planned_examples: int) -> None:
    """One of the two independent processes: every line that it reads makes it do its half once."""
    torch.set_num_threads(1)
    own = trials(runs, planned_examples)[half::2]
    print("ready", flush=True)
    for _ in sys.stdin:
        seconds_of(fixed(own, "by hand"), planned_examples, len(own))
        print("done", flush=True)


class ByHand:
    """The two processes, from the first turn to the last."""

    def __init__(self, runs: int, planned_examples: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._processes = [
            subprocess.Popen(
                [sys.executable, __file__, f"--half={half}", f"--runs={runs}", f"--planned={planned_examples}"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            )
            for half in (0, 1)
        ]  # fmt: skip
        self._wait("ready")

    def seconds(self) -> float:
        """Both do their half; wall seconds until the later one is done."""
        started = time.perf_counter()
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        self._wait("done")
        return time.perf_counter() - started

    def _wait(self, word: str) -> None:
        for process in self._processes:
            assert process.stdout is not None
            said = process.stdout.readline().strip()
            assert said == word, f"a process by hand said {said!r}, not {word!r}"

    def close(self) -> None:
        for process in self._processes:
            process.communicate()


def planned_for(run_seconds: float) -> int:
    """A planned length, in examples, at which a run alone takes so long, evaluations included."""
    runner = WorkloadRunner(digits())
    planned = 20_000
    for _ in range(2):  # the second time from a run that is nearly as long
        started = time.perf_counter()
        run = runner.start(Trial(BATCH_SIZE, RATES[0], 0, planned))
        for _ in (0, *curves.rungs_in_steps(planned, BATCH_SIZE)):
            run.advance()
        planned = round(planned * run_seconds / (time.perf_counter() - started))
    return planned


def interval_of_the_median(ratios: Sequence[float]) -> tuple[float, float]:
    """At 95 %: the order statistics that enclose it whatever the distribution. Fewer than six ratios: all of them."""
    inside = max(1, int(binom.ppf(0.025, len(ratios), 0.5)))
    return sorted(ratios)[inside - 1], sorted(ratios)[-inside]


def measure(runs: int, planned_examples: int, turns: int) -> list[dict[str, float]]:
    """Seconds of both sides, turn by turn."""
    seeds = range(runs // len(RATES))
    strategy = Sweep(
        [BATCH_SIZE], seeds, BATCH_SIZE, RATES[0], lambda trial: True, RATES, planned_examples=planned_examples
    )
    hand = ByHand(runs, planned_examples)
    try:
        with Workers(partial(WorkloadRunner, digits()), 2, threads=1) as crew:
            sides: dict[str, Callable[[], float]] = {
                "sweep": lambda: seconds_of(strategy, planned_examples, runs, crew),
                "by_hand": hand.seconds,
            }
            seconds_of(fixed(trials(4, 6400), "both workers have begun"), 6400, 4, crew)
            rows = []
            for turn in range(turns):
                order = ("sweep", "by_hand") if turn % 2 == 0 else ("by_hand", "sweep")
                row = {side: sides[side]() for side in order}
                rows.append({**row, "ratio": row["by_hand"] / row["sweep"]})
                print(
                    f"{turn + 1:4}  {row['sweep']:7.2f} s  {row['by_hand']:7.2f} s  {rows[-1]['ratio']:.3f}", flush=True
                )
            return rows
    finally:
        hand.close()


def main() -> None:
    """Measure, print every turn and the verdict, write the result if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the turns and the environment to this JSON file")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--runs", type=int, default=8, help="runs of each side of a turn, an even number")
    parser.add_argument("--run-seconds", type=float, default=6.0, help="about how long one run takes alone")
    parser.add_argument("--planned", type=int, help="planned length of a run in examples, instead")
    parser.add_argument("--half", type=int, choices=(0, 1), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.half is not None:
        by_hand(options.half, options.runs, options.planned)
        return
    environment = WorkloadRunner(digits()).environment
    planned = options.planned or planned_for(options.run_seconds)
    print(f"{environment.processor}, {environment.device}, {os.cpu_count()} cores, {environment.precision}")
    print(f"Python {environment.python}, torch {environment.torch}, rightbatch {environment.rightbatch}")
    print(f"{options.runs} runs of {planned:,} examples a side; two workers of one sweep, two processes by hand\n")
    print("turn      sweep    by hand  throughput of the sweep / by hand")
    rows = measure(options.runs, planned, options.turns)
    ratios = [row["ratio"] for row in rows]
    low, high = interval_of_the_median(ratios)
    verdict = "kept" if low >= BAR else "MISSED" if high < BAR else "too noisy to tell"
    print(f"\nmedian {statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}], bar {BAR}: {verdict}")
    if options.out:
        command = f"python benchmarks/workers.py --turns {options.turns} --runs {options.runs} --planned {planned}"
        written = {
            "command": command,
            "environment": to_json(environment),
            "cores": os.cpu_count(),
            "planned_examples": planned,
            "median": statistics.median(ratios),
            "interval": [low, high],
            "bar": BAR,
            "verdict": verdict,
            "turns": rows,
        }
        options.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
