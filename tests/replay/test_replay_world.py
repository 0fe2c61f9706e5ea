"""One repeat of a replay: seeds split, rates hidden, the clock; and the scale of a target, on tables known exactly."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from made_up_tables import ODD, RATES, SIZES, TARGET, seconds_needed, step_seconds, write_table

from rightbatch.curves import until_horizon, until_target
from rightbatch.errors import InputError
from rightbatch.evidence import Evidence
from rightbatch.records import Trial
from rightbatch.replay.scale import Scale, default_targets, scale, scales, split
from rightbatch.replay.table import Table, read_table
from rightbatch.replay.world import World, make_world
from rightbatch.search.searcher import Guess
from rightbatch.search.strategy import Action, Advance, Done


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return read_table(write_table(tmp_path_factory.mktemp("exact") / "exact.csv", noise=0.0))


KNOWN: dict[int, tuple[Table, Scale]] = {}
"""The scale of every table, found once; the table is held, so that its identity is not given to another."""


def world(table: Table, repeat: int = 0) -> World:
    if id(table) not in KNOWN:
        found = scale(table, TARGET)
        assert found is not None
        KNOWN[id(table)] = table, found
    return make_world(table, KNOWN[id(table)][1], repeat)


class Acts:
    """A searcher that does what a list says and always advises one cell."""

    def __init__(self, actions: list[Action], cell: tuple[int, float]) -> None:
        self.actions, self.cell = actions, cell

    def __call__(self, evidence: Evidence) -> Action:
        return self.actions.pop(0) if self.actions else Done("nothing left")

    def guess(self, evidence: Evidence) -> Guess:
        return Guess(*self.cell)


def test_without_noise_the_scale_is_what_the_laws_say(exact: Table) -> None:
    found = scale(exact, TARGET)
    assert found is not None
    cells = {(size, rate): seconds_needed(size, rate) for size in SIZES for rate in RATES}
    best = min(cells, key=lambda cell: cells[cell])
    assert found.best == best
    assert found.reference_seconds == pytest.approx(cells[best], rel=1e-6)
    assert found.small_seconds == pytest.approx(min(cells[32, rate] for rate in RATES), rel=1e-6)
    assert found.unit_seconds == pytest.approx(max(found.small_seconds, 4 * found.reference_seconds))


def test_rates_are_hidden_at_the_ends_and_never_the_best_one(exact: Table) -> None:
    seen = set()
    for repeat in range(60):
        told = world(exact, repeat).told
        low, high = RATES.index(told.rates[0]), RATES.index(told.rates[-1])
        assert told.rates == RATES[low : high + 1]
        assert world(exact, repeat).scale.best[1] in told.rates
        seen |= {("low", low), ("high", len(RATES) - 1 - high)}
    assert {("low", 0), ("low", 1), ("low", 2), ("high", 0), ("high", 1), ("high", 2)} == seen


def test_best_rates_are_those_of_the_least_time_where_every_run_got_there(tmp_path: Path) -> None:
    table = read_table(write_table(tmp_path / "noisy.csv", seeds=lambda size, rate: 3, noise=0.3))
    found = table.at_best_rates(TARGET)
    times = table.times_to(TARGET)
    for size, (rate, seconds) in found.items():
        assert list(seconds) == list(times[size, rate])
        others = [np.log(times[cell]).mean() for cell in table.cells if cell[0] == size]
        assert np.log(seconds).mean() == min(mean for mean in others if math.isfinite(mean))
    assert set(found) == {size for (size, _), seconds in times.items() if np.isfinite(seconds).all()}
    assert table.at_best_rates(10.0) == {}  # beyond what anything reaches


def test_seeds_of_search_and_judge_are_apart_and_make_up_the_cell(tmp_path: Path) -> None:
    table = read_table(write_table(tmp_path / "noisy.csv", seeds=lambda size, rate: 5, noise=0.3))
    sizes_of_halves = set()
    for repeat in range(8):
        played = world(table, repeat)
        times = table.times_to(TARGET)
        for cell, runs in played.seen.items():
            mine = {run.trial.seed for run in runs}
            others = [times[cell][seed] for seed in range(5) if seed not in mine]
            assert sorted(played.judging[cell]) == pytest.approx(sorted(others))
            sizes_of_halves.add(len(mine))
    assert sizes_of_halves == {2, 3}


def test_a_single_seed_is_for_search_and_judge() -> None:
    assert split(np.random.default_rng(0), 1) == ([0], [0])


def test_the_clock_counts_training_once(exact: Table) -> None:
    cell, trial = (64, 0.1), Trial(64, 0.1, 0)
    slices = [
        Advance(trial, until, "", lambda curve, at=at: "pause" if curve[-1].step >= at else None)
        for at, until in ((20, until_horizon), (60, until_target(world(exact).told.target)))
    ]
    played = world(exact)
    moments = played.play(Acts([*slices, Advance(trial, until_horizon, "")], cell), math.inf)
    steps = [moment.spent_seconds / step_seconds(64) for moment in moments]
    whole = exact.runs[cell][0].points
    first = next(point.step for point in whole if point.step >= 20)
    second = next(point.step for point in whole if point.step >= 60)
    assert steps == pytest.approx([0, first, second, whole[-1].step])
    assert played.evidence.runs[0].points == whole
    assert len(played.evidence.runs) == 1


def test_a_guess_has_reached_when_all_its_runs_that_are_over_have(exact: Table) -> None:
    cell, needed = (64, 0.1), seconds_needed(64, 0.1) / step_seconds(64)
    target = world(exact).told.target

    def until(step: float) -> Advance:
        return Advance(Trial(64, 0.1, 0), lambda curve: "enough" if curve[-1].step >= step else None, "")

    short, there = until(needed / 2), Advance(Trial(64, 0.1, 0), until_target(target), "")
    another = Advance(Trial(64, 0.1, 1), lambda curve: "enough" if curve[-1].step >= needed / 2 else None, "")
    moments = world(exact).play(Acts([short, there, another], cell), math.inf)
    assert [moment.reached for moment in moments] == [False, False, True, True]


def test_a_run_that_ended_short_says_no(tmp_path: Path) -> None:
    table = read_table(write_table(tmp_path / "diverged.csv", **ODD["diverged"]))
    played = next(w for repeat in range(40) if 1.0 in (w := world(table, repeat)).told.rates)
    moments = played.play(Acts([Advance(Trial(4, 1.0, 0), until_horizon, "")], (4, 1.0)), math.inf)
    assert [moment.reached for moment in moments] == [False, False]
    assert math.isinf(played.judge(moments[-1].guess))


def test_the_play_ends_at_the_limit(exact: Table) -> None:
    forever: list[Action] = [Advance(Trial(size, 0.1, seed), until_horizon, "") for size in SIZES for seed in range(2)]
    moments = world(exact).play(Acts(forever, (64, 0.1)), 4.0)
    assert [moment.spent_seconds for moment in moments] == pytest.approx([0, 3, 6], rel=0.01)


def test_targets_out_of_reach_are_refused_and_defaults_are_within(exact: Table) -> None:
    with pytest.raises(InputError, match="easier target"):
        scales(exact, [50.0])
    found = default_targets(exact, 3)
    assert 1 <= len(found) <= 3
    for one in found:
        assert one.unit_seconds <= exact.cap_seconds / 2
        assert math.isfinite(one.reference_seconds)


def test_a_table_without_finite_values_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "nan.csv", broken=lambda size, rate: True)
    lines = [",".join([*line.split(",")[:9], "", line.split(",")[10]]) for line in path.read_text().split("\n")[1:-1]]
    path.write_text("\n".join([path.read_text().split("\n")[0], *lines]) + "\n")
    with pytest.raises(InputError, match="nothing to reach"):
        default_targets(read_table(path))
