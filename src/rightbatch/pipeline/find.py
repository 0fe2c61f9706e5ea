"""`find`: the whole tool on one page. Everything else in the house is a room that this page walks through."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rightbatch.answer import Recommendation
from rightbatch.pipeline.loop import Watch, drive, unwatched
from rightbatch.pipeline.profile import default_sizes, profile
from rightbatch.pipeline.setting_up import Ask, as_runner, first_choice, open_study, pose
from rightbatch.recommend import recommend
from rightbatch.records import Settings
from rightbatch.search.adaptive import Adaptive
from rightbatch.tables import TableRunner

PROTOCOL = (
    "rates on the lattice 10^(k/4), tuned at every batch size with one seed; then {seeds} seeds for every size and "
    "rate within 1.5 times the best; runs stopped at the target or at 4 times the best cost"
)


def find(
    workload: Any,
    *,
    study: str | Path | None = None,
    ask: Ask | None = None,
    seeds: int = 5,
    batch_sizes: Sequence[int] | None = None,
    budget_seconds: float | None = None,
    device: str | None = None,
    threads: int | None = None,
    watch: Watch = unwatched,
) -> Recommendation:
    """Which batch size to train with, at which rate: measure, search, recommend. Continues a study that exists.

    Parameters
    ----------
    workload: A `Workload`, or the name of a bundled one, of a table of curves, or `my.py:make_workload`.
    study: Path of the study; None: the workload's name in the current folder.
    ask: Objective, target and present choice, where they differ from the workload's.
    seeds: How many seeds the contenders get.
    batch_sizes: The sizes to choose from; None: powers of two up to 8192 or the data.
    budget_seconds: Wall seconds after which no more is trained; the answer is then what is known.

    Raises
    ------
    InsufficientEvidence: When nothing reached the target.
    InputError: For what cannot be used; what was measured before stays in the study.
    """
    deadline = None if budget_seconds is None else time.monotonic() + budget_seconds
    ask = ask or Ask()
    runner = as_runner(workload, device=device, threads=threads)
    with open_study(study, runner.facts) as kept:
        size, rate = ask.present or first_choice(kept.facts)
        sizes = tuple(batch_sizes or _offered(runner) or default_sizes(kept.facts.train_examples, size))
        profile(kept, runner, sizes)
        evidence = pose(kept, runner, ask, watch, range(seeds))
        strategy = Adaptive(
            batch_sizes=[s for s in sizes if evidence.step_seconds(s) is not None],
            seeds=range(seeds),
            first_size=size,
            first_rate=rate,
            offers=runner.offers,
            planned_examples=evidence.facts.planned_examples,
            settings=Settings(ask.settings),
        )
        evidence, _ = drive(kept, runner, strategy, evidence, deadline=deadline, watch=watch)
        answer = recommend(evidence, protocol=PROTOCOL.format(seeds=seeds), spent_seconds=kept.costs())
        kept.add_answer(answer)
        return answer


def _offered(runner: Any) -> tuple[int, ...]:
    """The sizes of a recorded table; nothing where any size can be run."""
    return tuple(sorted({t.batch_size for t in runner.trials})) if isinstance(runner, TableRunner) else ()
