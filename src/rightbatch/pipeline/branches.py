"""`branches`: the local critical batch size along one training, measured by short branches off it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rightbatch.errors import InputError, InsufficientEvidence
from rightbatch.fit.branches import OWN_RATE, RULES, Fork, base_rate, fork_of, surely_fails, tolerance_of
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.branch_plan import (
    BranchPlan,
    factors_within,
    known_rules,
    seeds_after,
    steps_of,
    whole_batches,
)
from rightbatch.pipeline.first_choice import first_trial
from rightbatch.pipeline.runners import StartFrom, as_runner
from rightbatch.pipeline.setting_up import evidence_so_far, facts_as_asked, open_study, steps_to_target
from rightbatch.raised import MemoryExhausted
from rightbatch.records import Trial
from rightbatch.runner import BranchesOff, Trunk

STEPS = 300
CHECKPOINTS = (1 / 16, 1 / 4, 1.0)
"""Where branches begin unless somebody says otherwise, in shares of the trunk: what changes does so early."""

FACTORS = (2, 4, 8, 16)
SEEDS = 3

Cell = tuple[float, ...]
"""The losses of branches of one size and rate, one a seed."""


@dataclass(frozen=True)
class BranchReport:
    """The local critical batch size at some checkpoints of one training.

    forks: One a checkpoint: its losses, and the local critical size by each rule and by the best one at each size.
    branched_examples: How many examples the branches took, all together.
    stopped: Why not all that was planned was measured; empty where it was.
    """

    workload: str
    batch_size: int
    learning_rate: float
    plan: BranchPlan
    forks: tuple[Fork, ...]
    cautions: tuple[str, ...]
    branched_examples: int
    stopped: str
    wall_seconds: float


def branches(
    workload: Any,
    *,
    study: str | Path | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    at: Sequence[int] | None = None,
    factors: Sequence[int] = FACTORS,
    rules: Sequence[str] = tuple(RULES),
    seeds: int = SEEDS,
    seed: int = 0,
    branch_examples: int | None = None,
    tolerance: float | None = None,
    budget: float | None = None,
    start_from: StartFrom | None = None,
    device: str | None = None,
    threads: int | None = None,
    watch: Callable[[BranchPlan, int], None] = lambda plan, examples: None,
    **asked: Any,
) -> BranchReport:
    """Train for a while, and from some checkpoints of it short branches at larger batch sizes, on the same examples.

    The local critical batch size (Merrill et al. 2025, arXiv 2505.23971) is the largest whose loss keeps up with that
    of the trunk's own. What it took is kept in the study, the losses are in the report alone.

    Parameters
    ----------
    workload: A `Workload` or its name. Loops and programs cannot be branched.
    batch_size, learning_rate: Of the trunk. None: what the person trains with now.
    at: Steps of the trunk at which branches begin. None: at 1/16, 1/4 and all of as many steps as a run of the study
        with this size and rate needed to the target, else of 300.
    factors: Multiples of the batch size to try, each a multiple of the one before; larger ones than the data are left
        out.
    rules: How the rate grows with the batch: names in `fit.branches.RULES`.
    seeds: Orders of the data that every branch is trained in; `seed` is that of the trunk.
    branch_examples: Length of a branch, rounded up to whole steps of the largest batch. None: 16 of these steps.
    tolerance: By how much the loss of a branch may be worse. None: 1 % of the loss of the trunk's own branch.
    budget: Wall seconds after which no branch begins.
    start_from: A checkpoint of one's own: branches begin there, and there alone. It has weights, no optimizer state.
    watch: Is told of the plan before anything is trained, and of the examples of the branches after each.

    Raises
    ------
    InputError: For what cannot be branched, options that cannot be, or a trunk that diverges.
    InsufficientEvidence: When the budget ended before one checkpoint was compared with one larger size.
    """
    ask = Ask(**asked)
    runner = as_runner(workload, ask=ask, device=device, threads=threads, start_from=start_from)
    if not isinstance(runner, BranchesOff):
        raise InputError(
            f"A training of {runner.facts.name!r} cannot be branched: only one of a rightbatch.Workload can, whose "
            f"weights and optimizer state are known."
        )
    if start_from is not None and at is not None:
        raise InputError(
            f"Branches from a checkpoint of your own begin there, at step 0; got at={list(at)} too. Leave one out."
        )
    if budget is not None and not budget > 0:
        raise InputError(f"A budget is a positive number of wall seconds, got {budget:g}.")
    if tolerance is not None:
        tolerance_of((), tolerance)
    facts = facts_as_asked(runner.facts, ask)
    trial = first_trial(facts, ask, seed, batch_size=batch_size, learning_rate=learning_rate)
    tried = factors_within(factors, trial.batch_size, facts)
    with open_study(study, runner.facts, given=workload) as kept:
        if at is None:
            needed = steps_to_target(evidence_so_far(kept, runner, ask), trial)
            at = (0,) if start_from is not None else _checkpoints(needed, trial)
        plan = BranchPlan(
            batch_size=trial.batch_size,
            at=steps_of(at),
            factors=tried,
            rules=known_rules(rules),
            seeds=seeds_after(seed, seeds),
            branch_examples=whole_batches(branch_examples, tried[-1] * trial.batch_size),
        )
        watch(plan, 0)
        began = time.monotonic()
        try:
            trunk = runner.trunk(trial, tried[-1])
            measured = _Measured(plan, trunk, math.inf if budget is None else began + budget, watch)
            forks = _forks(measured, tolerance)
        except MemoryExhausted as error:
            raise InputError(
                f"The trunk with batch size {trial.batch_size} does not fit into memory: {error}. Choose a smaller "
                f"--batch-size."
            ) from error
        finally:
            seconds = time.monotonic() - began
            kept.add_cost("branches", seconds)
    if not forks:
        raise InsufficientEvidence(
            f"Nothing was measured: {measured.stopped} before a checkpoint was compared with one larger size. Give a "
            f"larger --budget, a smaller --batch-size, or shorter branches (--branch-examples, now "
            f"{plan.branch_examples:,})."
        )
    fresh = ("the checkpoint has weights alone: the optimizer state of every branch starts afresh",)
    return BranchReport(
        workload=facts.name,
        batch_size=trial.batch_size,
        learning_rate=trial.learning_rate,
        plan=plan,
        forks=tuple(forks),
        cautions=(*(fresh if start_from is not None else ()), *trunk.cautions),
        branched_examples=measured.examples,
        stopped=measured.stopped,
        wall_seconds=seconds,
    )


# --------------------------------------------------------------------------------------------------- measuring


@dataclass
class _Measured:
    """Branches of one trunk, until the time or the memory is out: `stopped` then says which."""

    plan: BranchPlan
    trunk: Trunk
    deadline: float
    watch: Callable[[BranchPlan, int], None]
    examples: int = 0
    stopped: str = ""

    def out_of_time(self) -> bool:
        """Whether no branch may begin any more."""
        over = time.monotonic() >= self.deadline
        if over:
            self.stopped = "the budget ended"
        return over

    def all_of(self, wanted: Sequence[tuple[int, float]]) -> dict[tuple[int, float], Cell] | None:
        """The losses by factor and rate factor; None where they could not all be had."""
        cells = {}
        for factor, rate_factor in dict.fromkeys(wanted):
            cell = self.cell(factor, rate_factor)
            if cell is None:
                return None
            cells[factor, rate_factor] = cell
        return cells

    def cell(self, factor: int, rate_factor: float) -> Cell | None:
        """The losses of one size and rate, one a seed; None where they could not all be had."""
        losses = []
        for seed in self.plan.seeds:
            if self.out_of_time():
                return None
            try:
                losses.append(self.trunk.branch(factor, rate_factor, seed, self.plan.branch_examples))
            except MemoryExhausted:
                self.stopped = f"batch size {factor * self.plan.batch_size} did not fit into memory"
                return None
            self.examples += self.plan.branch_examples
            self.watch(self.plan, self.examples)
        return tuple(losses)


def _checkpoints(needed: int | None, trial: Trial) -> tuple[int, ...]:
    length = needed or min(STEPS, trial.planned_steps or STEPS)
    return tuple(sorted({max(1, round(share * length)) for share in CHECKPOINTS}))


def _forks(measured: _Measured, tolerance: float | None) -> list[Fork]:
    plan, forks = measured.plan, []
    for step in plan.at:
        if measured.out_of_time():
            break
        loss = measured.trunk.advance(step)
        if not math.isfinite(loss):
            raise InputError(
                f"The loss of the trunk is {loss} after step {step}: with batch_size={plan.batch_size} the training "
                f"diverges. Choose a lower --learning-rate."
            )
        own = measured.cell(1, OWN_RATE)
        if own is None:
            break
        if not all(math.isfinite(one) for one in own):
            raise InputError(
                f"A branch with the trunk's own batch size {plan.batch_size} and rate diverges after step {step}. "
                f"Choose a lower --learning-rate."
            )
        base, losses = _tried(measured, own, tolerance_of(own, tolerance))
        if any(losses.values()):
            forks.append(
                fork_of(
                    step=step,
                    learning_rate=measured.trunk.learning_rate,
                    loss=loss,
                    batch_size=plan.batch_size,
                    base=base,
                    losses=losses,
                    tolerance=tolerance,
                )
            )
    return forks


def _tried(measured: _Measured, own: Cell, tolerance: float) -> tuple[dict[float, Cell], dict[str, dict[int, Cell]]]:
    """The losses at the trunk's own size by rate, and those at larger ones by rule and factor, from the smallest up.

    No rule goes on beyond a size at which it surely fails. A size at which not all that was wanted could be had has no
    best rule, and is left out.
    """
    base, losses = {OWN_RATE: own}, {rule: dict[int, Cell]() for rule in measured.plan.rules}
    keeping_up = list(losses)
    for factor in measured.plan.factors:
        wanted = [(1, base_rate(rule, factor)) for rule in losses if base_rate(rule, factor) not in base]
        wanted += [(factor, RULES[rule](factor)) for rule in keeping_up]
        cells = measured.all_of(wanted)
        if cells is None:
            break
        base |= {rate: cell for (k, rate), cell in cells.items() if k == 1}
        for rule in tuple(keeping_up):
            losses[rule][factor] = cells[factor, RULES[rule](factor)]
            if surely_fails(own, losses[rule][factor], tolerance):
                keeping_up.remove(rule)
        if not keeping_up:
            break
    return base, losses
