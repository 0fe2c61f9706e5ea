"""A batch that grows against the tuned fixed best: what `find --schedule` recommends, and every published controller.

    RIGHTBATCH_DATA=data python benchmarks/growing.py --out benchmarks/growing.json [NAME ...]

The seven problems of `tables/`. The fixed best is the best cell of the recorded table, at the step times of this
machine; its rate, half a decade apart there, and those of the sizes beside it are tuned on to a quarter of a decade.
Everything is judged on the same six fresh seeds, in training seconds: each step counts the median step time of its
batch size, all sizes timed in turn before. A controller begins at batch size 32 with the best rate that 32 has in the
table, and may go to 4,096 or a quarter of the data. What is done is kept, also of each controller: the same command
goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rightbatch
from rightbatch import Trial, controllers, curves
from rightbatch.batch_schedule import BatchSchedule
from rightbatch.controllers import Controller, Limits
from rightbatch.errors import WorkloadError
from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.growth import LOOKS, Plan, compared, decided, fixed_plan, mean_cost
from rightbatch.lattice import index_of, rate_at
from rightbatch.machine import processor
from rightbatch.means import difference_of_means, ratio_of_means
from rightbatch.online import OnlineRun, points_of
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.desk import unwatched
from rightbatch.pipeline.loop import drive
from rightbatch.pipeline.profile import measure_step_times
from rightbatch.pipeline.runners import as_runner
from rightbatch.pipeline.setting_up import open_study, pose
from rightbatch.question import Question
from rightbatch.records import to_json
from rightbatch.search.growing import Growing
from rightbatch.search.strategy import Advance, fixed
from rightbatch.workload import Workload

HERE = Path(__file__).parent
MAKERS = f"{HERE / 'tables' / 'workloads.py'}:make_"
PROBLEMS = {
    "fashion_mlp": "fashion_mnist:mlp",
    "letter": "letter",
    "char_gru": f"{MAKERS}char_gru",
    "fashion_cnn": f"{MAKERS}fashion_cnn",
    "fashion_logistic": f"{MAKERS}fashion_logistic",
    "protein_regression": f"{MAKERS}protein_regression",
    "char_transformer": f"{MAKERS}char_transformer",
}
TARGETS = {
    "fashion_mlp": 0.86,
    "letter": 0.93,
    "char_gru": -2.15,
    "fashion_cnn": 0.85,
    "fashion_logistic": -0.45,
    "protein_regression": -0.6,
    "char_transformer": -2.3,
}
"""Of the tables, in which losses are negated; the workloads have the same."""

SEEDS = range(FRESH_SEED, FRESH_SEED + 6)
TUNED_BY = range(3)
USUAL, LARGEST = 32, 4096

GIVE_UP_FACTOR = 8.0
"""A controller's run is stopped when it has cost so many times the fixed best."""

CONTROLLERS: dict[str, Callable[[Limits, float], Controller]] = {
    "instead-of-decay": lambda limits, e: controllers.InsteadOfDecay([round(0.5 * e), round(0.75 * e)], 5.0, limits),
    "noise-following": lambda limits, e: controllers.NoiseFollowing(limits=limits),
    "goodput": lambda limits, e: controllers.Goodput(limits=limits),
    "rightbatch.train": lambda limits, e: controllers.TunedGoodput(limits=limits),
    "norm-test": lambda limits, e: controllers.NormTest(theta=0.9, limits=limits),
    "cabs": lambda limits, e: controllers.CABS(limits=limits),
    "adadamp": lambda limits, e: controllers.AdaDamp(limits=limits),
    "radadamp": lambda limits, e: controllers.RadaDamp(limits=limits),
    "padadamp": lambda limits, e: controllers.PadaDamp(480 * 272 / e, limits=limits),
    "geodamp": lambda limits, e: controllers.GeoDamp(round(e / 4), 2.0, limits=limits),
}
"""Of their papers, and ours. By the limits, and the examples that the fixed best needs where a paper leaves a clock to
be chosen: at a half and three quarters of them, at each quarter, to 512 within them."""


def measured(name: str, folder: Path, known: dict[str, Any]) -> dict[str, Any]:
    """One problem: the fixed best, the search, its plan and all controllers with fresh seeds, the quality.

    Of controllers only what is not known yet.
    """
    runner = as_runner(PROBLEMS[name])
    most = min(LARGEST, runner.facts.train_examples // 4)
    with open_study(folder / f"{name}.study.db", runner.facts) as kept:
        measure_step_times(kept, runner, [2**k for k in range(2, most.bit_length()) if 2**k <= most])
        evidence = pose(kept, runner, Ask(), unwatched, [0])
        assert abs(evidence.question.target.value) == abs(TARGETS[name])
        cells = costs_of_table(name, evidence)
        usual = best_of_size(cells, USUAL)
        reach = curves.until_target(evidence.question.target)
        near = tuned_further(cells, most)
        evidence, _ = drive(kept, runner, fixed(near, "the fixed best", reach), evidence)
        means = {
            (t.batch_size, t.learning_rate): fixed_plan(t.batch_size, t.learning_rate).mean(evidence) for t in near
        }
        best = min(means, key=lambda cell: means[cell])
        chosen = fixed_plan(*best)
        rates = {size: best_of_size(cells, size)[1] for size, _ in cells} | {best[0]: best[1]}
        strategy = Growing(chosen, rates, most, runner.offers, looks=(len(SEEDS),))
        evidence, why = drive(kept, runner, strategy, evidence)
        plan = strategy.climb(evidence)
        assert not isinstance(plan, Advance)
        lasting = [Trial(*usual, seed) for seed in SEEDS] + [Trial(*best, seed) for seed in SEEDS]
        evidence, _ = drive(kept, runner, fixed(lasting, "fresh seeds", reach), evidence)
        tried = [p for p in _plans(evidence) if not p.schedule.fixed]
        spent = sum(p.spent(evidence, seed, tried[:k]) for k, p in enumerate(tried) for seed in (0, 1))
        judging = judged(plan, chosen, evidence)
        unit = mean_cost(chosen.fresh_costs(evidence))
        found = {
            "fixed best": told(chosen, evidence, chosen) | {"table": min(cells, key=lambda cell: cells[cell])},
            "fixed 32": told(fixed_plan(*usual), evidence, chosen),
            "find --schedule": told(plan, evidence, chosen)
            | {"why": why, "search": round(spent / unit, 2), "judging": round(judging / unit, 2)},
            "quality": quality(runner, evidence, plan, chosen),
        }
    examples = evidence.steps_of_cost(best[0], unit) or 0.0
    for controller, make in CONTROLLERS.items():
        if controller in known:
            found[controller] = known[controller]
            continue
        costs, sizes = [], []
        for seed in SEEDS:
            cost, last = controlled(
                runner.workload, make(Limits(4, most), examples * best[0]), usual, seed, evidence, unit
            )
            costs.append(cost)
            sizes.append(last)
        found[controller] = ratios(costs, chosen.fresh_costs(evidence)) | {"last sizes": sizes}
        print(f"  {controller}: {found[controller]}", flush=True)
    return found


def of_table(name: str) -> Evidence:
    """What the recorded table says."""
    study = Path(f"{name}.table.study.db")
    table = HERE / "tables" / f"{name}.csv.gz"
    rightbatch.find(str(table), study=study, target=TARGETS[name], objective="steps")
    return rightbatch.show(study, objective="steps")[1]


def costs_of_table(name: str, evidence: Evidence) -> dict[tuple[int, float], float]:
    """Seconds to the target of every cell of the table, by the step times of this machine."""
    found = {}
    for cell in of_table(name).cells:
        seconds = evidence.step_seconds(cell.batch_size)
        if cell.reaches and seconds is not None:
            found[cell.batch_size, cell.learning_rate] = cell.mean * seconds
    return found


def best_of_size(cells: dict[tuple[int, float], float], size: int) -> tuple[int, float]:
    """The cell of a size that costs least."""
    return min((cell for cell in cells if cell[0] == size), key=lambda cell: cells[cell])


def tuned_further(cells: dict[tuple[int, float], float], most: int) -> list[Trial]:
    """Runs about the best cell of the table: its size and those beside it, at rates a quarter of a decade apart."""
    best = min(cells, key=lambda cell: cells[cell])[0]
    sizes = [size for size in (best // 2, best, best * 2) if size <= most and any(cell[0] == size for cell in cells)]
    rates = {(size, index_of(best_of_size(cells, size)[1]) + k) for size in sizes for k in (-1, 0, 1)}
    return [Trial(size, rate_at(k), seed) for size, k in sorted(rates) for seed in TUNED_BY]


def _plans(evidence: Evidence) -> list[Plan]:
    """In the order they were tried."""
    return list(dict.fromkeys(Plan.of(run.trial) for run in evidence.runs))


def judged(plan: Plan, chosen: Plan, evidence: Evidence) -> float:
    """What `find --schedule` spends on fresh seeds: three of both, six where three leave open what is worth them."""
    if plan == chosen:
        return 0.0
    ours, theirs = plan.fresh_costs(evidence), chosen.fresh_costs(evidence)
    few, most = LOOKS
    gain = ratio_of_means(ours[:few], theirs[:few], 1 - 0.05 / len(LOOKS))
    seeds = SEEDS[:few] if decided(gain) else SEEDS[:most]
    return sum(plan.spent(evidence, seed) + chosen.spent(evidence, seed, [plan]) for seed in seeds)


def told(plan: Plan, evidence: Evidence, chosen: Plan) -> dict[str, Any]:
    """A plan beside the fixed best, by the fresh seeds."""
    gain = compared(evidence, plan, chosen, 1)
    row = ratios(list(plan.fresh_costs(evidence)), chosen.fresh_costs(evidence))
    print(f"  {plan}: {row}", flush=True)
    return {"plan": str(plan), "times": None if gain is None else to_json(gain)} | row


def ratios(costs: list[float], best: tuple[float, ...]) -> dict[str, Any]:
    """Costs in seconds, how often the target was missed, their ratio to the fixed best and how they spread."""
    reached = [cost for cost in costs if math.isfinite(cost)]
    ratio = ratio_of_means(reached, best) if len(reached) == len(costs) else None
    return {
        "seconds": [round(cost, 4) for cost in reached],
        "missed": len(costs) - len(reached),
        "ratio": None if ratio is None else [round(v, 3) for v in (ratio.estimate, ratio.low or 0, ratio.high or 0)],
        "spread": round(float(np.std(np.log(reached), ddof=1)), 3) if len(reached) > 1 else None,
    }


def quality(runner: Any, evidence: Evidence, plan: Plan, chosen: Plan) -> dict[str, Any]:
    """The best value within twice the examples that the fixed best needs, of both: the difference, plan less fixed."""
    target = evidence.question.target
    needed = max(run.points[-1].examples for run in evidence.runs_at(chosen.batch_size, chosen.learning_rate))
    length = 2 * needed
    values = {}
    for one in (plan, chosen):
        trials = [one.trial(seed, length, {}) for seed in SEEDS]
        # Longer runs than those to the target: of a study of their own.
        with open_study(Path(f"{evidence.facts.name}.quality.study.db"), runner.facts) as own:
            never = rightbatch.Target(
                math.inf if target.direction == "max" else -math.inf, target.quantity, target.direction
            )
            asked_of = Question(rightbatch.Objective.STEPS, never)
            empty = one.evidence(Evidence(evidence.facts, own.runs(), (), asked_of))
            known, _ = drive(own, runner, fixed(trials, "quality"), empty)
            runs = [run for run in known.runs if run.trial in [runner.workload.complete(t) for t in trials]]
        values[one] = [curves.best_value(run.points, target.quantity, target.direction) or math.nan for run in runs]
    if plan == chosen:
        return {"examples": length, "quantity": target.quantity}
    gap = difference_of_means(values[plan], values[chosen])
    return {"examples": length, "quantity": target.quantity, "plan less fixed": to_json(gap)}


def controlled(
    workload: Workload, controller: Controller, start: tuple[int, float], seed: int, evidence: Evidence, unit: float
) -> tuple[float, int]:
    """Seconds to the target of a run under a controller, infinite where it missed; and the batch size at its end."""
    run = OnlineRun(workload, Trial(*start, seed), controller, evidence.step_times)
    target, points = evidence.question.target, []

    def cost(steps: float, examples: float) -> float:
        return evidence.seconds.of_run(BatchSchedule(tuple(run.phases)), steps, examples) or math.inf

    try:
        for point in points_of(run, target):
            points.append(point)
            if point.step and cost(point.step, point.examples) > GIVE_UP_FACTOR * unit:
                break
    except WorkloadError:
        return math.inf, run.stepper.batch_size
    crossing = curves.crossing(points, target)
    return (cost(crossing.steps, crossing.examples) if crossing else math.inf), run.stepper.batch_size


def write(out: Path, command: str, problems: dict[str, Any]) -> None:
    """What is known so far, with what it was measured by and on."""
    about = {
        "machine": processor(),
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
    }
    text = json.dumps({"command": command, **about, "problems": problems}, indent=1)
    out.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("growing.json"))
    parser.add_argument("--folder", type=Path, default=Path())
    given = parser.parse_args()
    torch.set_num_threads(1)
    problems = json.loads(given.out.read_text())["problems"] if given.out.exists() else {}
    for name in given.names or PROBLEMS:
        if not CONTROLLERS.keys() <= problems.get(name, {}).keys():
            print(name, flush=True)
            problems[name] = measured(name, given.folder, problems.get(name, {}))
            write(given.out, "python benchmarks/growing.py", problems)


if __name__ == "__main__":
    main()
