"""The weights that runs leave beside their study: only those of the cells that may win stay."""

from __future__ import annotations

from pathlib import Path

from rightbatch import curves
from rightbatch.answer import Recommendation
from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.pipeline.desk import Watch, weights_path
from rightbatch.records import Run

KEPT_CELLS, MAY_WIN = 3, 2.0
"""The models of so many cells, the cheapest, stay on the disk while a search goes on, and of those that cost at most so
many times the least: a search of few runs chooses by all runs together, and not the cell whose own are the cheapest."""


def models_folder(study: Path) -> Path:
    """Where the weights of a study's runs are kept: a folder beside it."""
    return study.with_name(study.name.removesuffix(".study.db") + ".models")


def pruning(folder: Path, watch: Watch) -> Watch:
    """What `watch` does, and after the end of each run the models of cells that are no longer among the best go."""

    def watch_and_prune(run: Run, why: str, evidence: Evidence) -> None:
        watch(run, why, evidence)
        if run.stop is not None:
            prune(folder, evidence.with_run(run))

    return watch_and_prune


def prune(folder: Path, evidence: Evidence) -> None:
    """Delete the weights of runs whose cell will not be chosen; one that was trained with a fresh seed has been."""
    cheapest = sorted((cell for cell in evidence.cells if cell.reaches), key=lambda cell: cell.mean)
    near = [cell for k, cell in enumerate(cheapest) if k < KEPT_CELLS or cell.mean <= MAY_WIN * cheapest[0].mean]
    chosen = {(cell.batch_size, cell.learning_rate) for cell in near} | {
        (run.trial.batch_size, run.trial.learning_rate) for run in evidence.relevant if run.trial.seed >= FRESH_SEED
    }
    kept = {weights_path(folder, run.identifier) for cell in chosen for run in evidence.runs_at(*cell)} if near else ()
    if kept:  # before anything reaches the target, nobody knows which run matters
        for path in folder.glob("run-*.pt"):
            if path not in kept:
                path.unlink(missing_ok=True)


def winner(folder: Path, evidence: Evidence, answer: Recommendation) -> Path | None:
    """The weights of the best run at the recommended size and rate; None where none were kept."""
    quantity, direction = evidence.question.target.quantity, evidence.question.target.direction
    runs = [
        (value, path)
        for run in evidence.runs_at(answer.batch_size, answer.learning_rate)
        if (path := weights_path(folder, run.identifier)).is_file()
        and (value := curves.best_value(run.points, quantity, direction)) is not None
    ]
    if not runs:
        return None
    return (max if direction == "max" else min)(runs, key=lambda pair: pair[0])[1]
