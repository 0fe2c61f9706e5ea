"""What a study knows, read back as records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

import sqlalchemy as sa

from rightbatch.minima import WeightsRecord
from rightbatch.records import (
    Environment,
    GradientSample,
    MemoryParts,
    MemoryProbe,
    Point,
    Run,
    Settings,
    StepTime,
    Stop,
    StopReason,
    Target,
    Trial,
    WorkloadFacts,
)
from rightbatch.store import schema

WEIGHTS_COLUMNS = [f.name for f in fields(WeightsRecord) if f.name not in ("run", "choices")]


class Reading:
    """The half of a study that only reads."""

    _connection: sa.Connection

    @property
    def facts(self) -> WorkloadFacts:
        """The facts of the study's workload."""
        facts = dict(self._scalar(sa.select(schema.study.c.workload)))
        facts["settings"] = Settings(facts["settings"])
        facts["present"] = tuple(facts["present"]) if facts["present"] else None
        for name in ("lacks", "earlier_sources", "given"):
            facts[name] = tuple(facts.get(name, ()))
        return WorkloadFacts(**facts)

    @property
    def target(self) -> Target | None:
        """The target that was derived from the present choice, if one was."""
        stored = self._scalar(sa.select(schema.study.c.target))
        return Target(**stored) if stored else None

    @property
    def asked(self) -> Mapping[str, Any] | None:
        """What was asked last, by the names of `pipeline.asking.Ask`; None where nothing was."""
        if self._schema_version < schema.FIRST_WITH_QUESTIONS:
            return None
        table = schema.questions
        asked: Mapping[str, Any] | None = self._scalar(sa.select(table.c.asked).order_by(table.c.id.desc()))
        return asked

    def runs(self) -> tuple[Run, ...]:
        """Every run with its curve, in the order in which they began."""
        rows = self._connection.execute(schema.runs.select().order_by(schema.runs.c.id)).all()
        points = self._points_of([row.id for row in rows])
        return tuple(
            Run(
                trial=Trial(row.batch_size, row.learning_rate, row.seed, row.planned_examples, Settings(row.settings)),
                points=points.get(row.id, ()),
                stop=Stop(StopReason[row.stop_reason.upper()], row.message) if row.stop_reason else None,
                wall_seconds=row.wall_seconds,
                identifier=row.id,
            )
            for row in rows
        )

    def environments(self) -> dict[int, Environment]:
        """The environments of the study by number."""
        rows = self._connection.execute(schema.environments.select().order_by(schema.environments.c.id)).all()
        return {row.id: Environment(**json.loads(row.facts)) for row in rows}

    def step_times(self, environment: Environment | None = None) -> tuple[StepTime, ...]:
        """Step times of one environment, by batch size; without one, of the environment with the most sizes.

        Of those with the settings as declared, where there are any.
        """
        known = self._all_step_times()
        chosen = environment or _measured_most(known)
        return known.get(chosen, ()) if chosen else ()

    def step_times_by_settings(self, environment: Environment | None = None) -> dict[Settings, tuple[StepTime, ...]]:
        """Step times of one environment (None: as for `step_times`) by the settings that were not as declared."""
        known = self._all_step_times()
        chosen = environment or _measured_most(known)
        if chosen is None:
            return {}
        alike = {one.settings or Settings(): one for one in known if replace(one, settings=chosen.settings) == chosen}
        return {settings: known[one] for settings, one in alike.items()}

    def _all_step_times(self) -> dict[Environment, tuple[StepTime, ...]]:
        table = schema.step_times
        known = self._schema_version >= schema.FIRST_WITH_UNFINISHED
        columns = [column for column in table.c if known or column.name != "unfinished"]
        rows = self._connection.execute(sa.select(*columns).order_by(table.c.batch_size, table.c.repeat)).all()
        grouped: dict[int, dict[int, list[Any]]] = {}
        for row in rows:
            grouped.setdefault(row.environment_id, {}).setdefault(row.batch_size, []).append(row)
        return {
            environment: tuple(
                StepTime(
                    size,
                    tuple(r.seconds for r in group),
                    tuple(r.wait_seconds for r in group),
                    tuple(k for k, r in enumerate(group) if r.unsteady),
                    known and group[-1].unfinished,
                )
                for size, group in grouped[number].items()
            )
            for number, environment in self.environments().items()
            if number in grouped
        }

    def costs(self) -> dict[str, float]:
        """Wall seconds by activity: training runs with their evaluations, and everything else."""
        total: dict[str, float] = {}
        for row in self._connection.execute(schema.costs.select()):
            total[row.activity] = total.get(row.activity, 0.0) + row.wall_seconds
        runs = self._scalar(sa.select(sa.func.sum(schema.runs.c.wall_seconds)))
        return {"runs": runs or 0.0, **total}

    def answers(self) -> tuple[Mapping[str, Any], ...]:
        """Answers as they were given, oldest first."""
        return tuple(
            row.answer for row in self._connection.execute(schema.answers.select().order_by(schema.answers.c.id))
        )

    def gradient_samples(self) -> tuple[tuple[int, tuple[GradientSample, ...]], ...]:
        """Squared norms of gradients along trainings, the oldest first: pairs of the seed and the samples by step.

        All samples of a pair have the same metric.
        """
        version = self._schema_version
        if version < schema.FIRST_WITH_GRADIENT_SAMPLES:
            return ()
        table = schema.gradient_samples
        names = [f.name for f in fields(GradientSample)]
        columns = [table.c[name] for name in names if name != "metric" or version >= schema.FIRST_WITH_METRICS]
        query = sa.select(table.c.training, table.c.seed, *columns).order_by(table.c.training, table.c.step)
        grouped: dict[tuple[int, int], list[GradientSample]] = {}
        for training, seed, *values in self._connection.execute(query):
            grouped.setdefault((training, seed), []).append(GradientSample(*values))
        return tuple((seed, tuple(samples)) for (_, seed), samples in grouped.items())

    def memory_probes(self, environment: Environment) -> tuple[MemoryProbe, ...]:
        """What memory batch sizes took in an environment, the oldest first."""
        if self._schema_version < schema.FIRST_WITH_MEMORY:
            return ()
        number = next((number for number, known in self.environments().items() if known == environment), -1)
        table = schema.memory_probes
        query = table.select().where(table.c.environment_id == number).order_by(table.c.id)
        names = [f.name for f in fields(MemoryProbe) if f.name != "parts"]
        return tuple(
            MemoryProbe(**{name: getattr(row, name) for name in names}, parts=_parts(row.parts))
            for row in self._connection.execute(query)
        )

    def weights_records(self) -> tuple[WeightsRecord, ...]:
        """What was measured of the weights that runs ended with, the oldest first."""
        if self._schema_version < schema.FIRST_WITH_WEIGHTS:
            return ()
        table = schema.weights
        return tuple(
            WeightsRecord(
                run=row.run_id,
                choices=Settings(json.loads(row.choices)),
                **{name: getattr(row, name) for name in WEIGHTS_COLUMNS},
            )
            for row in self._connection.execute(table.select().order_by(table.c.id))
        )

    def _points_of(self, runs: Iterable[int]) -> dict[int, tuple[Point, ...]]:
        wanted = set(runs)
        columns = [schema.points.c[f.name] for f in fields(Point)]
        grouped: dict[int, list[Point]] = {}
        query = sa.select(schema.points.c.run_id, *columns).order_by(schema.points.c.run_id, schema.points.c.step)
        if len(wanted) == 1:
            query = query.where(schema.points.c.run_id == next(iter(wanted)))
        for run, *values in self._connection.execute(query):
            if run in wanted:
                grouped.setdefault(run, []).append(Point(*values))
        return {run: tuple(points) for run, points in grouped.items()}

    @property
    def _schema_version(self) -> int:
        return int(self._scalar(sa.select(schema.study.c.schema_version)))

    def _scalar(self, query: sa.Select[Any]) -> Any:
        return self._connection.execute(query).scalar()


def _parts(stored: dict[str, Any] | None) -> MemoryParts | None:
    return None if stored is None else MemoryParts(**{**stored, "normalising": tuple(stored["normalising"])})


def _measured_most(known: Mapping[Environment, tuple[StepTime, ...]]) -> Environment | None:
    """The environment with the most sizes, the latest of several; as declared, where any is."""
    order = {environment: number for number, environment in enumerate(known)}
    return max(known, key=lambda one: (one.settings is None, len(known[one]), order[one]), default=None)
