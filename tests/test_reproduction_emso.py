"""What the numbers of the reproduction of EMSO rest on: its solutions, its courses, its costs."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rightbatch.loading import as_module
from rightbatch.pipeline.reproduce import reproduce
from rightbatch.records import Interval
from rightbatch.report import units

FOLDER = Path(__file__).parents[1] / "reproductions"


@pytest.fixture(scope="module")
def work() -> Any:
    return as_module(FOLDER / "_emso_work.py", "emso_work_of_tests")()


@pytest.fixture(scope="module")
def told(work: Any) -> Any:
    return as_module(FOLDER / "_emso_told.py", "emso_told_of_tests")()


@pytest.fixture(scope="module")
def problem(work: Any) -> Any:
    return sys.modules["_emso_problems"].synthetic(0.01, examples=2000, size=5)


def test_a_tenth_of_the_bar_of_the_slopes_holds(tmp_path):
    """10 seeds, two sizes: how fast exact proximal steps learn does not change with the batch."""
    result = reproduce("emso", size="smoke", folder=FOLDER, out=tmp_path)
    assert [done.verdict for done in result.comparisons] == ["holds", "holds"]
    for above in result.measured["slopes"].values():
        assert set(above) == {"16", "256"}
    levels = {
        name: {size: np.mean(a) for size, a in above.items()} for name, above in result.measured["slopes"].items()
    }
    assert all(0.8 < level["256"] / level["16"] < 1.25 for level in levels.values())


def test_the_solution_is_where_the_gradient_is_zero(problem):
    weights = problem.solution.clone().requires_grad_()
    scores = problem.inputs.double() @ weights
    loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, problem.labels.double())
    loss = loss + 0.5 * problem.ridge * weights.square().sum()
    (gradient,) = torch.autograd.grad(loss, weights)
    assert float(gradient.abs().max()) < 1e-10
    assert float(loss.detach()) == pytest.approx(problem.least, abs=1e-14)
    assert problem.above(problem.solution[None] + 0.1)[0] > 0


@pytest.mark.parametrize("workers", [1, 3])
def test_a_course_is_that_of_a_loop_by_hand(work, problem, workers):
    """One seed, five steps of SGD, and of as many workers whose steps are averaged; the same draws."""
    course = work.run(
        problem,
        batch_size=8,
        steps=5,
        seeds=[7],
        at=[2, 5],
        workers=workers,
        lr=0.5,
        inner_steps=1,
        dtype=torch.float64,
    )
    draw, weights, iterates = torch.Generator().manual_seed(7), torch.zeros(5, dtype=torch.float64), []
    for _ in range(5):
        steps = []
        for _ in range(workers):
            chosen = torch.randint(2000, (8,), generator=draw)
            inputs, labels = problem.inputs[chosen].double(), problem.labels[chosen].double()
            gradient = inputs.T @ ((inputs @ weights).sigmoid() - labels) / 8 + problem.ridge * weights
            steps.append(-0.5 * gradient)
        weights = weights + torch.stack(steps).mean(0)
        iterates.append(weights)
    mean = sum(k * w for k, w in enumerate(iterates, start=1)) / 15
    assert course.steps == (2, 5)
    assert course.above["last"] == [
        pytest.approx(problem.above(iterates[1][None]), rel=1e-9),
        pytest.approx(problem.above(iterates[4][None]), rel=1e-9),
    ]
    assert course.above["mean"][1] == pytest.approx(problem.above(mean[None]), rel=1e-9)


def test_solved_subproblems_are_those_of_newton(work, problem):
    """L-BFGS over several seeds at once, each seed against its own proximal step."""
    gamma, seeds = 0.05, [3, 4]
    course = work.run(
        problem,
        batch_size=64,
        steps=1,
        seeds=seeds,
        at=[1],
        gamma=gamma,
        lr=1.0,
        inner="l-bfgs",
        inner_steps=60,
        tolerance=1e-9,
        dtype=torch.float64,
    )
    for seed, found in zip(seeds, course.above["last"][0], strict=True):
        chosen = torch.randint(2000, (64,), generator=torch.Generator().manual_seed(seed))
        inputs, labels = problem.inputs[chosen].double(), problem.labels[chosen].double()
        weights = torch.zeros(5, dtype=torch.float64)
        for _ in range(30):
            mean = (inputs @ weights).sigmoid()
            gradient = inputs.T @ (mean - labels) / 64 + (problem.ridge + gamma) * weights
            curvature = (inputs.T * (mean * (1 - mean))) @ inputs / 64
            weights = weights - torch.linalg.solve(curvature + (problem.ridge + gamma) * torch.eye(5), gradient)
        assert found == pytest.approx(problem.above(weights[None])[0], rel=1e-6)


def test_steps_to_the_target_lie_between_two_looks(work):
    steps, above = (1, 4, 16, 64), np.array([1.0, 0.1, 0.01, 0.001])
    assert work._crossing(steps, above, 0.1) == 4
    assert work._crossing(steps, above, 0.1**1.5) == 8
    assert work._crossing(steps, above, 2.0) == 1
    assert work._crossing(steps, above, 1e-4) == math.inf
    assert work._crossing(steps, np.array([np.inf, 0.1, 0.01, 0.001]), 0.5) == 4


def record(steps: dict[tuple[str, int], float]) -> dict[str, Any]:
    """A data set where a method takes so many steps at a size, give or take nothing."""
    methods: dict[str, Any] = {method: {} for method in ("SGD", "EMSO, 5 steps", "EMSO, 20 steps")}
    for (method, size), number in steps.items():
        methods[method][str(size)] = {
            "tuned": {"target": {"score": number}},
            "measured": {"target": [number, number * 1.01, number * 0.99]},
        }
    return {"methods": methods, "gradient_seconds": 1e-8}


def test_costs_are_those_of_the_model_and_the_cheapest_is_taken(told):
    of = record({("SGD", 16): 1000, ("SGD", 1024): 400, ("EMSO, 5 steps", 16): 900, ("EMSO, 20 steps", 1024): 20})
    assert told.cost("EMSO, 5 steps", 16, 10, overhead=100, reading=2) == 10 * (100 + 16 * 7)
    free, method, size = told.costs(of, 0.0, 0.0)
    assert (method, size) == (("EMSO, 5 steps", 16), 16)
    assert free.estimate == pytest.approx(900 * 5 * 16 / (1000 * 16))
    dear, method, size = told.costs(of, 1e6, 0.0)
    assert (method, size) == (("EMSO, 20 steps", 1024), 1024)
    assert dear.estimate == pytest.approx(20 * (1e6 + 20 * 1024) / (400 * (1e6 + 1024)))
    # 20 (a + 20480) = 1000 (a + 16) at a = 401; the steps of a tenth of a decade above are told.
    even = told.breaks_even(of)
    assert 401 < even < 401 * 10 ** (2 / 4)
    assert told.costs(of, even, 0.0)[0].high < 1
    assert told.costs(record({("SGD", 16): 10}), 0.0, 0.0) is None


def test_what_missed_has_no_ratio(told):
    of = record({("SGD", 16): 1000})
    of["methods"]["SGD"]["16"]["measured"]["target"] = [10, None, 12]
    assert told.values(of, "SGD", 16, "target") == []
    assert told.ratio([], [1.0, 2.0]) is None
    assert isinstance(told.ratio([1.0, 1.1], [1.0, 0.9]), Interval)


def test_the_verdict_of_the_page_is_what_was_recorded(told: Any) -> None:
    recorded = json.loads((FOLDER / "results" / "emso-small.json").read_text())["measured"]["data"]
    page = (FOLDER.parent / "docs" / "emso.md").read_text()
    for overhead in told.OVERHEADS:
        cells = [f"{overhead:,.0f}"]
        for of in recorded.values():
            found, _, _ = told.costs(of, overhead, 0.0)
            cells.append(" ".join(units.interval(found).split()))
        assert f"| {' | '.join(cells)} |" in page
    even = [told.breaks_even(of) for of in recorded.values()]
    assert f"the gradients of {round(min(even), -2):,.0f} to {max(even):,.0f} examples" in " ".join(page.split())
