"""How good is the advice of rightbatch, and of others, after how much training? On recorded tables, over and over.

    python benchmarks/replay.py [--tables DIR] [--repeats 100] [--units 30] [--workers 1] [--cache DIR] [--out DIR]

Every strategy is played on every table (DIR/*.csv.gz) and five targets of it, on the same splits of the seeds. What
searches are told of a table (its optimizer, its number of training examples) is in DIR/tables.json. Spend is in units
of the larger of the time at batch size 32 and four reference times. Optuna's Gaussian process is slow (about half a
minute a play): it is played `--slow-repeats` times. Plays are kept in the cache, one file for each table and strategy:
the same command goes on where it was stopped, and plays anew what has changed since: a table, what is told of it, the
search itself.

Writes replay.json (bars over all tables and targets, and the curves) and replay.svg and .png (regret against spend).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import scipy

import rightbatch
from rightbatch.errors import InputError
from rightbatch.pipeline.replay import Setting, play_pairs, report_of
from rightbatch.records import to_json
from rightbatch.replay.bars import Pair, banded, bars, by_table, saving
from rightbatch.replay.judge import Play, regrets
from rightbatch.replay.scale import Scale, scales
from rightbatch.replay.strategies import OURS, SEARCHES, available
from rightbatch.replay.table import read_table

HERE = Path(__file__).parent
SLOW = ("optuna-gp",)
COLOURS = ("#0072b2", "#6b6b6b", "#cc79a7", "#d55e00", "#e69f00", "#009e73", "#56b4e9")
"""Of the strategies, in their order; from the palette of Okabe and Ito."""

BANDED = (OURS, "optuna-tpe", "random")
"""Strategies whose bands are drawn: those of all would hide each other. All are in the JSON."""

WORST = 20.0
"""Regret above this, a miss too, is drawn here."""


# ---------------------------------------------------------------------------------------------------- plays, kept


def pairs_of(
    setting: Setting, strategy: str, repeats: int, key: str, arguments: argparse.Namespace
) -> tuple[Pair, ...]:
    """The plays of one strategy on one table, from the cache where they are there."""
    path = arguments.cache / f"{setting.table.name}-{strategy}.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    if kept.get("key") == key:
        return tuple(_read_pair(setting.table.name, strategy, one) for one in kept["pairs"])
    pairs = play_pairs(setting, scales_of(setting), [strategy], range(repeats), workers=arguments.workers)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"key": key, "pairs": [_write_pair(pair) for pair in pairs]}))
    partial.replace(path)  # whole or not at all
    return pairs


_SCALES: dict[str, tuple[Scale, ...]] = {}


def scales_of(setting: Setting) -> tuple[Scale, ...]:
    """The targets of a table, found once: that takes seconds."""
    if setting.table.name not in _SCALES:
        _SCALES[setting.table.name] = scales(setting.table)
    return _SCALES[setting.table.name]


def _write_pair(pair: Pair) -> dict[str, Any]:
    scale = {field.name: getattr(pair.scale, field.name) for field in fields(Scale)}
    plays = [{f.name: np.asarray(getattr(play, f.name)).tolist() for f in fields(Play)} for play in pair.plays]
    return {"scale": scale, "plays": plays}


def _read_pair(table: str, strategy: str, kept: dict[str, Any]) -> Pair:
    scale = Scale(**{**kept["scale"], "best": tuple(kept["scale"]["best"])})
    plays = [{name: np.array(value, dtype=float) for name, value in play.items()} for play in kept["plays"]]
    return Pair(table, scale, strategy, tuple(Play(**{**play, "floor": float(play["floor"])}) for play in plays))


PLAYED_BY = ("judge.py", "optuna_peers.py", "peers.py", "scale.py", "seen.py", "table.py", "world.py")
"""Files of replay on which every play depends."""


def key_of(path: Path, strategy: str, told: dict[str, Any], repeats: int, until_units: float) -> str:
    """Changes with whatever the plays of a table depend on."""
    root = Path(rightbatch.__file__).parent
    sources = [root / "replay" / name for name in PLAYED_BY]
    if strategy == OURS:
        sources += sorted((root / "search").glob("*.py"))
    said = json.dumps([strategy, told, repeats, until_units], sort_keys=True).encode()
    return hashlib.sha256(b"".join([said, *(file.read_bytes() for file in (path, *sources))])).hexdigest()[:16]


# ---------------------------------------------------------------------------------------------------- the figure


def curve_rows(pairs: Sequence[Pair], until_units: float, points: int = 60) -> list[dict[str, Any]]:
    """Median regret over all plays against spend, with its 95 % band over tables."""
    tables = list(by_table(pairs).values())
    return [_curve_row(pairs[0].strategy, tables, float(spend)) for spend in np.geomspace(0.05, until_units, points)]


def _curve_row(strategy: str, tables: Sequence[Sequence[Play]], spend: float) -> dict[str, Any]:
    values = [regrets(plays, spend) for plays in tables]
    found = banded(len(tables), lambda chosen: float(np.median(np.concatenate([values[k] for k in chosen]))))
    low, high = (found.estimate if bound is None else bound for bound in (found.low, found.high))
    return {"strategy": strategy, "spend_units": spend, "regret": found.estimate, "low": low, "high": high}


def draw(rows: Sequence[dict[str, Any]], floor: float) -> alt.LayerChart:
    """Regret against spend on logarithmic axes, one line a strategy, the floor as a dashed rule."""
    drawn = [{**row, **{name: min(row[name], WORST) for name in ("regret", "low", "high")}} for row in rows]
    names = [name for name in SEARCHES if any(row["strategy"] == name for row in drawn)]
    colour = alt.Color(
        "strategy:N",
        title=None,
        scale=alt.Scale(domain=names, range=[COLOURS[list(SEARCHES).index(name)] for name in names]),
        legend=alt.Legend(symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1),
    )
    ends = [min(row["spend_units"] for row in drawn), max(row["spend_units"] for row in drawn)]
    spend = alt.X(
        "spend_units:Q",
        title="training spent, in units",
        scale=alt.Scale(type="log", domain=ends, nice=False),
        axis=alt.Axis(values=[0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30], format="~g"),
    )

    def regret(field: str) -> alt.Y:
        axis = alt.Axis(values=[0.8, 1, 1.25, 1.5, 2, 3, 5, 10, WORST], format="~g")
        scale = alt.Scale(type="log", domain=[0.8, WORST], clamp=True)
        return alt.Y(f"{field}:Q", title="median regret", scale=scale, axis=axis)

    band = alt.Chart(alt.Data(values=[row for row in drawn if row["strategy"] in BANDED])).mark_area(opacity=0.12)
    line = alt.Chart(alt.Data(values=drawn)).mark_line(strokeWidth=2)
    rule = alt.Chart(alt.Data(values=[{"regret": floor}])).mark_rule(strokeDash=[4, 3], color="#444444")
    return alt.layer(
        band.encode(x=spend, y=regret("low"), y2="high:Q", color=colour),
        line.encode(x=spend, y=regret("regret"), color=colour),
        rule.encode(y=regret("regret")),
    ).properties(width=620, height=360)


# ---------------------------------------------------------------------------------------------------------- main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, default=HERE / "tables")
    parser.add_argument("--strategies", nargs="+", default=available())
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--slow-repeats", type=int, default=5)
    parser.add_argument("--units", type=float, default=30.0, help="at least 3")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "rightbatch-replay")
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    paths = sorted(arguments.tables.glob("*.csv.gz"))
    if not paths:
        raise InputError(f"There are no tables (*.csv.gz) in {arguments.tables}. Give --tables DIR.")
    sidecar = arguments.tables / "tables.json"
    told_of = json.loads(sidecar.read_text()) if sidecar.is_file() else {}
    settings = []
    for path in paths:
        table = read_table(path)
        settings.append((path, Setting(table, arguments.units, **told_of.get(table.name, {}))))
    pairs: dict[str, list[Pair]] = {name: [] for name in arguments.strategies}
    for path, setting in settings:
        for strategy in arguments.strategies:
            repeats = arguments.slow_repeats if strategy in SLOW else arguments.repeats
            key = key_of(path, strategy, told_of.get(setting.table.name, {}), repeats, arguments.units)
            began = time.monotonic()
            pairs[strategy] += pairs_of(setting, strategy, repeats, key, arguments)
            print(f"{setting.table.name:20} {strategy:12} {time.monotonic() - began:7.1f} s", flush=True)
    found = {name: bars(of, arguments.units) for name, of in pairs.items()}
    others = [name for name in found if name != OURS]
    savings = [saving(found[OURS], found[name]) for name in others] if OURS in found else []
    rows = [row for of in pairs.values() for row in curve_rows(of, arguments.units)]
    reports = [
        report_of(setting, [pair for of in pairs.values() for pair in of if pair.table == setting.table.name])
        for _, setting in settings
    ]
    write(arguments, to_json({"bars": found, "savings": savings, "tables": reports, "curves": rows}))
    most = max(found.values(), key=lambda one: one.plays)
    chart = draw(rows, most.floor_median)
    for ending in ("svg", "png"):
        chart.save(str(arguments.out / f"replay.{ending}"), **({"ppi": 150} if ending == "png" else {}))
    for one in found.values():
        regret = ", ".join(f"{bar.median.estimate:.2f}/{bar.ninetieth.estimate:.2f}" for bar in one.regret)
        print(
            f"{one.strategy:12} regret after 0.5, 1, 3 units {regret}; to 1.25 {one.lasting_units.estimate:.2f} units"
        )
    for one in savings:
        print(f"{one.other:12} needs {one.bound} {one.overall.estimate:.1f} times the spend of {one.strategy}")


def write(arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    """The results with the command and the versions that made them."""
    command = f"python benchmarks/replay.py --repeats {arguments.repeats} --slow-repeats {arguments.slow_repeats}"
    versions = {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions["optuna"] = importlib.metadata.version("optuna")
    about = {"command": f"{command} --units {arguments.units:g}", "versions": versions, "slow": SLOW}
    text = json.dumps({**about, **results}, indent=1, allow_nan=False)
    (arguments.out / "replay.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
