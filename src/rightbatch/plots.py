"""The figures of a study as charts, for notebooks: `rightbatch.plots.sweet_spot("mine.study.db")`.

Each takes the path of a study, and as keywords another question (`objective`, `target` ..., the fields of `Ask`); each
returns an Altair chart, which a notebook shows and which `save("figure.svg")` writes. They raise `InsufficientEvidence`
where the study has no answer, or nothing of what the figure shows, and then name the command that would measure it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt

from rightbatch.errors import InputError, InsufficientEvidence
from rightbatch.pipeline.sheets import sheet_of
from rightbatch.report.figures import FIGURES
from rightbatch.report.figures.figure import NO_MODEL, measuring, variants


def sweet_spot(study: str | Path, **asked: Any) -> alt.LayerChart:
    """Cost against batch size, with its intervals, zones and laws."""
    return _drawn("sweet-spot", study, asked)


def frontier(study: str | Path, **asked: Any) -> alt.LayerChart:
    """Steps to the target against examples to it, and the critical batch size."""
    return _drawn("frontier", study, asked)


def steps(study: str | Path, **asked: Any) -> alt.LayerChart:
    """Steps to the target against batch size."""
    return _drawn("steps", study, asked)


def step_time(study: str | Path, **asked: Any) -> alt.LayerChart:
    """Milliseconds per step against batch size."""
    return _drawn("step-time", study, asked)


def growing(study: str | Path, **asked: Any) -> alt.LayerChart:
    """Plans of a batch that grows while training, over the costs of the fixed sizes."""
    return _drawn("growing", study, asked)


def epoch(study: str | Path, **asked: Any) -> alt.LayerChart:
    """Seconds per epoch against batch size."""
    return _drawn("epoch", study, asked)


def target(study: str | Path, **asked: Any) -> alt.LayerChart:
    """Seconds to the target against batch size, each run a dot."""
    return _drawn("target", study, asked)


def quality(study: str | Path, **asked: Any) -> alt.LayerChart:
    """Best validation metric against batch size, each run a dot."""
    return _drawn("quality", study, asked)


def gap(study: str | Path, **asked: Any) -> alt.LayerChart:
    """Validation loss less training loss against batch size, each run a dot."""
    return _drawn("gap", study, asked)


def rates(study: str | Path, judged_by: str = "cost", **asked: Any) -> alt.LayerChart:
    """Learning rate against batch size, judged by "cost" or "quality"."""
    return _drawn("rates", study, asked, judged_by)


def stopping(study: str | Path, patience_in: str = "epochs", **asked: Any) -> alt.LayerChart:
    """What early stopping would have done, by patience in "evaluations", "epochs", "steps" or "examples"."""
    return _drawn("stopping", study, asked, patience_in)


def sharpness(study: str | Path, **asked: Any) -> alt.LayerChart:
    """Sharpness of the minima against batch size, each run a dot."""
    return _drawn("sharpness", study, asked)


def path(study: str | Path, **asked: Any) -> alt.LayerChart:
    """The loss along the lines between the weights of two runs."""
    return _drawn("path", study, asked)


def temperature(study: str | Path, **asked: Any) -> alt.LayerChart:
    """Batch size and rate of runs as a temperature of the posterior."""
    return _drawn("temperature", study, asked)


def noise(study: str | Path, **asked: Any) -> alt.LayerChart:
    """The gradient noise scale along a training."""
    return _drawn("noise", study, asked)


def _drawn(name: str, study: str | Path, asked: dict[str, Any], position: str | None = None) -> alt.LayerChart:
    figure = next(figure for figure in FIGURES if figure.name == name)
    sheet = sheet_of(study, easier=False, **asked)
    if not figure.applies(sheet):
        raise InsufficientEvidence(f"{figure.title}: the question of this study has no such figure.")
    found = {variant.position: variant for variant in variants(figure, sheet)}
    if not found:
        would = measuring(figure, sheet)
        raise InsufficientEvidence(f"{figure.title}: not measured. {f'`{would}` would.' if would else NO_MODEL}")
    if position is None:
        variant = list(found.values())[-1]
    elif position in found:
        variant = found[position]
    else:
        raise InputError(f"{figure.title}: there is no {position!r}, but {', '.join(found)}.")
    return figure.draw(variant.sheet, variant.rows)
