"""`memory`: the largest batch that really fits, and how a wished one that does not is trained all the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rightbatch.another_batch import RULES, Plan, moved
from rightbatch.errors import InputError
from rightbatch.fit.memory import CURVATURE, CURVATURE_OF_HEAPS, MemoryFit, fit_memory
from rightbatch.memory_answer import Accumulated, MemoryReport
from rightbatch.memory_room import HEADROOM, free_bytes, parse_bytes
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.first_choice import first_choice
from rightbatch.pipeline.memory_probes import Probes
from rightbatch.pipeline.runners import as_runner, maker_of
from rightbatch.pipeline.setting_up import facts_as_asked, open_study
from rightbatch.probing import Allowance, Prober
from rightbatch.records import MemoryProbe
from rightbatch.runner import MeasuresMemory, Runner
from rightbatch.search.largest import reach
from rightbatch.store import Study
from rightbatch.wording import bytes_text, counted
from rightbatch.worker import Setup
from rightbatch.workers import pickled_maker


def memory(
    workload: Any,
    *,
    limit: int | str | None = None,
    headroom: float = HEADROOM,
    wish: int | None = None,
    instead: str | None = None,
    study: str | Path | None = None,
    again: bool = False,
    device: str | None = None,
    threads: int | None = None,
    watch: Callable[[MemoryProbe], None] = lambda probe: None,
    **asked: Any,
) -> MemoryReport:
    """Find the largest batch that fits, by running few sizes, each in a process of its own. It is kept in the study.

    Parameters
    ----------
    workload: A `Workload` or its name. What a loop or a program takes cannot be seen.
    limit: Bytes, or a text such as "8GB", that the training may hold: on a CPU the whole process; None: what is free.
    headroom: The share of the limit that stays free.
    wish: A batch size that is to be trained with: where it does not fit, how it is accumulated is found and run.
    instead: A rule of `another_batch.RULES`: where the wished batch does not fit in one pass, what becomes of rate,
        steps and passes at the largest that does. The rule starts from what the person trains with now.
    again: Whether to measure sizes that the study knows already.
    watch: Is told of every size that was tried.

    Raises
    ------
    InputError: For what is no `Workload`, cannot be sent to another process, or holds more before there is a model.
    WorkloadError: When the person's code raised.
    """
    began = time.monotonic()
    how: dict[str, Any] = {"ask": Ask(**asked), "device": device, "threads": threads}
    runner = as_runner(workload, **how)
    allowance = _allowance(workload, runner, how, limit, headroom)
    if instead is not None and instead not in RULES:
        raise InputError(f"There is no rule {instead!r} for another batch size; there are {', '.join(RULES)}.")
    examples = runner.facts.train_examples
    if wish is not None and wish > examples:
        raise InputError(f"A batch of {wish:,} is wished, and there are {examples:,} examples. Wish for at most these.")
    with open_study(study, runner.facts, given=workload) as kept, Prober(allowance) as prober:
        probes = Probes(kept, runner.environment, prober, allowance, watch, again)
        try:
            batch_size = probes.search(examples)
            wished = probes.accumulate(wish, batch_size) if wish is not None and batch_size else None
        finally:
            kept.add_cost("memory", time.monotonic() - began)
    report = _report(runner, probes, batch_size, wished, time.monotonic() - began)
    if instead is None or wish is None or not 0 < batch_size < wish:
        return report
    facts = facts_as_asked(runner.facts, how["ask"])
    now = Plan(*first_choice(facts), facts.planned_examples or None)
    plans = (now, moved(now, wish, instead), moved(now, batch_size, instead))
    return replace(report, plans=plans, by=instead)


def fitting(study: Study, workload: Any, how: dict[str, Any], limit: int | str | None, ran: int = 0) -> Runner:
    """A runner that accumulates batches of more examples than fit in one pass; `how` is what `as_runner` takes.

    `how` is completed, so that runners of other processes do the same. `ran` is the largest size that this process has
    made steps of: another one beside it finds less memory than there is. Raises `InputError` where nothing fits.
    """
    began = time.monotonic()
    runner = as_runner(workload, **how)
    allowance, examples = _allowance(workload, runner, how, limit, HEADROOM), runner.facts.train_examples
    # Gradients are there while later parts are passed: what fits in one pass may not fit in each of two. Half does.
    floor, largest, accumulated = ran // 2, 0, None
    with Prober(allowance) as prober:
        probes = Probes(study, runner.environment, prober, allowance, lambda probe: None, again=False)
        try:
            largest = probes.search(examples)
            accumulated = probes.accumulate(min(2 * largest, examples), largest) if 0 < largest < examples else None
        except InputError:
            if not floor:  # else there is no room for another process, and what is known of this one must do
                raise
        finally:
            study.add_cost("memory", time.monotonic() - began)
    if largest == floor == 0:
        raise InputError(
            f"Not even a batch of one example of {runner.facts.name!r} fits into {bytes_text(probes.limit_bytes)}: "
            f"`rightbatch memory` tells what takes it. Allow more, or make the model smaller."
        )
    if largest == examples:
        return runner
    found = accumulated.micro_batch_size if accumulated is not None else max(1, largest // 2)
    how["micro_batch_size"] = max(found, floor)
    return as_runner(workload, **how)


def cautions_of_fitting(study: Study, runner: Runner) -> tuple[str, ...]:
    """What an answer says where batches were accumulated."""
    micro = runner.environment.micro_batch_size
    if micro is None:
        return ()
    said = f"batches of more than {micro:,} examples do not fit in one pass: they were accumulated from parts"
    probes = study.memory_probes(replace(runner.environment, micro_batch_size=None))
    normalising = next((p.parts.normalising for p in probes if p.parts is not None), ())
    if normalising:
        said += f"; {counted(len(normalising), 'module')} ({normalising[0]} ...) normalise over each part by itself"
    return (said,)


def _allowance(
    workload: Any, runner: Runner, how: dict[str, Any], limit: int | str | None, headroom: float
) -> Allowance:
    """What a training may hold, and how another process makes its runner."""
    if not isinstance(runner, MeasuresMemory):
        raise InputError(
            f"What memory {runner.facts.name!r} takes cannot be seen: only a rightbatch.Workload lets a few steps be "
            f"made by themselves. In a loop of your own, rightbatch.attempts finds a micro-batch that fits."
        )
    if not 0 <= headroom < 1:
        raise InputError(f"The headroom is a share of the limit, at least 0 and less than 1, got {headroom}.")
    asked = parse_bytes(limit) if isinstance(limit, str) else limit
    kind = runner.environment.device
    free = free_bytes()
    whole = free if asked is None or kind != "cpu" else min(free, asked)
    threads = how.get("threads") or runner.environment.threads
    setup = Setup.of(pickled_maker(maker_of(workload, runner, **how)), threads)
    return Allowance(setup, int((1 - headroom) * whole), asked, headroom, on_cpu=kind == "cpu")


def _report(
    runner: Runner, probes: Probes, batch_size: int, wished: Accumulated | None, seconds: float
) -> MemoryReport:
    increases = probes.increases
    curvature = CURVATURE_OF_HEAPS if probes.allowance.on_cpu else CURVATURE
    fit = fit_memory(increases, curvature) if increases else None
    examples = runner.facts.train_examples
    peaks = [p.peak_bytes for p in probes.probes if p.batch_size == batch_size and p.accumulation_steps == 1]
    failures = [p for p in probes.probes if p.accumulation_steps == 1 and probes.fits(p) is False]
    why = next((p.why for p in reversed(failures) if p.batch_size == min(probes.failed)), "") if failures else ""
    return MemoryReport(
        workload=runner.facts.name,
        device=probes.environment.device,
        batch_size=batch_size,
        at_most=None if batch_size == examples else _at_most([*probes.failed, *probes.refused], fit, probes),
        train_examples=examples,
        peak_bytes=max((peak for peak in peaks if peak is not None), default=None),
        limit_bytes=probes.limit_bytes,
        asked_bytes=probes.allowance.limit_bytes,
        headroom=probes.allowance.headroom,
        before_bytes=probes.before_bytes,
        fit=fit,
        parts=next((p.parts for p in reversed(probes.probes) if p.parts is not None), None),
        wished=wished,
        probes=tuple(probes.probes),
        why=why,
        refused=next((f"at {size:,}: {message}" for size, message in probes.refused.items()), ""),
        wall_seconds=seconds,
    )


def _at_most(failed: Sequence[int], fit: MemoryFit | None, probes: Probes) -> int | None:
    """The smaller of what failed and of what the slope allows."""
    bounds = [size - 1 for size in failed]
    if fit is not None and fit.slope_known:
        bounds.append(int(reach(fit, probes.limit_bytes - probes.before_bytes)))
    return min(bounds, default=None)


def largest_batch(workload: Any, **how: Any) -> int:
    """The largest batch size that was run and fits; 0 where not even one example does. `memory` tells more."""
    return memory(workload, **how).batch_size
