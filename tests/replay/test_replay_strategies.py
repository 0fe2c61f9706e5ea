"""The contract of every strategy that is replayed, on tables that nobody tuned to; and what each peer does exactly."""

from __future__ import annotations

import math
from functools import cache

import pytest
from made_up_tables import ODD, TARGET, write_table

from rightbatch.errors import InputError, MissingExtra
from rightbatch.evidence import Evidence
from rightbatch.records import Trial
from rightbatch.replay import optuna_peers
from rightbatch.replay.peers import evenly
from rightbatch.replay.scale import Scale, scale
from rightbatch.replay.strategies import SEARCHES, available, check_names
from rightbatch.replay.table import Table, read_table
from rightbatch.replay.world import World, make_world
from rightbatch.search.searcher import Guess, Searcher
from rightbatch.search.strategy import Action, Advance, Done

CASES = [(name, odd) for name in SEARCHES for odd in ODD if name != "optuna-gp" or odd in ("whole", "one cell")]
SLOW = ("rightbatch", "optuna-tpe", "optuna-gp")
"""Played once, and not to the end of the table."""


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("tables")

    @cache
    def of(odd: str) -> tuple[Table, Scale]:
        table = read_table(write_table(folder / f"{odd}.csv", **ODD[odd]))
        found = scale(table, TARGET)
        assert found is not None
        return table, found

    return of


def make(tables, name: str, odd: str, repeat: int = 0) -> tuple[World, Searcher]:  # type: ignore[no-untyped-def]
    if name in ("optuna-tpe", "optuna-gp"):
        pytest.importorskip("optuna")
    if name == "optuna-gp":
        pytest.importorskip("torch")
    world = make_world(*tables(odd), repeat, optimizer="SGD momentum", train_examples=5000)
    return world, SEARCHES[name](world.told)


class Held:
    """A searcher held to its contract: what it guesses and asks for is offered, and asked twice it says the same.

    That nothing is paid for twice is the world's to refuse: it asserts that a run which has ended is not asked for.
    """

    def __init__(self, world: World, search: Searcher) -> None:
        self.world, self.search, self.done = world, search, False

    def __call__(self, evidence: Evidence) -> Action:
        action = self.search(evidence)
        again = self.search(evidence)
        assert not self.done
        if isinstance(action, Done):
            assert isinstance(again, Done)
            self.done = True
            return action
        assert isinstance(action, Advance)
        assert isinstance(again, Advance)
        assert again.trial == action.trial
        assert self.world.told.offers(action.trial)
        for run in evidence.runs:
            if run.trial == action.trial:
                assert run.stop is None
                assert evidence.crossing(run) is None, "it had reached the target: there was nothing more to learn"
        return action

    def guess(self, evidence: Evidence) -> Guess:
        guess = self.search.guess(evidence)
        assert self.world.told.offers(Trial(guess.batch_size, guess.learning_rate, 0))
        assert guess == self.search.guess(evidence)
        assert guess.seconds is None or 0 < (guess.seconds.low or 0) <= guess.seconds.estimate
        assert guess.sizes is None or guess.sizes[0] <= guess.sizes[1]
        return guess


@pytest.mark.parametrize(("name", "odd"), CASES)
def test_every_strategy_keeps_its_contract_on_every_table(tables, name: str, odd: str) -> None:  # type: ignore[no-untyped-def]
    for repeat in range(1 if name in SLOW else 3):
        world, search = make(tables, name, odd, repeat)
        held = Held(world, search)
        until = 2 * world.scale.unit_seconds if name in SLOW else math.inf
        moments = world.play(held, until)
        assert held.done or world.spent_seconds >= until
        spent = [moment.spent_seconds for moment in moments]
        assert spent == sorted(spent)
        assert spent[0] == 0


@pytest.mark.parametrize("name", [name for name in SEARCHES if name != "optuna-gp"])
def test_a_play_is_the_same_when_it_is_made_again(tables, name: str) -> None:  # type: ignore[no-untyped-def]
    plays = []
    for _ in range(2):
        world, search = make(tables, name, "whole", 3)
        plays.append(world.play(search, 4 * world.scale.unit_seconds))
    assert plays[0] == plays[1]


@pytest.mark.parametrize("name", ["random", "grid", "optuna-tpe"])
def test_who_runs_everything_ends_up_with_a_good_cell(tables, name: str) -> None:  # type: ignore[no-untyped-def]
    world, search = make(tables, name, "whole")
    last = world.play(search, math.inf)[-1]
    assert last.reached
    assert world.judge(last.guess) <= 1.5 * world.scale.reference_seconds
    made = {(run.trial.batch_size, run.trial.learning_rate, run.trial.seed) for run in world.evidence.runs}
    assert made == {(*cell, seed) for cell, runs in world.seen.items() for seed in range(len(runs))}


def test_random_takes_every_cell_once_before_any_again(tables) -> None:  # type: ignore[no-untyped-def]
    world, search = make(tables, "random", "whole")
    world.play(search, math.inf)
    cells = [(run.trial.batch_size, run.trial.learning_rate) for run in world.evidence.runs]
    assert set(cells[: len(world.seen)]) == set(world.seen)
    other, another = make(tables, "random", "whole", 1)
    assert other.told.rates != world.told.rates or another.guess(other.evidence) != search.guess(world.evidence)


def test_the_default_takes_32_and_scans_outwards_from_the_middle(tables) -> None:  # type: ignore[no-untyped-def]
    world = next(w for k in range(99) if len((w := make_world(*tables("whole"), k)).told.rates) == 5)
    world.play(SEARCHES["default-32"](world.told), math.inf)
    trials = [run.trial for run in world.evidence.runs]
    assert {trial.batch_size for trial in trials} == {32}
    assert trials[0].learning_rate == 0.1
    assert {trial.learning_rate for trial in trials[1:3]} == {0.03, 0.3}
    assert {trial.seed for trial in trials} == {0}
    without, search = make(tables, "default-32", "two sizes, not 32")
    assert search.guess(without.evidence).batch_size in (8, 128)  # both as near


def test_the_largest_batch_takes_the_linear_rule_and_falls_back_while_it_misses(tables) -> None:  # type: ignore[no-untyped-def]
    world = next(w for k in range(99) if len((w := make_world(*tables("whole"), k)).told.rates) == 5)
    search = SEARCHES["largest"](world.told)
    # The middle is 0.1; times 256 / 32 that is 0.8, and 1 is nearest to it.
    assert search.guess(world.evidence) == Guess(256, 1.0)
    short = next(w for k in range(99) if len((w := make_world(*tables("short runs"), k)).told.rates) == 5)
    short.play(SEARCHES["largest"](short.told), math.inf)
    rates = [run.trial.learning_rate for run in short.evidence.runs]
    assert rates == sorted(rates, reverse=True)
    reached = [short.evidence.crossing(run) is not None for run in short.evidence.runs]
    assert not any(reached[:-1])
    assert reached[-1] or len(rates) == 5


def test_an_even_order_takes_every_place_once_and_spreads_at_once() -> None:
    order = evenly(8, 9)
    assert len(order) == len(set(order)) == 72
    for count, across, along in ((6, 2, 3), (36, 4, 9), (24, 8, 3)):
        boxes = {(row * across // 8, column * along // 9) for row, column in order[:count]}
        assert len(boxes) == across * along
    assert set(evenly(1, 5)) == {(0, k) for k in range(5)}
    assert evenly(1, 1) == ((0, 0),)


def test_pruned_runs_cost_less_than_whole_ones(tables) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("optuna")
    world, search = make(tables, "optuna-tpe", "whole")
    world.play(search, 6 * world.scale.unit_seconds)
    over = [run.stop is not None or world.evidence.crossing(run) is not None for run in world.evidence.runs]
    assert not all(over[:-1])  # Hyperband has left some where they were
    assert any(over)


def test_unknown_names_and_missing_packages_are_said(monkeypatch: pytest.MonkeyPatch, tables) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="no strategy 'hope'; there are rightbatch, random"):
        check_names(["random", "hope"])
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"rightbatch\[optuna\]"):
        optuna_peers.tpe(make_world(*tables("whole"), 0).told)
    monkeypatch.setattr("rightbatch.replay.strategies.find_spec", lambda name: None)
    assert "random" in available()
    assert "optuna-tpe" not in available()
