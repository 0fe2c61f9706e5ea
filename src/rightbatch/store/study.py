"""The study: one SQLite file that keeps what was measured, and nothing that can be computed from it.

Contract
* One study is of one workload; a different one is refused.
* One writer at a time (a lock beside the file), any number of readers.
* What is written is committed at once: points as they come, so that a killed process loses at most the stretch since
  the last evaluation. A run without a stop reason whose writer is gone is marked interrupted when the next one opens.
* Runs, points, step times and environments are append-only; a run that goes on from a saved state drops the points
  after it. Fits, crossings, zones and verdicts are never stored; an answer is, as a snapshot that can be cited.
* `schema_version` is checked on opening: a newer one is refused by name.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from filelock import FileLock

from rightbatch.errors import StudyError
from rightbatch.minima import WeightsRecord
from rightbatch.records import (
    Environment,
    GradientSample,
    MemoryProbe,
    Point,
    Settings,
    StepTime,
    Stop,
    StopReason,
    Target,
    Trial,
    WorkloadFacts,
    to_json,
)
from rightbatch.store import schema
from rightbatch.store.files import Transaction, check_schema, locked, make_file, open_engine
from rightbatch.store.reading import Reading

RESUMABLE = frozenset({StopReason.INTERRUPTED, StopReason.OUT_OF_BUDGET})
"""Runs that ended so keep their saved state and can go on."""

DIGEST_BYTES = 32
"""A saved state stands behind its SHA-256."""


class Study(Reading):
    """An open study. Make one with `Study.create`, `Study.open` or `Study.open_or_create`; close it, or use `with`."""

    def __init__(self, path: Path, engine: sa.Engine, lock: FileLock | None) -> None:
        self.path = path
        self._lock = lock
        self._engine = engine
        self._connection = engine.connect()

    # ------------------------------------------------------------------------------------------ open and close

    @classmethod
    def create(cls, path: str | Path, facts: WorkloadFacts) -> Study:
        """A new study at a path that does not exist yet. Raises `StudyError` if it cannot be written."""
        path = Path(path)
        if path.exists():
            raise StudyError(f"{path} exists already. Choose another path, or continue that study.")
        lock = locked(path)
        first = {"created": _now(), "workload": to_json(facts)}
        try:
            make_file(path, first)
        except BaseException:
            lock.release()
            raise
        return cls(path, open_engine(path, writable=True), lock)

    @classmethod
    def open(cls, path: str | Path, *, write: bool = False) -> Study:
        """An existing study, to read or to write.

        Raises `StudyError` if there is none, if the file is not a study, if its schema is newer than this version
        knows, or if another process is writing it.
        """
        path = Path(path)
        if not path.is_file():
            raise StudyError(f"There is no study at {path}. `rightbatch find WORKLOAD --study {path}` would make one.")
        lock = locked(path) if write else None
        engine = open_engine(path, writable=write)
        try:
            check_schema(path, engine)
            study = cls(path, engine, lock)
            if write:
                study._raise_schema(engine)
                study._close_orphans()
        except BaseException:
            if lock:
                lock.release()
            raise
        return study

    @classmethod
    def open_or_create(cls, path: str | Path, facts: WorkloadFacts) -> Study:
        """The study at a path, to write: continued if it is of the same workload, made if there is none."""
        if not Path(path).exists():
            return cls.create(path, facts)
        study = cls.open(path, write=True)
        if study.facts.name != facts.name:
            held = study.facts.name
            study.close()
            raise StudyError(f"{path} is a study of {held!r}, not of {facts.name!r}. Choose another one with --study.")
        return study

    def close(self) -> None:
        """Let go of the file; it is then one plain file. Allowed more than once."""
        self._connection.close()
        if self._lock is not None and self._lock.is_locked:
            # Out of write-ahead mode, so that the study is a single file again and opens on read-only disks.
            # Fails harmlessly while a reader has it open.
            with self._engine.connect() as connection, contextlib.suppress(sa.exc.OperationalError):
                connection.exec_driver_sql("PRAGMA journal_mode=DELETE")
            # Removed while it is held: whoever opened it meanwhile finds it gone once it is theirs, and tries anew.
            with contextlib.suppress(OSError):
                Path(self._lock.lock_file).unlink()
            self._lock.release()
        self._engine.dispose()

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------- writing

    def environment_id(self, environment: Environment) -> int:
        """The number of an environment in this study, added if it is new."""
        known = {name: value for name, value in to_json(environment).items() if value is not None}
        facts = json.dumps(known, sort_keys=True)
        found = self._scalar(sa.select(schema.environments.c.id).where(schema.environments.c.facts == facts))
        return found if found is not None else self._insert(schema.environments, facts=facts)

    def start_run(self, trial: Trial, environment: Environment) -> int:
        """Add a run that has begun; its number."""
        return self._insert(
            schema.runs,
            environment_id=self.environment_id(environment),
            batch_size=trial.batch_size,
            learning_rate=trial.learning_rate,
            seed=trial.seed,
            planned_examples=trial.planned_examples,
            settings=dict(trial.settings),
            message="",
            wall_seconds=0.0,
        )

    def add_points(self, run: int, points: Sequence[Point]) -> None:
        """Add points of a run, committed together."""
        rows = [{"run_id": run, **{f.name: getattr(point, f.name) for f in fields(point)}} for point in points]
        if not rows:
            return
        with self._writing() as connection:
            connection.execute(schema.points.insert(), rows)

    def add_point(self, run: int, point: Point) -> None:
        """Add one point of a run, committed at once."""
        self.add_points(run, [point])

    def stop_run(self, run: int, stop: Stop, wall_seconds: float) -> None:
        """Say why a run ended and what it took; its saved state is no longer needed, except when interrupted."""
        self._execute(
            schema.runs.update()
            .where(schema.runs.c.id == run)
            .values(
                stop_reason=stop.reason.name.lower(),
                message=stop.message,
                wall_seconds=schema.runs.c.wall_seconds + wall_seconds,
            )
        )
        if stop.reason not in RESUMABLE:
            self._execute(schema.states.delete().where(schema.states.c.run_id == run))

    def reopen_run(self, run: int) -> None:
        """A run that was paused goes on: for now it has no end."""
        self._execute(schema.runs.update().where(schema.runs.c.id == run).values(stop_reason=None, message=""))

    def save_state(self, run: int, step: int, state: bytes) -> None:
        """Keep the state of a run after a step, in place of an earlier one."""
        with self._writing() as connection:
            connection.execute(schema.states.delete().where(schema.states.c.run_id == run))
            connection.execute(schema.states.insert().values(run_id=run, step=step, state=_digest(state) + state))

    def drop_state(self, run: int, stop: Stop) -> None:
        """Forget the saved state of a run that cannot go on from it, and say why it ended."""
        self._execute(schema.states.delete().where(schema.states.c.run_id == run))
        self.stop_run(run, stop, 0.0)

    def replace_facts(self, facts: WorkloadFacts) -> None:
        """Go on with other facts of the same workload: its code was changed, or more was said of it."""
        self._execute(schema.study.update().values(workload=to_json(facts)))

    def resume_run(self, run: int) -> tuple[bytes, tuple[Point, ...]] | None:
        """Reopen a run at its saved state: that state and the points up to it; None if it saved none that is whole."""
        row = self._connection.execute(schema.states.select().where(schema.states.c.run_id == run)).first()
        if row is None:
            return None
        digest, state = row.state[:DIGEST_BYTES], row.state[DIGEST_BYTES:]
        if digest != _digest(state):  # a disk that lies: numbers that are a little wrong would go on unnoticed
            return None
        with self._writing() as connection:
            connection.execute(
                schema.points.delete().where(schema.points.c.run_id == run, schema.points.c.step > row.step)
            )
            connection.execute(schema.runs.update().where(schema.runs.c.id == run).values(stop_reason=None, message=""))
        return state, self._points_of([run]).get(run, ())

    def add_step_time(self, record: StepTime, environment: Environment) -> None:
        """Add the step times of one batch size, in place of earlier ones in the same environment."""
        number = self.environment_id(environment)
        rows = [
            {
                "environment_id": number,
                "batch_size": record.batch_size,
                "repeat": k,
                "seconds": seconds,
                "wait_seconds": record.wait_seconds[k],
                "unsteady": k in record.unsteady,
                "unfinished": record.unfinished,
            }
            for k, seconds in enumerate(record.seconds)
        ]
        with self._writing() as connection:
            connection.execute(
                schema.step_times.delete().where(
                    schema.step_times.c.environment_id == number, schema.step_times.c.batch_size == record.batch_size
                )
            )
            connection.execute(schema.step_times.insert(), rows)

    def add_gradient_samples(self, seed: int, samples: Sequence[GradientSample]) -> None:
        """Add the squared norms of gradients that were sampled along one training, of one metric or several."""
        table = schema.gradient_samples
        first = (self._scalar(sa.select(sa.func.max(table.c.training))) or 0) + 1
        metrics = list(dict.fromkeys(sample.metric for sample in samples))
        rows = [
            {
                "training": first + metrics.index(sample.metric),
                "seed": seed,
                **{f.name: getattr(sample, f.name) for f in fields(sample)},
            }
            for sample in samples
        ]
        if not rows:
            return
        with self._writing() as connection:
            connection.execute(table.insert(), rows)

    def add_memory_probe(self, probe: MemoryProbe, environment: Environment) -> None:
        """Add what memory a batch size took."""
        values = _without(probe, "parts")
        parts = to_json(probe.parts) if probe.parts is not None else None
        self._insert(schema.memory_probes, environment_id=self.environment_id(environment), parts=parts, **values)

    def add_weights_records(self, records: Sequence[WeightsRecord]) -> None:
        """Add what one measure gave for the weights of one run, in place of what it gave before by the same choices."""
        table, first = schema.weights, records[0]
        rows = [{"run_id": r.run, "choices": _sorted(r.choices), **_without(r, "run", "choices")} for r in records]
        with self._writing() as connection:
            connection.execute(
                table.delete().where(
                    table.c.run_id == first.run,
                    table.c.measure == first.measure,
                    table.c.choices == _sorted(first.choices),
                )
            )
            connection.execute(table.insert(), rows)

    def add_cost(self, activity: str, wall_seconds: float) -> None:
        """Add what an activity other than a run took ("profile")."""
        self._insert(schema.costs, activity=activity, wall_seconds=wall_seconds)

    def set_target(self, target: Target) -> None:
        """Keep the target that was derived from the present choice, so that it does not move as runs are added."""
        self._execute(schema.study.update().values(target=to_json(target)))

    def add_asked(self, asked: Mapping[str, Any]) -> None:
        """Keep what is asked of the study from now on."""
        if asked != self.asked:
            self._insert(schema.questions, created=_now(), asked=asked)

    def add_answer(self, answer: Any) -> None:
        """Keep an answer as it was given."""
        self._insert(schema.answers, created=_now(), answer=to_json(answer))

    # ------------------------------------------------------------------------------------------------- private

    def _raise_schema(self, engine: sa.Engine) -> None:
        """What a file of an earlier version does not have yet, or not all of it, where this was killed half way."""
        if self._schema_version == schema.SCHEMA_VERSION:
            return
        schema.schema.create_all(engine)
        for table, column, kind in schema.ADDED_COLUMNS:
            if column not in {known["name"] for known in sa.inspect(engine).get_columns(table)}:
                self._execute(sa.text(f"ALTER TABLE {table} ADD COLUMN {column} {kind}"))
        self._execute(schema.study.update().values(schema_version=schema.SCHEMA_VERSION))

    def _close_orphans(self) -> None:
        """Runs that a killed process left open: nobody writes them any more, since the lock is ours."""
        stop = Stop(StopReason.INTERRUPTED, "the process ended while it ran")
        for run in self._connection.scalars(
            sa.select(schema.runs.c.id).where(schema.runs.c.stop_reason.is_(None))
        ).all():
            self.stop_run(run, stop, 0.0)

    def _writing(self) -> Transaction:
        if self._lock is None:
            raise StudyError(f"{self.path} was opened for reading. Open it with write=True.")
        self._connection.rollback()  # ends the implicit transaction of earlier reads
        return Transaction(self._connection, self.path)

    def _execute(self, statement: sa.Executable) -> None:
        with self._writing() as connection:
            connection.execute(statement)

    def _insert(self, table: sa.Table, **values: Any) -> int:
        with self._writing() as connection:
            result = connection.execute(table.insert().values(**values))
            return int(result.lastrowid)


def _without(record: Any, *names: str) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record) if f.name not in names}


def _sorted(choices: Settings) -> str:
    return json.dumps(dict(choices), sort_keys=True)


def _digest(state: bytes) -> bytes:
    return hashlib.sha256(state).digest()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
