"""The tables of a study file. A change here raises SCHEMA_VERSION, and older files stay readable.

1: the first. 2: facts say whether a workload is length-bound, what it lacks and earlier sources; a saved state stands
behind its SHA-256. 3: squared norms of gradients. 4: the metric of these norms. 5: what memory a batch size takes.
6: what was measured of the weights that runs ended with. 7: the questions that were asked; facts say how the workload
was given on the command line; step times of which repeats were still to come.
"""

from __future__ import annotations

import sqlalchemy as sa

SCHEMA_VERSION = 7
FIRST_WITH_GRADIENT_SAMPLES = 3
FIRST_WITH_METRICS = 4
FIRST_WITH_MEMORY = 5
FIRST_WITH_WEIGHTS = 6
FIRST_WITH_UNFINISHED = FIRST_WITH_QUESTIONS = 7
ADDED_COLUMNS = (
    ("gradient_samples", "metric", "TEXT NOT NULL DEFAULT 'plain'"),
    ("step_times", "unfinished", "BOOLEAN NOT NULL DEFAULT 0"),
)
"""Those that a table had not when it was made first: table, column, kind."""
FORMAT = "rightbatch study"

schema = sa.MetaData()

study = sa.Table(
    "study",
    schema,
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("workload", sa.JSON, nullable=False),
    sa.Column("target", sa.JSON),
)
environments = sa.Table(
    "environments",
    schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("facts", sa.Text, nullable=False, unique=True),
)
runs = sa.Table(
    "runs",
    schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("environment_id", sa.ForeignKey("environments.id"), nullable=False),
    sa.Column("batch_size", sa.Integer, nullable=False),
    sa.Column("learning_rate", sa.Float, nullable=False),
    sa.Column("seed", sa.Integer, nullable=False),
    sa.Column("planned_examples", sa.Integer),
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("stop_reason", sa.Text),
    sa.Column("message", sa.Text, nullable=False, default=""),
    sa.Column("wall_seconds", sa.Float, nullable=False, default=0.0),
)
points = sa.Table(
    "points",
    schema,
    sa.Column("run_id", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True),
    sa.Column("examples", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("train_loss", sa.Float),
    sa.Column("valid_loss", sa.Float),
    sa.Column("valid_metric", sa.Float),
    sa.Column("test_metric", sa.Float),
    sa.Column("batch_size", sa.Integer, nullable=False),
    sa.Column("learning_rate", sa.Float, nullable=False),
)
states = sa.Table(
    "states",
    schema,
    sa.Column("run_id", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("state", sa.LargeBinary, nullable=False),
)
step_times = sa.Table(
    "step_times",
    schema,
    sa.Column("environment_id", sa.ForeignKey("environments.id"), primary_key=True),
    sa.Column("batch_size", sa.Integer, primary_key=True),
    sa.Column("repeat", sa.Integer, primary_key=True),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("wait_seconds", sa.Float, nullable=False),
    sa.Column("unsteady", sa.Boolean, nullable=False),
    sa.Column("unfinished", sa.Boolean, nullable=False, server_default=sa.false()),
)
gradient_samples = sa.Table(
    "gradient_samples",
    schema,
    sa.Column("training", sa.Integer, primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True),
    sa.Column("seed", sa.Integer, nullable=False),
    sa.Column("batch_size", sa.Integer, nullable=False),
    sa.Column("learning_rate", sa.Float, nullable=False),
    sa.Column("batch_squared", sa.Float, nullable=False),
    sa.Column("parts_squared", sa.Float, nullable=False),
    sa.Column("shares_squared", sa.Float, nullable=False),
    sa.Column("metric", sa.Text, nullable=False, server_default="plain"),
)
memory_probes = sa.Table(
    "memory_probes",
    schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("environment_id", sa.ForeignKey("environments.id"), nullable=False),
    sa.Column("micro_batch_size", sa.Integer, nullable=False),
    sa.Column("batch_size", sa.Integer, nullable=False),
    sa.Column("limit_bytes", sa.Integer, nullable=False),
    sa.Column("before_bytes", sa.Integer, nullable=False),
    sa.Column("training_bytes", sa.Integer),
    sa.Column("peak_bytes", sa.Integer),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("parts", sa.JSON),
)
weights = sa.Table(
    "weights",
    schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("measure", sa.Text, nullable=False),
    sa.Column("quantity", sa.Text, nullable=False),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("low", sa.Float),
    sa.Column("high", sa.Float),
    sa.Column("choices", sa.Text, nullable=False),
    sa.Column("evaluations", sa.Float, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
)
costs = sa.Table(
    "costs",
    schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("activity", sa.Text, nullable=False),
    sa.Column("wall_seconds", sa.Float, nullable=False),
)
questions = sa.Table(
    "questions",
    schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("asked", sa.JSON, nullable=False),
)
answers = sa.Table(
    "answers",
    schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("answer", sa.JSON, nullable=False),
)
