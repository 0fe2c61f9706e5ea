"""Recorded tables: what is written is read back, and runs are played again as they were."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.records import Point, Stop, StopReason, Trial
from rightbatch.tables import COLUMNS, TableRunner, is_table, read_rows, read_runs, write_rows

checked = settings(derandomize=True, deadline=None, max_examples=40)
ENDINGS = ("csv", "csv.gz", "parquet")


def row(**changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "workload": "made up",
        "batch_size": 32,
        "learning_rate": 0.1,
        "seed": 0,
        "step": 1,
        "examples": 32,
        "seconds": 0.5,
        "train_loss": 2.0,
        "valid_loss": 2.5,
        "valid_metric": 0.25,
        "outcome": "finished",
    }
    assert set(changes) <= set(usual)
    return {**usual, **changes}


def rows() -> list[dict[str, Any]]:
    """Two finished runs, one that diverged, and one at another size."""
    made = []
    for size, rate, seed, outcome in ((32, 0.1, 0, "finished"), (32, 0.1, 1, "finished"), (32, 1.0, 0, "diverged")):
        for step in (1, 2, 4):
            diverges = outcome == "diverged" and step == 4
            made.append(
                row(
                    batch_size=size,
                    learning_rate=rate,
                    seed=seed,
                    step=step,
                    examples=step * size,
                    seconds=step * (0.5 + 0.1 * seed),
                    train_loss=math.nan if diverges else 1 / step,
                    valid_loss=None if diverges else 2 / step,
                    valid_metric=step / 10,
                    outcome=outcome,
                )
            )
    return [*made, row(batch_size=64, examples=64, seconds=0.75)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    table = tmp_path / "curves.csv.gz"
    write_rows(table, COLUMNS, rows())
    return table


# --------------------------------------------------------------------------------------------------- files of rows


@pytest.mark.parametrize("ending", ENDINGS)
def test_runs_come_back_from_a_file_as_they_were_written(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    table = tmp_path / f"curves.{ending}"
    write_rows(table, COLUMNS, rows())
    runs = read_runs(read_rows(table))
    assert [(r.trial.batch_size, r.trial.learning_rate, r.trial.seed) for r in runs] == [
        (32, 0.1, 0),
        (32, 0.1, 1),
        (32, 1.0, 0),
        (64, 0.1, 0),
    ]
    assert [r.stop for r in runs] == [Stop(StopReason[n]) for n in ("FINISHED", "FINISHED", "DIVERGED", "FINISHED")]
    assert runs[1].points == tuple(
        Point(s, 32 * s, pytest.approx(0.6 * s), 1 / s, 2 / s, s / 10, 32, 0.1) for s in (1, 2, 4)
    )
    assert runs[1].trial.planned_examples == 128
    last = runs[2].points[-1]
    assert last.valid_loss is None
    assert last.train_loss is not None
    assert math.isnan(last.train_loss)


@checked
@given(
    st.tuples(*[st.one_of(st.none(), st.floats(-1e9, 1e9))] * 3),
    st.floats(1e-6, 10),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Cs"]), max_size=12),
)
def test_any_finite_numbers_survive_to_eight_digits_whatever_the_name(
    tmp_path_factory: pytest.TempPathFactory, measured: tuple[float | None, ...], rate: float, name: str
) -> None:
    table = tmp_path_factory.mktemp("rows") / "curves.csv"
    train, valid, metric = measured
    write_rows(
        table,
        COLUMNS,
        [row(workload=name, learning_rate=rate, train_loss=train, valid_loss=valid, valid_metric=metric)],
    )
    (back,) = read_rows(table)
    assert back["workload"] == name
    (run,) = read_runs([back])
    point = run.points[0]
    for found, written in zip((point.train_loss, point.valid_loss, point.valid_metric), measured, strict=True):
        assert found == (None if written is None else pytest.approx(written, rel=1e-7))
    assert run.trial.learning_rate == pytest.approx(rate, rel=1e-7)


@pytest.mark.parametrize("name", ['a "b", c', "two\nlines"])
def test_names_that_need_quotes_come_back_whole(tmp_path: Path, name: str) -> None:
    table = tmp_path / "curves.csv"
    write_rows(table, COLUMNS, [row(workload=name)])
    assert [r["workload"] for r in read_rows(table)] == [name]


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_the_same_rows_give_the_same_bytes(tmp_path: Path, ending: str) -> None:
    # The same name in two folders: gzip keeps a name and a time unless told otherwise.
    contents = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        table = tmp_path / folder / f"curves.{ending}"
        write_rows(table, COLUMNS, rows())
        contents.append(table.read_bytes())
    assert contents[0] == contents[1]


def test_tables_are_known_by_their_endings() -> None:
    assert all(is_table(f"runs/curves.{ending}") for ending in ENDINGS)
    assert not any(is_table(name) for name in ("digits", "curves.txt", "csv", "my.py:make", "a.study.db"))


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown ending"):
        write_rows(tmp_path / "curves.txt", COLUMNS, rows())


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_rows(tmp_path / "nowhere" / "curves.csv", COLUMNS, rows())


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no table at"):
        read_rows(tmp_path / "curves.csv")


@pytest.mark.parametrize("missing", COLUMNS)
def test_a_table_that_lacks_a_column_is_refused_by_its_name(tmp_path: Path, missing: str) -> None:
    table = tmp_path / "curves.csv"
    write_rows(table, [name for name in COLUMNS if name != missing], rows())
    with pytest.raises(InputError, match=f"lacks the column '{missing}'"):
        read_rows(table)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "curves.csv"
    table.write_bytes(b"")
    with pytest.raises(InputError, match="lacks the column"):
        read_rows(table)


@pytest.mark.parametrize("damage", ["no gzip", "cut", "changed", "no text"])
def test_a_damaged_table_is_refused(path: Path, damage: str) -> None:
    content = bytearray(path.read_bytes())
    if damage == "no gzip":
        path.write_bytes(b"workload,batch_size")
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        content[40:50] = b"\xff" * 10  # beyond the head with the name
        path.write_bytes(content)
    else:
        path = path.with_suffix("")
        path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not a table of curves"):
        read_rows(path)


# ----------------------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize("column", ["batch_size", "learning_rate", "seed", "step", "examples", "seconds", "valid_loss"])
def test_a_value_that_is_no_number_is_refused_by_its_line(column: str) -> None:
    with pytest.raises(InputError, match="Line 3 of the table cannot be read"):
        read_runs([row(), row(seed=1) | {column: "many"}])


@pytest.mark.parametrize("column", ["batch_size", "step", "outcome"])
def test_a_line_that_was_cut_off_is_refused(column: str) -> None:
    # The reader of CSV gives None for what a short line lacks.
    with pytest.raises(InputError, match=r"cannot be read|Unknown outcome"):
        read_runs([row() | {column: None}])


def test_an_unknown_outcome_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"Unknown outcome 'bored'.*finished.*diverged"):
        read_runs([row(outcome="bored")])


@checked
@given(st.permutations(rows()))
def test_the_order_of_the_rows_of_a_run_does_not_matter(shuffled: list[dict[str, Any]]) -> None:
    def by_trial(table: list[dict[str, Any]]) -> dict[Trial, Any]:
        # repr: the diverged run ends in NaN, which equals nothing.
        return {run.trial: repr((run.points, run.stop)) for run in read_runs(table)}

    assert by_trial(shuffled) == by_trial(rows())


# --------------------------------------------------------------------------------------------------------- runner


def test_the_runner_knows_its_table(path: Path) -> None:
    runner = TableRunner(path)
    assert runner.facts.name == "table curves.csv.gz"
    assert (runner.facts.train_examples, runner.facts.planned_examples) == (64, 128)
    assert runner.facts.direction == "max"
    assert runner.batch_sizes == (32, 64)
    assert runner.rates == (0.1, 1.0)
    offered = [Trial(b, r, s) for b in (32, 64) for r in (0.1, 1.0) for s in (0, 1) if runner.offers(Trial(b, r, s))]
    assert offered == [Trial(32, 0.1, 0), Trial(32, 0.1, 1), Trial(32, 1.0, 0), Trial(64, 0.1, 0)]
    assert TableRunner(path, train_examples=1000).facts.train_examples == 1000


def test_another_table_of_the_same_name_is_another_environment(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / path.name
    write_rows(other, COLUMNS, rows()[:3])
    assert TableRunner(path).environment != TableRunner(other).environment
    assert TableRunner(path).facts.source != TableRunner(other).facts.source


def test_a_rate_that_was_rounded_on_its_way_is_the_same_rate(tmp_path: Path) -> None:
    table = tmp_path / "curves.csv"
    write_rows(table, COLUMNS, [row(learning_rate=0.0316)])
    runner = TableRunner(table)
    assert runner.offers(Trial(32, 0.03162, 0))
    assert not runner.offers(Trial(32, 0.0325, 0))


@pytest.mark.parametrize("trial", [Trial(16, 0.1, 0), Trial(32, 0.2, 0), Trial(32, 0.1, 2), Trial(64, 1.0, 0)])
def test_what_the_table_lacks_is_not_offered_and_cannot_be_started(path: Path, trial: Trial) -> None:
    runner = TableRunner(path)
    assert not runner.offers(trial)
    with pytest.raises(InputError, match=f"no run with batch_size={trial.batch_size}, learning_rate="):
        runner.start(trial)


def played(progress: Any) -> list[Point | Stop]:
    """Everything a run gives, its stop included."""
    outcomes: list[Point | Stop] = []
    while not outcomes or isinstance(outcomes[-1], Point):
        outcomes.append(progress.advance())
    progress.close()
    progress.close()
    return outcomes


def test_a_run_is_played_point_by_point_to_its_recorded_stop(path: Path) -> None:
    runner = TableRunner(path)
    outcomes = played(runner.start(Trial(32, 1.0, 0)))
    assert [o.step for o in outcomes[:-1] if isinstance(o, Point)] == [1, 2, 4]
    assert outcomes[-1] == Stop(StopReason.DIVERGED)


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_a_run_that_was_saved_goes_on_where_it_was(path: Path, before: int) -> None:
    runner, trial = TableRunner(path), Trial(32, 0.1, 1)
    whole = played(runner.start(trial))
    first = runner.start(trial)
    begun = [first.advance() for _ in range(before)]
    assert [*begun, *played(runner.start(trial, first.save()))] == whole


def test_two_runs_under_way_do_not_disturb_each_other(path: Path) -> None:
    runner, trial = TableRunner(path), Trial(32, 0.1, 0)
    one, other = runner.start(trial), runner.start(trial)
    assert isinstance(one.advance(), Point)
    assert isinstance(one.advance(), Point)
    assert played(other) == played(runner.start(trial))


def test_seconds_per_step_are_the_median_over_the_runs_of_a_size(path: Path) -> None:
    found = {t.batch_size: t.seconds for t in TableRunner(path).step_times([64, 32, 16], rounds=5)}
    # At 32 the runs took 0.5, 0.6 and 0.5 seconds a step; at 16 there is none.
    assert found == {32: (pytest.approx(0.5),), 64: (pytest.approx(0.75),)}
