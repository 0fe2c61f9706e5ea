"""All that is measured of the weights that a run ended with: a function for each name of `minima.MEASURES`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from rightbatch.checkpoint import Checkpoint, starting_from
from rightbatch.evaluation import Evaluator
from rightbatch.landscape import box, spectrum
from rightbatch.landscape.paths import POSITIONS, Kind, point_on
from rightbatch.landscape.surface import Surface
from rightbatch.landscape.temperature import Numbers, temperature
from rightbatch.minima import Choices, Statistics, WeightsRecord
from rightbatch.records import Settings, Trial
from rightbatch.streams import RandomStreams
from rightbatch.workload import Workload

JUDGED = ("train_loss", "train_metric", "valid_loss", "valid_metric")


class Minimum:
    """The weights of one run, ready to be looked at. See `rightbatch.runner.Minimum`."""

    def __init__(self, workload: Workload, weights: Path, trial: Trial) -> None:
        self.workload, self.trial = workload, trial
        self.begun = starting_from(workload, Checkpoint.of(weights))
        self.model = self.begun.model().to(workload.device)
        self._surfaces: dict[tuple[int | None, str], Surface] = {}

    def surface(self, examples: int | None, statistics: Statistics) -> Surface:
        """The loss about the weights, made once for each choice."""
        key = (examples, statistics)
        if key not in self._surfaces:
            self._surfaces[key] = Surface(self.workload, self.model, examples=examples, statistics=statistics)
        return self._surfaces[key]

    def evaluators(self, examples: int | None) -> tuple[Evaluator, Evaluator]:
        """What judges on the training data (at most so many examples) and on the validation data."""
        source = self.workload.source("data")
        whole = replace(self.workload, evaluation_examples=min(examples or len(source), len(source)))
        return Evaluator(whole, source), Evaluator(self.workload, self.workload.source("valid"))

    def measure(self, run: int, name: str, choices: Choices) -> tuple[WeightsRecord, ...]:
        """The numbers of one measure; what it took is said in the first."""
        began, before = time.monotonic(), self._evaluations
        kept = choices.of(name)
        first, *others = (WeightsRecord(run, name, *numbers, kept) for numbers in MEASURING[name](self, choices))
        spent = self._evaluations - before
        return replace(first, evaluations=spent, seconds=time.monotonic() - began), *others

    def path(self, run: int, weights: Path, to: int, choices: Choices) -> Iterator[tuple[WeightsRecord, ...]]:
        """Loss and metric along the straight and the curved line to another run's weights, a position at a time.

        Batch normalisation takes the statistics of each pass: weights between two minima have no averages of their own.
        """
        surface = self.surface(1, "batch")
        other = Minimum(self.workload, weights, self.trial).surface(1, "batch").start
        train, valid = self.evaluators(choices.examples)
        for kind in get_args(Kind):
            for at in POSITIONS:
                x = point_on(kind, at, surface.start, other)
                judged = (*surface.judge(x, train), *surface.judge(x, valid))
                kept = Settings({"kind": kind, "at": at, "to": to, "examples": choices.of("box")["examples"]})
                yield tuple(
                    WeightsRecord(run, "path", name, value, choices=kept)
                    for name, value in zip(JUDGED, judged, strict=True)
                )

    @property
    def _evaluations(self) -> float:
        return sum(surface.evaluations for surface in self._surfaces.values())


# ---------------------------------------------------------------------------------------------- the table


def _ends(minimum: Minimum, choices: Choices) -> Numbers:
    train, valid = minimum.evaluators(None)
    with RandomStreams(0).active():
        judged = (*train(minimum.model), *valid(minimum.model))
    yield "ends", judged[2] - judged[0], None, None
    for name, value in zip(JUDGED, judged, strict=True):
        yield name, value, None, None
    with RandomStreams(minimum.trial.seed).active():  # as the run began
        start = _vector(minimum.workload.model().to(minimum.workload.device))
    yield "distance", float(torch.linalg.vector_norm(_vector(minimum.model) - start)), None, None


def _vector(model: nn.Module) -> torch.Tensor:
    return parameters_to_vector(p.detach().double() for p in model.parameters() if p.requires_grad)


Search = Callable[[Surface, Choices], box.Maximum]


def _metric(name: str, search: Search) -> Callable[[Minimum, Choices], Numbers]:
    """Metric 2.1 of what a search finds, and the rise of the loss itself; with restarts the least and the spread."""

    def numbers(minimum: Minimum, choices: Choices) -> Numbers:
        found = search(minimum.surface(choices.examples, choices.statistics), choices)
        each = [found.sharpness(value) for value in found.values]
        yield name, found.sharpness(), None, None
        yield "rise", found.rise, None, None
        yield "loss", found.start, None, None
        if len(each) > 1:
            yield "least", min(each), None, None
            yield "spread", float(np.std(each, ddof=1)), None, None

    return numbers


def _eigenvalue(minimum: Minimum, choices: Choices) -> Numbers:
    surface = minimum.surface(choices.curvature_examples, choices.statistics)
    found = spectrum.largest_eigenvalue(surface, seed=choices.seed)
    yield "eigenvalue", found.estimate, found.low, found.high


def _trace(minimum: Minimum, choices: Choices) -> Numbers:
    surface = minimum.surface(choices.curvature_examples, choices.statistics)
    found = spectrum.trace(surface, probes=choices.probes, seed=choices.seed)
    yield "trace", found.estimate, found.low, found.high


def _temperature(minimum: Minimum, choices: Choices) -> Numbers:
    return temperature(minimum.begun, minimum.trial, choices)


MEASURING: dict[str, Callable[[Minimum, Choices], Numbers]] = {
    "ends": _ends,
    "box": _metric("box", box.in_box),
    "subspace": _metric("subspace", box.in_subspace),
    "adaptive": _metric("adaptive", box.in_adaptive_box),
    "sam": _metric("sam", box.one_step),
    "eigenvalue": _eigenvalue,
    "trace": _trace,
    "temperature": _temperature,
}
