"""`find` against Optuna (TPE, Hyperband) on real training, with the same wall seconds, three times with other seeds.

    python benchmarks/against_optuna.py digits tabular:wine --out benchmarks/against_optuna.json

Each time `find` runs first, to its own end; Optuna then has as many wall seconds as that took in all, its measuring of
step times included. Both choose among the same batch sizes and lattice rates. Five runs with seeds that neither has
seen judge what each advises: the median of their training seconds to the target (steps x the median step time, measured
once and used for both). A run misses, for Optuna as for the judge, that takes longer than the present choice does for
its planned length.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rightbatch import find
from rightbatch.curves import Curve, until_target
from rightbatch.errors import InsufficientEvidence
from rightbatch.evidence import Evidence
from rightbatch.lattice import index_of, rate_at
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.first_choice import first_choice
from rightbatch.pipeline.loop import drive
from rightbatch.pipeline.profile import default_sizes
from rightbatch.pipeline.runners import as_runner
from rightbatch.pipeline.searching import RATES_AROUND
from rightbatch.pipeline.setting_up import gather, question, stated_target
from rightbatch.question import Objective
from rightbatch.records import Environment, StepTime, Trial, WorkloadFacts
from rightbatch.replay.optuna_peers import tpe
from rightbatch.replay.world import Told
from rightbatch.runner import RunInProgress, Runner
from rightbatch.search.strategy import fixed
from rightbatch.store import Study

JUDGES = 5


@dataclass(frozen=True)
class OtherSeeds:
    """A runner whose seeds are others: seed k is made with `first` + k."""

    runner: Runner
    first: int

    @property
    def facts(self) -> WorkloadFacts:
        return self.runner.facts

    @property
    def environment(self) -> Environment:
        return self.runner.environment

    def offers(self, trial: Trial) -> bool:
        return self.runner.offers(trial)

    def start(self, trial: Trial, state: bytes | None = None) -> RunInProgress:
        other = Trial(
            trial.batch_size, trial.learning_rate, self.first + trial.seed, trial.planned_examples, trial.settings
        )
        return self.runner.start(other, state)

    def step_times(self, batch_sizes: Sequence[int], *, rounds: int) -> Iterator[StepTime]:
        return self.runner.step_times(batch_sizes, rounds=rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/against_optuna.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name in given.workloads:
        for repeat in range(given.repeats):
            row = once(name, repeat)
            rows.append(row)
            print(json.dumps(row), flush=True)
            machine = {"python": platform.python_version(), "torch": torch.__version__.split("+")[0], "threads": 1}
            given.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


def once(name: str, repeat: int) -> dict[str, Any]:
    """One comparison: what either advises, what it took, and what it is worth."""
    runner = OtherSeeds(as_runner(name), 10_000 * (repeat + 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "find.study.db"
        started = time.monotonic()
        try:
            answer = find(runner, study=path)
            ours = (answer.batch_size, answer.learning_rate)
        except InsufficientEvidence:
            ours = None
        seconds = time.monotonic() - started
        with Study.open(path) as study:
            evidence = _evidence(study, runner)
        theirs, theirs_seconds, runs = _optuna(Path(folder) / "optuna.study.db", runner, evidence, seconds, repeat)
        judged = {
            who: _judge(Path(folder) / f"judge-of-{who}.study.db", runner, evidence, choice)
            for who, choice in (("rightbatch", ours), ("optuna", theirs))
        }
    return {
        "workload": name,
        "repeat": repeat,
        "target": asdict(evidence.question.target)["value"],
        "rightbatch": ours,
        "optuna": theirs,
        "wall_seconds": round(seconds, 1),
        "optuna_wall_seconds": round(theirs_seconds, 1),
        "optuna_runs": runs,
        "judged_seconds": judged,
    }


def _evidence(study: Study, runner: Runner) -> Evidence:
    ask = Ask()
    target = stated_target(study, ask)
    assert target is not None
    return gather(study, study.facts, question(ask, target), runner=runner)


def _optuna(
    path: Path, runner: Runner, known: Evidence, seconds: float, repeat: int
) -> tuple[tuple[int, float] | None, float, int]:
    """Optuna's advice after so many seconds, how long it took, and how many runs it began."""
    size, rate = first_choice(runner.facts)
    middle = index_of(rate)
    told = Told(
        sizes=default_sizes(runner.facts.train_examples, size),
        rates=tuple(rate_at(middle + k) for k in range(-RATES_AROUND, RATES_AROUND + 1)),
        train_examples=runner.facts.train_examples,
        optimizer=runner.facts.optimizer,
        target=known.question.target,
        cap_seconds=_cap_seconds(known),
        offers=lambda trial: trial.seed < 5 and runner.offers(trial),
        generator=np.random.default_rng(repeat),
    )
    search = tpe(told)
    started = time.monotonic()
    with Study.open_or_create(path, runner.facts) as study:
        evidence = gather(study, study.facts, known.question, runner=runner)
        evidence, _ = drive(study, runner, search, evidence, deadline=started + seconds)
    guess = search.guess(evidence)
    return (guess.batch_size, guess.learning_rate), time.monotonic() - started, len(evidence.runs)


def _cap_seconds(known: Evidence) -> float:
    """Training seconds of a whole run of the present choice."""
    size, _ = first_choice(known.facts)
    return known.facts.planned_examples / size * _step_seconds(known, size)


def _step_seconds(known: Evidence, size: int) -> float:
    found = known.step_seconds(size)
    assert found is not None, f"the step time of batch size {size} was not measured"
    return found


def _judge(path: Path, runner: Runner, known: Evidence, choice: tuple[int, float] | None) -> float | None:
    """Median training seconds to the target of fresh seeds; None if most of them miss."""
    if choice is None:
        return None
    each = _step_seconds(known, choice[0])
    at_target, most_steps = until_target(known.question.target), _cap_seconds(known) / each

    def until(curve: Curve) -> str | None:
        return at_target(curve) or ("too long" if curve and curve[-1].step >= most_steps else None)

    strategy = fixed([Trial(*choice, 500 + seed) for seed in range(JUDGES)], "a fresh seed judges", until)
    with Study.open_or_create(path, runner.facts) as study:
        steps = replace(known.question, objective=Objective.STEPS)  # no step times are measured here
        evidence = gather(study, study.facts, steps, runner=runner)
        evidence, _ = drive(study, runner, strategy, evidence)
    crossings = [evidence.crossing(run) for run in evidence.runs]
    median = statistics.median(found.steps * each if found else math.inf for found in crossings)
    return median if math.isfinite(median) else None


if __name__ == "__main__":
    main()
