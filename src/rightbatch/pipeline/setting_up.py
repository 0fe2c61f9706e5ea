"""What every verb does first, once it has its runner: the study, the question, the evidence."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from rightbatch import curves
from rightbatch.batch_schedule import SETTING, sizes_of
from rightbatch.errors import ChangedCodeError, InputError, InsufficientEvidence
from rightbatch.evidence import Evidence
from rightbatch.pipeline.asking import Ask, keep_asked
from rightbatch.pipeline.desk import Watch, unwatched
from rightbatch.pipeline.first_choice import first_choice, usual_rate
from rightbatch.pipeline.loop import drive
from rightbatch.pipeline.runners import as_given
from rightbatch.question import Objective, Question
from rightbatch.recommend import parse_objective
from rightbatch.records import Run, Settings, Target, Trial, WorkloadFacts
from rightbatch.runner import Runner, changes_batch_size, check_settings
from rightbatch.search.strategy import fixed
from rightbatch.store import Study

GAIN_FORGONE = 0.02
"""Without a target, one is set this share of the gain short of what the present choice reaches."""


# ------------------------------------------------------------------------------------------------------- studies


def default_study(name: str) -> Path:
    """Where the study of a workload is kept unless somebody says otherwise: `NAME.study.db` in this folder."""
    return Path(re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") + ".study.db")


ChangedCode = Literal["refuse", "mix"]
"""What to do where the code of the workload has changed since its study began."""


def open_study(
    path: str | Path | None, facts: WorkloadFacts, changed_code: ChangedCode = "refuse", *, given: Any = None
) -> Study:
    """The study of a workload, to write. `given` is what the person named the workload by.

    The number of training examples is taken over if the study does not know it yet.

    Raises `ChangedCodeError` if the workload's code has changed since it began, unless `changed_code` is "mix": the
    study then goes on with both, and its answers say so.
    """
    facts = replace(facts, given=as_given(given))
    study = Study.open_or_create(path or default_study(facts.name), facts)
    held = study.facts
    mixed = held.source != facts.source and _measured(study)
    if mixed and changed_code != "mix":
        study.close()
        raise ChangedCodeError(
            f"The code of {facts.name!r}, or the checkpoint that its runs start from, has changed since {study.path} "
            f"began (source {held.source}, now {facts.source}). Runs of both would be mixed: choose a new study with "
            f"--study, restore the code, or, if the change cannot matter, go on with --changed-code mix."
        )
    known = replace(
        held,
        train_examples=held.train_examples or facts.train_examples,
        source=facts.source,
        given=facts.given or held.given,
        earlier_sources=tuple(
            source
            for source in dict.fromkeys((*held.earlier_sources, *([held.source] if mixed else [])))
            if source != facts.source
        ),
    )
    if known != held:
        study.replace_facts(known)
    return study


def _measured(study: Study) -> bool:
    """Whether a study has anything that another version of the code could differ in."""
    return bool(study.step_times() or study.gradient_samples()) or largest_that_fits(study) is not None or judged(study)


# ----------------------------------------------------------------------------------------------------- questions


def ask_of(study: Study, runner: Runner, ask: Ask) -> None:
    """Keep in the study what is asked of it, once it has been seen that this can be asked.

    Raises `InputError` for what cannot.
    """
    _agree_on_direction(study, ask)
    _agree_on_length_bound(study, runner)
    facts = facts_as_asked(study.facts, ask)
    if facts.length_bound and not facts.planned_examples:
        raise InputError(
            f"The rate of {facts.name!r} follows a schedule to the end of a run, but how long that is planned to be "
            f"is not known. Give --planned-examples, or --epochs and --train-examples."
        )
    if facts.length_bound and (ask.objective or "").lower() == "metric":
        raise InputError(
            f"The rate of {facts.name!r} changes along a run, so runs cannot be compared at --at-seconds or "
            f"--at-examples on their way. Choose the objective time, examples or steps."
        )
    also = {SETTING} if changes_batch_size(runner) else set()
    check_settings(set(ask.settings or ()) - also, facts.settings, f"workload {facts.name!r}")
    target = stated_target(study, ask)
    asked = question(ask, target or _unreachable(facts))
    derived = target is None and asked.objective is not Objective.METRIC
    if derived and facts.present is None and usual_rate(facts.optimizer) is None:
        raise InputError(
            f"Nobody says what a run of {facts.name!r} should reach, nor what it is trained with now, which a target "
            f"could be taken from. Give --target, or --present SIZE,RATE."
        )
    keep_asked(study, ask)


def _agree_on_direction(study: Study, ask: Ask) -> None:
    """Take over the direction of a metric, where nothing was judged by another one yet."""
    facts = study.facts
    if ask.direction in (None, facts.direction):
        return
    if judged(study):
        raise InputError(
            f"The runs of {study.path} were judged with the direction {facts.direction!r} of the metric, not "
            f"{ask.direction!r}. Give --direction {facts.direction}, or choose a new study with --study."
        )
    study.replace_facts(replace(facts, direction=ask.direction))


def _agree_on_length_bound(study: Study, runner: Runner) -> None:
    """Take over that only the ends of runs count, where no run counted on its way yet."""
    if study.facts.length_bound or not runner.facts.length_bound:
        return
    if judged(study):
        raise InputError(
            f"The runs of {study.path} count at every evaluation, not only at their ends. Leave out --length-bound, or "
            f"choose a new study with --study."
        )
    study.replace_facts(replace(study.facts, length_bound=True))


def judged(study: Study) -> bool:
    """Whether a run has come to an evaluation."""
    return any(run.points for run in study.runs())


def pose(study: Study, runner: Runner, ask: Ask, watch: Watch, seeds: Sequence[int]) -> Evidence:
    """The evidence for the question that is asked. Without any target, the present choice is run to derive one."""
    facts = facts_as_asked(study.facts, ask)
    target = stated_target(study, ask)
    if target is None:
        target = _derive_target(study, runner, facts, watch, seeds[0])
        study.set_target(target)
    return gather(study, facts, question(ask, target), runner=runner, ask=ask)


def timed_sizes(batch_sizes: Sequence[int], ask: Ask) -> tuple[int, ...]:
    """The sizes whose steps are to be timed: those that a batch schedule comes to as well."""
    return tuple(dict.fromkeys(size for first in batch_sizes for size in sizes_of(first, ask.settings or {})))


def question(ask: Ask, target: Target) -> Question:
    """The question in an objective's own terms."""
    return Question(parse_objective(ask.objective or "time"), target, ask.at_seconds, ask.at_examples)


def stated_target(study: Study, ask: Ask) -> Target | None:
    """The target that was given, else the study's own (derived before), else the workload's; None if there is none."""
    asked = asked_target(study.facts, ask)
    if ask.target is None and study.target is not None:
        return replace(study.target, rule="first_touch" if ask.first_touch else "confirmed")
    return asked


def asked_target(facts: WorkloadFacts, ask: Ask) -> Target | None:
    """The target that was given, else the workload's; None if there is none."""
    quantity = {"loss": "valid_loss", "metric": "valid_metric", None: facts.target_quantity}.get(ask.target_on)
    if quantity not in ("valid_loss", "valid_metric"):
        raise InputError(f"A target is on the 'loss' or the 'metric', got {ask.target_on!r}.")
    direction = facts.quantity_direction(quantity)
    rule: Literal["confirmed", "first_touch"] = "first_touch" if ask.first_touch else "confirmed"
    if ask.target is not None:
        return Target(ask.target, quantity, direction, rule=rule)
    if facts.target is not None:
        own = facts.target_quantity
        return Target(facts.target, own, facts.quantity_direction(own), "workload", rule)
    return None


def gather(
    study: Study, facts: WorkloadFacts, asked: Question, *, runner: Runner | None = None, ask: Ask | None = None
) -> Evidence:
    """What the study knows, with seconds of one environment only: the runner's, or the one measured most."""
    environment = runner.environment if runner else None
    evidence = Evidence(
        facts=facts,
        runs=study.runs(),
        step_times=study.step_times(environment),
        step_times_by_settings=study.step_times_by_settings(environment),
        question=asked,
        settings=Settings(ask.settings if ask else None),
        planned_examples=facts.planned_examples if runner else 0,
        gradient_samples=tuple(samples for _, samples in study.gradient_samples()),
        fits=largest_that_fits(study),
        weights=study.weights_records(),
        options=ask.options() if ask else (),
    )
    for name, value in () if runner else evidence.settings.items():  # the one measured most may have others
        evidence = evidence.with_setting(name, value)
    return evidence


def largest_that_fits(study: Study) -> int | None:
    """The largest batch that was seen to fit into memory in one pass, on any machine; None where none was tried."""
    probes = [probe for one in study.environments().values() for probe in study.memory_probes(one)]
    return max((p.batch_size for p in probes if p.fits and p.accumulation_steps == 1), default=None)


def evidence_so_far(study: Study, runner: Runner, ask: Ask) -> Evidence | None:
    """What the study knows already; None where it has no target, and so no runs that reached it."""
    target = stated_target(study, ask)
    if target is None:
        return None
    return gather(study, facts_as_asked(study.facts, ask), question(ask, target), runner=runner, ask=ask)


def steps_to_target(evidence: Evidence | None, trial: Trial) -> int | None:
    """What a run of this size and rate needed; None where none reached the target."""
    if evidence is None:
        return None
    crossings = (evidence.crossing(run) for run in evidence.runs_at(trial.batch_size, trial.learning_rate))
    return next((math.ceil(found.steps) for found in crossings if found is not None), None)


def facts_as_asked(facts: WorkloadFacts, ask: Ask) -> WorkloadFacts:
    """The facts with what the person says now: what they train with, how long a run is."""
    planned = ask.length_of_run(facts.train_examples) or facts.planned_examples
    return replace(facts, present=ask.present or facts.present, planned_examples=planned)


def _derive_target(study: Study, runner: Runner, facts: WorkloadFacts, watch: Watch, seed: int) -> Target:
    """What the present choice reaches at its planned length, less 2 % of its gain."""
    size, rate = first_choice(facts)
    quantity = facts.target_quantity
    direction = facts.quantity_direction(quantity)
    trial = Trial(size, rate, seed, facts.planned_examples)
    run = train_once(study, runner, facts, trial, "the present choice sets the target", watch=watch)
    start = getattr(run.points[0], quantity)
    reached = curves.best_value(run.points, quantity, direction)
    if reached is None or start is None or curves.diverged(run.points):
        raise InsufficientEvidence(
            f"No target was given, and the present choice (batch size {size}, rate {rate:g}) reaches nothing to take "
            f"one from: it {run.stop.reason.value if run.stop else 'did not end'}. Give --target, or another --present."
        )
    value = reached - GAIN_FORGONE * (reached - start)
    gain = f"{reached:.4g}, less 2 % of the gain from {start:.4g}"
    return Target(value, quantity, direction, f"what batch size {size} at rate {rate:g} reaches: {gain}")


def train_once(
    study: Study,
    runner: Runner,
    facts: WorkloadFacts,
    trial: Trial,
    why: str,
    *,
    models: Path | None = None,
    watch: Watch = unwatched,
) -> Run:
    """One run to its planned length, at exactly the trial's rate; that of the study where it has been made.

    `models`: the folder to which it writes its weights, where the runner keeps any.
    """
    # Any target will do while there is none: the run goes to its planned length.
    evidence = gather(study, facts, question(Ask(objective="steps"), _unreachable(facts)), runner=runner)
    evidence, _ = drive(study, runner, fixed([trial], why), evidence, models=models, watch=watch)
    wanted = (trial.batch_size, trial.learning_rate, trial.seed)
    return next(r for r in evidence.relevant if (r.trial.batch_size, r.trial.learning_rate, r.trial.seed) == wanted)


def _unreachable(facts: WorkloadFacts) -> Target:
    direction = facts.quantity_direction(facts.target_quantity)
    return Target(float("inf") if direction == "max" else float("-inf"), facts.target_quantity, direction)


def check_sizes(facts: WorkloadFacts, batch_sizes: Sequence[int]) -> None:
    """Raise `InputError` for a size that is none, or that the data does not have."""
    for size in batch_sizes:
        if size < 1 or size != int(size):
            raise InputError(f"Batch sizes are whole numbers from 1, got {size}.")
    too_large = [size for size in batch_sizes if size > (facts.train_examples or size)]
    if too_large:
        raise InputError(
            f"Batch size {too_large[0]} is larger than the data: {facts.train_examples} training examples."
        )
