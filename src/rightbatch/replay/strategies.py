"""The searches that replay compares, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from rightbatch.errors import InputError
from rightbatch.replay import optuna_peers, peers
from rightbatch.replay.world import MakeSearcher, Told
from rightbatch.search.few_runs import FewRuns
from rightbatch.search.searcher import Searcher

OURS = "rightbatch"


def few_runs(told: Told) -> Searcher:
    """The search of this package."""
    return FewRuns(told.sizes, lambda evidence: told.rates, told.offers, longest_cost=told.cap_seconds)


SEARCHES: Mapping[str, MakeSearcher] = {
    OURS: few_runs,
    "random": peers.random_cells,
    "grid": peers.grid,
    "optuna-tpe": optuna_peers.tpe,
    "optuna-gp": optuna_peers.gp,
    "default-32": peers.default_32,
    "largest": peers.largest,
}

NEEDS_OPTUNA = ("optuna-tpe", "optuna-gp")


def available() -> tuple[str, ...]:
    """The strategies whose packages are installed."""
    optuna = find_spec("optuna") is not None
    return tuple(name for name in SEARCHES if optuna or name not in NEEDS_OPTUNA)


def check_names(names: Sequence[str]) -> None:
    """Raise `InputError` for a name that is not among the strategies."""
    unknown = [name for name in names if name not in SEARCHES]
    if unknown:
        raise InputError(f"There is no strategy {unknown[0]!r}; there are {', '.join(SEARCHES)}.")
