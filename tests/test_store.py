"""The study: what is written is there, whole, whatever happens; what is not a study is refused by name."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rightbatch.errors import StudyError
from rightbatch.records import (
    Environment,
    GradientSample,
    MemoryParts,
    MemoryProbe,
    Point,
    Settings,
    StepTime,
    Stop,
    StopReason,
    Target,
    Trial,
    WorkloadFacts,
)
from rightbatch.store import SCHEMA_VERSION, Study

GOLDEN = Path(__file__).parent / "golden" / "version-1.study.db"
HERE = Environment("cpu", 1, "float32", "some processor", "3.11", "2.13", "0.1.0")
FACTS = WorkloadFacts("w", 100, 10, 1000, "accuracy", "max", "SGD", present=(32, 0.1), settings=Settings({"m": 0.9}))
TRIAL = Trial(8, 0.1, 0, 1000, Settings({"m": 0.9}))


def point(step: int) -> Point:
    return Point(step, 8 * step, 0.5 * step, 1.0 / (step + 1), 0.3, 0.5, 8, 0.1)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    target = Target(0.9, "valid_metric", "max", "derived")
    record = StepTime(8, (0.1, 0.2, 0.3), (0.0, 0.0, 0.1), (2,))
    with Study.create(path, FACTS) as study:
        run = study.start_run(TRIAL, HERE)
        for step in (0, 1, 5):
            study.add_point(run, point(step))
        study.stop_run(run, Stop(StopReason.DIVERGED, "said so"), 1.5)
        study.add_step_time(record, HERE)
        study.add_cost("profile", 2.0)
        study.set_target(target)
    with Study.open(path) as study:
        (read,) = study.runs()
        assert read.trial == TRIAL
        assert read.points == tuple(point(step) for step in (0, 1, 5))
        assert read.stop == Stop(StopReason.DIVERGED, "said so")
        assert study.facts == FACTS
        assert study.target == target
        assert study.step_times(HERE) == (record,)
        assert study.costs() == {"runs": 1.5, "profile": 2.0}


def test_step_times_measured_again_take_the_place_of_earlier_ones(tmp_path: Path) -> None:
    with Study.create(tmp_path / "a.study.db", FACTS) as study:
        study.add_step_time(StepTime(8, (9.0, 9.0), (0.0, 0.0)), HERE)
        study.add_step_time(StepTime(8, (1.0,), (0.0,)), HERE)
        assert study.step_times(HERE) == (StepTime(8, (1.0,), (0.0,)),)


def test_seconds_of_two_environments_are_never_mixed(tmp_path: Path) -> None:
    there = Environment("cuda", 1, "float32", "some processor", "3.11", "2.13", "0.1.0")
    with Study.create(tmp_path / "a.study.db", FACTS) as study:
        for size in (8, 16):
            study.add_step_time(StepTime(size, (1.0,), (0.0,)), HERE)
        study.add_step_time(StepTime(8, (5.0,), (0.0,)), there)
        assert [r.seconds for r in study.step_times(there)] == [(5.0,)]
        assert [r.batch_size for r in study.step_times()] == [8, 16]  # the environment measured most


def test_a_closed_study_is_one_plain_file(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    Study.create(path, FACTS).close()
    assert [p.name for p in tmp_path.iterdir()] == ["a.study.db"]
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    with Study.create(path, FACTS) as study:
        run = study.start_run(TRIAL, HERE)
        study.add_point(run, point(1))
        with pytest.raises(StudyError, match=r"Another process is writing .*a\.study\.db"):
            Study.open(path, write=True)
        with Study.open(path) as reader:
            assert len(reader.runs()[0].points) == 1
            with pytest.raises(StudyError, match="opened for reading"):
                reader.add_cost("x", 1.0)
            study.add_point(run, point(2))
            assert len(reader.runs()[0].points) in (1, 2)  # whole, of before or after


def test_a_killed_writer_leaves_a_whole_study_and_an_interrupted_run(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    program = f"""
import os, signal
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_store import *
study = Study.create({str(path)!r}, FACTS)
run = study.start_run(TRIAL, HERE)
for step in (1, 2, 3):
    study.add_point(run, point(step))
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], timeout=60)
    assert killed.returncode == -9
    with Study.open(path, write=True) as study:
        (run,) = study.runs()
        assert [p.step for p in run.points] == [1, 2, 3]
        assert run.stop is not None
        assert run.stop.reason is StopReason.INTERRUPTED


def test_a_run_goes_on_from_its_saved_state_without_the_points_after_it(tmp_path: Path) -> None:
    with Study.create(tmp_path / "a.study.db", FACTS) as study:
        run = study.start_run(TRIAL, HERE)
        study.add_point(run, point(1))
        study.save_state(run, 1, b"one")
        study.add_point(run, point(2))
        study.save_state(run, 2, b"two")
        study.add_point(run, point(3))
        study.stop_run(run, Stop(StopReason.INTERRUPTED), 1.0)
        assert study.resume_run(run) == (b"two", (point(1), point(2)))
        assert study.runs()[0].stop is None
        study.stop_run(run, Stop(StopReason.FINISHED), 1.0)
        assert study.resume_run(run) is None  # a finished run needs no state any more


def test_a_paused_run_that_goes_on_has_no_end_and_keeps_all_it_has(tmp_path: Path) -> None:
    with Study.create(tmp_path / "a.study.db", FACTS) as study:
        run = study.start_run(TRIAL, HERE)
        study.add_points(run, [point(1), point(2)])
        study.save_state(run, 1, b"one")
        study.stop_run(run, Stop(StopReason.INTERRUPTED, "paused"), 1.0)
        study.reopen_run(run)
        (read,) = study.runs()
        assert (read.stop, read.points, read.wall_seconds) == (None, (point(1), point(2)), 1.0)
        study.stop_run(run, Stop(StopReason.INTERRUPTED, "paused"), 1.0)
        assert study.costs()["runs"] == 2.0
        assert study.resume_run(run) == (b"one", (point(1),))  # its state stayed


def test_a_path_may_have_any_characters(tmp_path: Path) -> None:
    path = tmp_path / "50% of #1? a&b=c é.study.db"
    Study.create(path, FACTS).close()
    with Study.open(path) as study:
        assert study.facts == FACTS
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_process_killed_while_it_made_a_study_leaves_room_for_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    (tmp_path / "a.study.db.new").write_bytes(b"half a study")
    Study.open_or_create(path, FACTS).close()
    assert [p.name for p in tmp_path.iterdir()] == ["a.study.db"]


def test_a_study_of_another_workload_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    Study.create(path, FACTS).close()
    other = WorkloadFacts("other", 100, 10, 1000, "accuracy", "max", "SGD")
    with pytest.raises(StudyError, match="is a study of 'w', not of 'other'"):
        Study.open_or_create(path, other)
    Study.open_or_create(path, FACTS).close()  # the refusal has let go of the lock


@pytest.mark.parametrize("content", [b"", b"hello, world" * 100, b"SQLite format 3\x00" + bytes(100)])
def test_what_is_not_a_study_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.study.db"
    path.write_bytes(content)
    with pytest.raises(StudyError, match="is not a study of rightbatch"):
        Study.open(path)
    assert path.read_bytes() == content


def test_another_database_is_not_a_study(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE study (format TEXT, schema_version INTEGER)")
    connection.close()
    with pytest.raises(StudyError, match="is not a study of rightbatch"):
        Study.open(path)


def test_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    Study.create(path, FACTS).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE study SET schema_version = ?", (SCHEMA_VERSION + 1,))
    connection.close()
    message = f"schema_version {SCHEMA_VERSION + 1}; this version of rightbatch knows up to {SCHEMA_VERSION}"
    with pytest.raises(StudyError, match=message):
        Study.open(path)


def test_a_missing_study_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"There is no study at .*rightbatch find"):
        Study.open(tmp_path / "none.study.db")


def test_a_folder_that_is_not_there_yet_is_made(tmp_path: Path) -> None:
    Study.create(tmp_path / "new" / "folder" / "a.study.db", FACTS).close()
    assert (tmp_path / "new" / "folder" / "a.study.db").is_file()


def test_an_unwritable_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.raises(StudyError, match=r"a\.study\.db cannot be written"):
        Study.create(tmp_path / "file" / "a.study.db", FACTS)


def test_a_full_disk_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    with Study.create(path, FACTS) as study:
        run = study.start_run(TRIAL, HERE)
        study.add_point(run, point(1))
        # SQLite's own limit of pages stands in for the disk's: the same error, from the same place.
        pages = study._connection.exec_driver_sql("PRAGMA page_count").scalar()
        study._connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        study._connection.rollback()
        with pytest.raises(StudyError, match=r"cannot be written.*full.*free some space"):
            study.save_state(run, 1, bytes(100_000))
    with Study.open(path) as study:
        assert [p.step for p in study.runs()[0].points] == [1]


def test_the_golden_study_of_version_1_opens() -> None:
    before = GOLDEN.read_bytes()
    with Study.open(GOLDEN) as study:
        runs = study.runs()
        assert study.facts.name == "digits"
        assert len(runs) == 48
        assert sum(len(run.points) for run in runs) == 1588
        assert {r.batch_size for r in study.step_times()} >= {8, 32, 128, 512}
        assert study.answers()[-1]["batch_size"] == 128
    assert GOLDEN.read_bytes() == before


def test_a_study_of_an_earlier_version_becomes_one_of_this_when_it_is_written(tmp_path):
    path = Path(shutil.copy(GOLDEN, tmp_path / "old.study.db"))
    with Study.open(path) as study:
        before, times = study.runs(), study.step_times()
    assert not any(record.unfinished for record in times)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT schema_version FROM study").fetchone() == (1,)
    with Study.open(path, write=True) as study:
        assert study.runs() == before
        assert study.step_times() == times
        study.add_step_time(StepTime(3, (1.0,), (0.0,), unfinished=True), HERE)
        assert [record.unfinished for record in study.step_times(HERE)] == [True]
        assert (study.facts.length_bound, study.facts.lacks, study.facts.earlier_sources) == (False, (), ())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT schema_version FROM study").fetchone() == (SCHEMA_VERSION,)


@pytest.mark.parametrize("done", ["ALTER TABLE step_times ADD COLUMN unfinished BOOLEAN NOT NULL DEFAULT 0", ""])
def test_a_study_whose_version_was_half_raised_is_raised_the_next_time(tmp_path: Path, done: str) -> None:
    path = Path(shutil.copy(GOLDEN, tmp_path / "old.study.db"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(done)  # killed before the version was written
        connection.commit()
    with Study.open(path, write=True) as study:
        assert len(study.runs()) == 48
        study.add_gradient_samples(0, [GradientSample(1, 8, 0.1, 1.0, 2.0, 0.125, "along")])
    with Study.open(path) as study:
        assert study.gradient_samples()[-1][-1][-1].metric == "along"


def test_nothing_is_added_where_there_is_nothing(tmp_path: Path) -> None:
    with Study.create(tmp_path / "a.study.db", FACTS) as study:
        run = study.start_run(TRIAL, HERE)
        study.add_points(run, [])
        study.add_gradient_samples(0, [])
        assert study.runs()[0].points == ()
        assert study.gradient_samples() == ()


def test_what_memory_was_taken_comes_back(tmp_path: Path) -> None:
    parts = MemoryParts(1, 2, 3, 4.5, 2.25, None, ("norm",), 0.125)
    probes = (
        MemoryProbe(4, 4, 1000, 100, 300, 350, 0.5, parts=parts),
        MemoryProbe(64, 128, 1000, 100, None, None, 1.5, "it held too much"),
    )
    with Study.create(tmp_path / "a.study.db", FACTS) as study:
        for probe in probes:
            study.add_memory_probe(probe, HERE)
        assert study.memory_probes(HERE) == probes
        assert study.memory_probes(replace(HERE, threads=99)) == ()
    with Study.open(GOLDEN) as old:
        assert old.memory_probes(HERE) == ()
    assert [probe.fits for probe in probes] == [True, False]
    assert probes[1].accumulation_steps == 2


def test_an_environment_without_micro_batches_is_the_one_of_earlier_versions(tmp_path: Path) -> None:
    with Study.create(tmp_path / "a.study.db", FACTS) as study:
        number = study.environment_id(HERE)
        assert study.environment_id(replace(HERE, micro_batch_size=64)) != number
        assert study.environment_id(HERE) == number
        assert study.environments()[number] == HERE
    with contextlib.closing(sqlite3.connect(tmp_path / "a.study.db")) as connection:
        (facts,) = connection.execute("SELECT facts FROM environments WHERE id = ?", (number,)).fetchone()
    assert "micro_batch_size" not in facts
