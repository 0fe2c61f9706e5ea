"""`branches`: the local critical batch size along one training, measured by short branches off it."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rightbatch.errors import InputError, InsufficientEvidence
from rightbatch.fit.branches import OWN_RATE, RULES, Fork, base_rate, fork_of, surely_fails, tolerance_of
from rightbatch.pipeline.runners import StartFrom, as_runner
from rightbatch.pipeline.setting_up import (
    Ask,
    facts_as_asked,
    first_choice,
    gather,
    open_study,
    question,
    stated_target,
)
from rightbatch.raised import MemoryExhausted
from rightbatch.records import Settings, Trial, WorkloadFacts
from rightbatch.runner import BranchesOff, Runner, Trunk
from rightbatch.store import Study

STEPS = 300
CHECKPOINTS = (1 / 16, 1 / 4, 1.0)
"""Where branches begin unless somebody says otherwise, in shares of the trunk: what changes does so early."""

FACTORS = (2, 4, 8, 16)
LEAST_STEPS = 16
"""Of the branch with the largest batch: fewer would be no training that a rate could be judged by."""

SEEDS = 3

Cell = tuple[float, ...]
"""The losses of branches of one size and rate, one a seed."""


@dataclass(frozen=True)
class BranchPlan:
    """What will be trained at most.

    at: The steps of the trunk at which branches begin.
    factors: The multiples of the batch size of the trunk, each a multiple of the one before.
    branch_examples: How long every branch is.
    """

    batch_size: int
    at: tuple[int, ...]
    factors: tuple[int, ...]
    rules: tuple[str, ...]
    seeds: tuple[int, ...]
    branch_examples: int

    @property
    def trunk_examples(self) -> int:
        """Of the trunk alone."""
        return self.at[-1] * self.batch_size

    @property
    def most_examples(self) -> int:
        """Of all branches, if every rule keeps up at every size."""
        larger = list(itertools.product(self.rules, self.factors))
        cells = len({OWN_RATE, *itertools.starmap(base_rate, larger)}) + len(larger)
        return len(self.at) * cells * len(self.seeds) * self.branch_examples


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
    size, rate = first_choice(facts)
    trial = Trial(
        batch_size or size, learning_rate or rate, seed, facts.planned_examples or None, Settings(ask.settings)
    )
    tried = _factors(factors, trial.batch_size, facts)
    with open_study(study, runner.facts) as kept:
        if at is None:
            at = (0,) if start_from is not None else _checkpoints(kept, runner, ask, trial)
        plan = BranchPlan(
            batch_size=trial.batch_size,
            at=_steps(at),
            factors=tried,
            rules=_rules(rules),
            seeds=_seeds(seed, seeds),
            branch_examples=_whole(branch_examples, tried[-1] * trial.batch_size),
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


# ---------------------------------------------------------------------------------------------------- the plan


def _checkpoints(study: Study, runner: Runner, ask: Ask, trial: Trial) -> tuple[int, ...]:
    length = _steps_to_target(study, runner, ask, trial) or min(STEPS, trial.planned_steps or STEPS)
    return tuple(sorted({max(1, round(share * length)) for share in CHECKPOINTS}))


def _steps_to_target(study: Study, runner: Runner, ask: Ask, trial: Trial) -> int | None:
    """What a run of this size and rate needed; None where the study has no target, or none that reached it."""
    target = stated_target(study, ask)
    if target is None:
        return None
    evidence = gather(study, facts_as_asked(study.facts, ask), question(ask, target), runner=runner, ask=ask)
    crossings = (evidence.crossing(run) for run in evidence.runs_at(trial.batch_size, trial.learning_rate))
    return next((math.ceil(found.steps) for found in crossings if found is not None), None)


def _factors(factors: Sequence[int], batch_size: int, facts: WorkloadFacts) -> tuple[int, ...]:
    listed = tuple(factors)
    if not listed or listed[0] < 2 or any(low >= high or high % low for low, high in itertools.pairwise(listed)):
        raise InputError(
            f"Factors are whole numbers from 2, each a multiple of the one before (2, 4, 8, 16): so branches see the "
            f"same examples. Got {list(listed)}."
        )
    most = facts.train_examples or math.inf
    fitting = tuple(factor for factor in listed if factor * batch_size <= most)
    if not fitting:
        raise InputError(
            f"{listed[0]} times the batch size {batch_size} is more than all {facts.train_examples} training examples. "
            f"Choose a smaller --batch-size."
        )
    return fitting


def _steps(at: Sequence[int]) -> tuple[int, ...]:
    if not at or min(at) < 0:
        raise InputError(f"Checkpoints are steps of the trunk, whole numbers from 0; got {list(at)}.")
    return tuple(sorted(set(at)))


def _rules(rules: Sequence[str]) -> tuple[str, ...]:
    unknown = [rule for rule in rules if rule not in RULES]
    if unknown or not rules:
        raise InputError(f"Rules for the rate are {', '.join(RULES)}; got {', '.join(unknown) or 'none'}.")
    return tuple(dict.fromkeys(rules))


def _seeds(seed: int, seeds: int) -> tuple[int, ...]:
    if seeds < 2:
        raise InputError(f"At least 2 seeds are needed to see what a difference of losses is worth, got {seeds}.")
    # Not that of the trunk: its first branch would see again what the trunk has just seen.
    return tuple(range(seed + 1, seed + 1 + seeds))


def _whole(examples: int | None, unit: int) -> int:
    """So many examples, rounded up to whole batches of the largest size."""
    if examples is None:
        return LEAST_STEPS * unit
    if examples < 1:
        raise InputError(f"A branch has at least one example, got {examples}.")
    return -(-examples // unit) * unit
