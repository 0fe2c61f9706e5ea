"""Replay: searches beside each other on a recorded table, many times over, each judged on seeds that it did not see."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rightbatch.errors import InputError
from rightbatch.replay.bars import Pair
from rightbatch.replay.judge import Outcome, Play, Regret, judge, outcome_of, regret_of
from rightbatch.replay.scale import Scale, scales
from rightbatch.replay.strategies import SEARCHES, available, check_names
from rightbatch.replay.table import Table, read_table
from rightbatch.replay.world import make_world

UNITS = 3.0
"""How far searches are followed unless somebody says otherwise, in units."""

REPEATS = 100


@dataclass(frozen=True)
class TargetReport:
    """One target: what it is measured in, the floor, and what each strategy's advice was worth.

    `small_ratio` is the reference time at batch size 32 over the reference time: how much a search can win over it.
    """

    scale: Scale
    small_ratio: float
    floor: Regret
    outcomes: Mapping[str, Outcome]


@dataclass(frozen=True)
class ReplayReport:
    """What a replay of one table found, target by target."""

    table: str
    repeats: int
    until_units: float
    targets: tuple[TargetReport, ...]


@dataclass(frozen=True)
class Setting:
    """What all plays of a table have in common. `optimizer` and `train_examples` are what searches are told."""

    table: Table
    until_units: float = UNITS
    optimizer: str = ""
    train_examples: int = 0

    def play(self, scale: Scale, strategy: str, repeat: int) -> Play:
        """One repeat of one strategy. The number of the repeat is its seed: all strategies see the same splits."""
        world = make_world(self.table, scale, repeat, optimizer=self.optimizer, train_examples=self.train_examples)
        moments = world.play(SEARCHES[strategy](world.told), self.until_units * scale.unit_seconds)
        return judge(world, moments)


Task = tuple[Scale, str, int]
Watch = Callable[[int, int], None]
"""Is told how many plays are done, and how many there are."""


def replay(
    table: Table | str | Path,
    targets: Sequence[float] = (),
    *,
    strategies: Sequence[str] | None = None,
    repeats: int = REPEATS,
    first_repeat: int = 0,
    until_units: float = UNITS,
    optimizer: str = "",
    train_examples: int = 0,
    workers: int = 1,
    watch: Watch = lambda done, of: None,
) -> ReplayReport:
    """Play strategies on a recorded table and judge their advice. The same arguments give the same report.

    Parameters
    ----------
    strategies: Names out of `replay.strategies.SEARCHES`; None: all whose packages are installed.
    targets: Values of the table's metric to be reached; without any, five from easy to hard.
    repeats: How often seeds are split and rates hidden anew; numbered from `first_repeat` on.
    until_units: Spend at which every search is stopped, in units of the larger of the time at batch size 32 and four
        reference times.
    optimizer, train_examples: What searches are told: "SGD", "SGD momentum" or "Adam"; 0 examples: four times the
        largest batch size.
    workers: Processes that share the plays.

    Raises
    ------
    InputError: For a file that is no such table, an unknown strategy, a target that is not reached.
    MissingExtra: For a strategy whose package is not installed.
    """
    if repeats < 1 or not until_units > 0:
        raise InputError(f"A replay needs at least one repeat and a positive spend, got {repeats} and {until_units:g}.")
    setting = Setting(table if isinstance(table, Table) else read_table(table), until_units, optimizer, train_examples)
    pairs = play_pairs(
        setting,
        scales(setting.table, targets),
        available() if strategies is None else strategies,
        range(first_repeat, first_repeat + repeats),
        workers=workers,
        watch=watch,
    )
    return report_of(setting, pairs)


def play_pairs(
    setting: Setting,
    targets: Sequence[Scale],
    strategies: Sequence[str],
    repeats: Sequence[int],
    *,
    workers: int = 1,
    watch: Watch = lambda done, of: None,
) -> tuple[Pair, ...]:
    """All plays of every strategy on every target, in the order of the arguments."""
    check_names(strategies)
    tasks = [(scale, strategy, repeat) for scale in targets for strategy in strategies for repeat in repeats]
    plays = []
    for play in _plays(setting, tasks, workers):
        plays.append(play)
        watch(len(plays), len(tasks))
    count, found = len(repeats), iter(range(0, len(tasks), len(repeats)))
    return tuple(
        Pair(setting.table.name, scale, strategy, tuple(plays[at : at + count]))
        for (scale, strategy), at in zip(((s, name) for s in targets for name in strategies), found, strict=True)
    )


def report_of(setting: Setting, pairs: Iterable[Pair]) -> ReplayReport:
    """What the pairs of one table say."""
    by_target: dict[float, list[Pair]] = {}
    for pair in pairs:
        by_target.setdefault(pair.scale.target, []).append(pair)
    reports = []
    for group in by_target.values():
        scale = group[0].scale
        floor = regret_of(np.array([play.floor for play in group[0].plays]))
        outcomes = {pair.strategy: outcome_of(pair.strategy, scale, pair.plays, setting.until_units) for pair in group}
        reports.append(TargetReport(scale, scale.small_seconds / scale.reference_seconds, floor, outcomes))
    repeats = max(outcome.repeats for report in reports for outcome in report.outcomes.values())
    return ReplayReport(setting.table.name, repeats, setting.until_units, tuple(reports))


# ------------------------------------------------------------------------------------------------------ processes


def _plays(setting: Setting, tasks: Sequence[Task], workers: int) -> Iterator[Play]:
    """The plays of the tasks, in their order."""
    if workers == 1:
        yield from (setting.play(*task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(workers, context, _begin, (setting,)) as pool:
        # Small pieces: plays of some strategies take a hundred times those of others.
        yield from pool.map(_play, tasks, chunksize=4)


_SETTING: list[Setting] = []
"""In a worker process: what it was begun with, so that the table does not travel with every task."""


def _begin(setting: Setting) -> None:
    _SETTING[:] = [setting]


def _play(task: Task) -> Play:
    return _SETTING[0].play(*task)
