"""`noise`: the gradient noise scale along a short training, and what it says of batch sizes."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rightbatch.errors import InputError
from rightbatch.evidence import Evidence
from rightbatch.fit.noise import FEWEST_SAMPLES, NoiseEstimate, critical_prior, noise_scale
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.first_choice import first_trial
from rightbatch.pipeline.runners import as_runner
from rightbatch.pipeline.searching import forecast_of
from rightbatch.pipeline.setting_up import evidence_so_far, facts_as_asked, open_study, steps_to_target
from rightbatch.recommend import laws_of
from rightbatch.records import GradientSample, Interval, Trial
from rightbatch.runner import MeasuresNoise

STEPS = 300
CURVATURE_STEPS = 32
STRETCHES = 4
"""The training is looked at in so many parts: the noise scale changes along it."""


@dataclass(frozen=True)
class NoiseReport:
    """The gradient noise scale along one training.

    noise_scale, interval: Over all steps, in examples. None where |G|^2 cannot be told from zero: the scale is then at
        least the lower bound, and nothing more is known. The upper bound of the interval is None where there is none.
    now: Over the last quarter of the training, where it is as far as it got.
    along: Over each quarter.
    at_target: Whether a run of this batch size and rate had reached the target by the end of this training.
    preconditioned: In the metric of an adaptive optimizer, tr(P Sigma) / G^T P G; None for others.
    curvature: tr(H Sigma) / G^T H G, H being the Hessian, where it was asked for.
    critical_prior: What all this says of the critical batch size at the target, with the width that the ratio of the
        two had on other problems (90 %); None where the noise scale is not bounded.
    critical_batch_size: What the study says by steps to the target, for comparison; None where it does not.
    """

    workload: str
    batch_size: int
    learning_rate: float
    noise_scale: float | None
    interval: tuple[float, float | None]
    whole: NoiseEstimate
    now: NoiseEstimate
    along: tuple[NoiseEstimate, ...]
    at_target: bool
    preconditioned: NoiseEstimate | None
    curvature: NoiseEstimate | None
    critical_prior: Interval | None
    critical_batch_size: Interval | None
    wall_seconds: float


def noise(
    workload: Any,
    *,
    study: str | Path | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    steps: int | None = None,
    curvature: bool = False,
    seed: int = 0,
    device: str | None = None,
    threads: int | None = None,
    watch: Callable[[GradientSample, int], None] = lambda sample, steps: None,
    **asked: Any,
) -> NoiseReport:
    """Train for a while and sample the gradient noise at every step. The samples are kept in the study.

    Parameters
    ----------
    workload: A `Workload` or its name. Loops and programs do not show their gradients.
    batch_size, learning_rate: None: what the person trains with now.
    steps: None: as many as a run of the study with this size and rate needed to the target, else 300.
    curvature: Whether to look at the curvature form too, at 32 of the steps. Each takes as long as about 15 steps.
    watch: Is told of every sample, and of how many steps there will be.

    Raises
    ------
    InputError: For what does not show its gradients, fewer than 16 steps, or a training that diverges.
    WorkloadError: For batches that cannot be split into micro-batches.
    """
    ask = Ask(**asked)
    runner = as_runner(workload, ask=ask, device=device, threads=threads)
    if not isinstance(runner, MeasuresNoise):
        raise InputError(
            f"The gradients of {runner.facts.name!r} cannot be seen: only a rightbatch.Workload shows them. In a loop "
            f"of your own, watch them with rightbatch.NoiseScale(model, optimizer)."
        )
    facts = facts_as_asked(runner.facts, ask)
    trial = first_trial(facts, ask, seed, batch_size=batch_size, learning_rate=learning_rate)
    if steps is not None and steps < STRETCHES * FEWEST_SAMPLES:
        raise InputError(f"At least {STRETCHES * FEWEST_SAMPLES} steps are needed to see noise, got {steps}.")
    with open_study(study, runner.facts, given=workload) as kept:
        evidence = evidence_so_far(kept, runner, ask)
        needed = steps_to_target(evidence, trial)
        planned = steps or max(STRETCHES * FEWEST_SAMPLES, needed or min(STEPS, trial.planned_steps or STEPS))
        began = time.monotonic()
        samples: list[GradientSample] = []
        try:
            curvature_steps = min(CURVATURE_STEPS, planned) if curvature else 0
            for sample in runner.gradient_samples(trial, planned, curvature_steps=curvature_steps):
                if not math.isfinite(sample.batch_squared + sample.parts_squared):
                    raise InputError(
                        f"The gradient of step {sample.step} is not finite: with batch_size={trial.batch_size} and "
                        f"learning_rate={trial.learning_rate:g} the training diverges. Choose a lower --learning-rate."
                    )
                samples.append(sample)
                if sample.metric == "plain":
                    watch(sample, planned)
        finally:
            seconds = time.monotonic() - began
            if samples:
                kept.add_gradient_samples(seed, samples)
                kept.add_cost("noise", seconds)
    return _report(facts.name, trial, samples, evidence, needed is not None and planned >= needed, seconds)


def _report(
    name: str,
    trial: Trial,
    sampled: Sequence[GradientSample],
    evidence: Evidence | None,
    at_target: bool,
    seconds: float,
) -> NoiseReport:
    samples, preconditioned, curvature = (
        [sample for sample in sampled if sample.metric == metric] for metric in ("plain", "preconditioned", "curvature")
    )
    whole = noise_scale(samples)
    prior = critical_prior(samples, at_target=at_target)
    bounded = whole.scale.high if whole.scale.high is not None and math.isfinite(whole.scale.high) else None
    edges = [len(samples) * k // STRETCHES for k in range(STRETCHES + 1)]
    along = tuple(noise_scale(samples[low:high]) for low, high in itertools.pairwise(edges))
    return NoiseReport(
        workload=name,
        batch_size=trial.batch_size,
        learning_rate=trial.learning_rate,
        noise_scale=whole.scale.estimate if bounded is not None else None,
        interval=(whole.scale.low or 0.0, bounded),
        whole=whole,
        now=along[-1],
        along=along,
        at_target=at_target,
        preconditioned=noise_scale(preconditioned) if preconditioned else None,
        curvature=noise_scale(curvature) if curvature else None,
        critical_prior=prior.interval(0.9) if prior else None,
        critical_batch_size=_critical(evidence) if evidence else None,
        wall_seconds=seconds,
    )


def _critical(evidence: Evidence) -> Interval | None:
    """The critical batch size by steps to the target, of a study that was searched."""
    tradeoff, _ = laws_of(evidence)
    forecast = forecast_of(evidence)
    return tradeoff.critical_batch_size if tradeoff else forecast.critical_batch_size if forecast else None
