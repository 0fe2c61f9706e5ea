"""Branches of a training: to the bit what they should be, on the same examples, against moments that are exact."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from rightbatch.branching import Trunk
from rightbatch.bundled.quadratic import hessian, quadratic
from rightbatch.engine import WorkloadRunner
from rightbatch.errors import WorkloadError
from rightbatch.fit.branches import RULES, difference, local_critical_size
from rightbatch.raised import MemoryExhausted
from rightbatch.records import Trial
from rightbatch.runner import BranchesOff
from rightbatch.workload import Workload

X = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).float()
TRIAL = Trial(8, 0.01, 3)


def losses(model: nn.Module, batch: Any) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(model(batch[0])[:, 0], batch[1], reduction="none")


def workload(**others: Any) -> Workload:
    """With all that a training may carry along: dropout, moments, an average of the weights."""
    given: dict[str, Any] = {
        "name": "tiny",
        "model": lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 1)),
        "data": (X, Y),
        "valid": (X[:9], Y[:9]),
        "loss": losses,
        "optimizer": lambda parameters, trial: torch.optim.Adam(parameters, lr=trial.learning_rate),
        "averaging_examples": 50.0,
        "max_gradient_norm": 1.0,
    }
    return Workload(**{**given, **others})


def trunk_of(made: Workload, trial: Trial = TRIAL, widest: int = 4) -> Trunk:
    return WorkloadRunner(made).trunk(trial, widest)


# ------------------------------------------------------------------------------------------- the trunk's own self


@pytest.mark.parametrize("start", [0, 5, 12, 13])  # 12 batches a pass: in it, at its end, in the next
def test_a_branch_in_the_trunks_own_order_is_the_trunk_that_goes_on(start: int) -> None:
    trunk = trunk_of(workload())
    trunk.advance(start)
    branch = trunk.branch(1, 1.0, None, 17 * 8)
    assert branch == trunk.advance(start + 17)


def test_branches_leave_the_trunk_as_it_is() -> None:
    alone, branched = trunk_of(workload()), trunk_of(workload())
    for step in (0, 4, 20):
        assert alone.advance(step) == branched.advance(step)
        for factor in (1, 4):
            torch.manual_seed(factor)
            branched.branch(factor, 2.0, 9, 96)
    assert alone.advance(31) == branched.advance(31)
    for mine, other in zip(alone.stepper.model.parameters(), branched.stepper.model.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_a_branch_is_the_same_each_time_and_another_one_for_another_seed() -> None:
    trunk = trunk_of(workload())
    trunk.advance(7)
    first = trunk.branch(2, 1.4, 5, 160)
    assert trunk.branch(2, 1.4, 6, 160) != first
    assert trunk.branch(2, 1.4, 5, 160) == first
    other = trunk_of(workload())
    other.advance(3)
    other.advance(7)
    assert other.branch(2, 1.4, 5, 160) == first


def test_a_runner_of_workloads_branches_off() -> None:
    assert isinstance(WorkloadRunner(workload()), BranchesOff)


# ---------------------------------------------------------------------------------------------- the same examples


@pytest.mark.parametrize("kind", ["tensors", "dataset"])
def test_every_size_sees_the_same_examples_in_the_same_order_beyond_the_first_pass(kind: str) -> None:
    seen: list[torch.Tensor] = []

    def watched(model: nn.Module, batch: Any) -> torch.Tensor:
        if model.training:
            seen.append(batch[1])
        return (model(batch[0])[:, 0] - batch[1]) ** 2

    numbered = (torch.cat([X, X[:20]]), torch.arange(120.0) / 120)
    data = numbered if kind == "tensors" else TensorDataset(*numbered)
    trunk = trunk_of(workload(data=data, loss=watched), widest=4)
    trunk.advance(2)
    found = {}
    for factor in (1, 2, 4):
        seen.clear()
        trunk.branch(factor, 1.0, 5, 5 * 32)  # a pass of 120 has room for 15 batches of 8, 7 of 16, 3 of 32
        assert {len(batch) for batch in seen} == {factor * 8}
        found[factor] = torch.cat(seen)
    assert len(found[1]) == 160
    assert torch.equal(found[1], found[2])
    assert torch.equal(found[1], found[4])
    assert len(found[1][:96].unique()) == 96
    seen.clear()
    trunk.branch(1, 1.0, 6, 160)
    assert not torch.equal(torch.cat(seen), found[1])


# --------------------------------------------------------------------------------------------------- exact moments


def moments(start: np.ndarray, steps: float, rate: float, size: float) -> np.ndarray:
    """E[theta^2] of the noisy quadratic after plain SGD, from given second moments."""
    decay = (1 - rate * hessian()) ** 2
    return decay**steps * start + rate**2 * hessian() / size * (1 - decay**steps) / (1 - decay)


def expected(start: np.ndarray, steps: float, rate: float, size: float) -> float:
    return float(0.5 * np.sum(hessian() * moments(start, steps, rate, size)))


def squares(trunk: Trunk) -> np.ndarray:
    return trunk.stepper.model.theta.detach().numpy() ** 2  # type: ignore[union-attr,operator]


def test_a_branch_keeps_the_rate_in_force_times_its_factor() -> None:
    """Without noise the loss is exact: 6 steps at a rate that has fallen to a quarter, then constant, times sqrt 2."""

    def halving(optimizer: torch.optim.Optimizer, trial: Trial) -> Any:
        return torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)

    trunk = trunk_of(replace(quadratic(noise=0.0), schedule=halving), Trial(8, 0.4, 0))
    trunk.advance(6)
    assert trunk.learning_rate == pytest.approx(0.1)
    before = squares(trunk)
    for factor, times in ((1, 1.0), (2, math.sqrt(2)), (4, 4.0)):
        exact = float(0.5 * np.sum(hessian() * (1 - 0.1 * times * hessian()) ** (2 * 24 / factor) * before))
        assert trunk.branch(factor, times, 1, 24 * 8) == pytest.approx(exact, rel=1e-10)
    assert trunk.learning_rate == pytest.approx(0.1)


def test_the_mean_loss_of_branches_is_the_closed_form() -> None:
    trunk = trunk_of(quadratic(), Trial(4, 0.5, 0))
    trunk.advance(12)
    start = squares(trunk)
    for factor, rule in ((1, "constant"), (4, "sqrt"), (2, "linear")):
        times = RULES[rule](factor)
        ends = [trunk.branch(factor, times, seed, 128) for seed in range(1, 25)]
        exact = expected(start, 32 / factor, 0.5 * times, 4 * factor)
        assert abs(np.mean(ends) - exact) < 3 * np.std(ends, ddof=1) / math.sqrt(len(ends))


def test_intervals_hold_the_exact_local_size_which_grows_along_the_training() -> None:
    """Forty trainings, half of them looked at early and half late; the exact size follows from the weights there."""
    size, rate, factors, examples, seeds = 8, 0.5, (2, 4, 8), 128, 3
    few = quadratic()
    runner = WorkloadRunner(replace(few, data=few.data[:512]))  # all are alike; fewer are shuffled faster
    held, trues, found = [], {4: [], 64: []}, {4: [], 64: []}  # type: ignore[var-annotated]
    for repeat in range(40):
        step = (4, 64)[repeat % 2]
        trunk = runner.trunk(Trial(size, rate, 100 * repeat), factors[-1])
        loss, start = trunk.advance(step), squares(trunk)
        exact = {
            k: expected(start, examples / (k * size), rate * math.sqrt(k), k * size)
            for k in np.geomspace(1, factors[-1], 400)
        }
        own = exact[1.0]
        tolerance = 0.1 * own
        trues[step].append(size * next((k for k, one in exact.items() if one - own > tolerance), math.inf))
        ends = {
            k: [trunk.branch(k, math.sqrt(k), 100 * repeat + 1 + seed, examples) for seed in range(seeds)]
            for k in (1, *factors)
        }
        differences = {k: difference(ends[1], ends[k]) for k in factors}
        found[step].append(local_critical_size("sqrt", size, differences, tolerance, loss).size)
        held.append(found[step][-1].low <= trues[step][-1] <= found[step][-1].high)
    assert np.mean(held) >= 0.93
    assert max(trues[4]) < 2 * size < 4 * size < np.median(trues[64])
    assert np.median([one.high for one in found[4]]) <= 4 * size < np.median([one.high for one in found[64]])
    assert np.median([one.estimate for one in found[4]]) < 2 * size < np.median([one.estimate for one in found[64]])


# ---------------------------------------------------------------------------------------------- what can go wrong


def test_a_branch_that_diverges_is_infinitely_bad() -> None:
    trunk = trunk_of(quadratic(), Trial(8, 0.5, 0))
    trunk.advance(3)
    assert trunk.branch(4, 4.5, 1, 640) == math.inf  # ten times as bad as at the start
    assert trunk.branch(4, 1e200, 1, 640) == math.inf  # not a number
    assert math.isfinite(trunk.branch(4, 1.0, 1, 640))


def test_what_makes_branches_hard_to_compare_is_said() -> None:
    def loader(batch_size: int, seed: int) -> Iterator[Any]:
        order = torch.randperm(100, generator=torch.Generator().manual_seed(seed))
        return ((X[rows], Y[rows]) for rows in order.split(batch_size))

    assert trunk_of(workload()).cautions == ()
    streamed = trunk_of(workload(data=loader, train_examples=100))
    assert ["loader" in said for said in streamed.cautions] == [True]
    streamed.advance(2)
    assert math.isfinite(streamed.branch(4, 1.0, 1, 160))
    normed = workload(model=lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)))
    assert ["BatchNorm" in said for said in trunk_of(normed).cautions] == [True]


def test_errors_of_the_workload_say_where_and_memory_is_told_apart() -> None:
    def fussy(model: nn.Module, batch: Any) -> torch.Tensor:
        if len(batch[0]) == 16:
            raise ValueError("no sixteens")
        if len(batch[0]) == 32:
            raise MemoryError
        return losses(model, batch)

    trunk = trunk_of(workload(loss=fussy))
    trunk.advance(1)
    with pytest.raises(WorkloadError, match=r"no sixteens \(in a branch of batch_size=16, seed=1, after step 1\)"):
        trunk.branch(2, 1.0, 1, 160)
    with pytest.raises(MemoryExhausted):
        trunk.branch(4, 1.0, 1, 160)
    assert math.isfinite(trunk.branch(1, 1.0, 1, 160))
