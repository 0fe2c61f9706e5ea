"""A study as a file: opening, locking, checking, writing, with an error that says what to do when one fails."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from filelock import FileLock, Timeout

from rightbatch.errors import StudyError
from rightbatch.store import schema


class Transaction:
    """One committed write; a full or vanished disk becomes a `StudyError`, and what was committed before stays."""

    def __init__(self, connection: sa.Connection, path: Path) -> None:
        self._connection, self._path = connection, path

    def __enter__(self) -> sa.Connection:
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._connection.commit()
                return
        except sa.exc.DBAPIError as failed:
            error = failed
        self._connection.rollback()
        if isinstance(error, sa.exc.DBAPIError):
            raise StudyError(
                f"The study {self._path} cannot be written: {error.orig}. What was measured before is kept; "
                f"free some space or mend the disk, and the same command goes on."
            ) from error


def make_file(path: Path, first: Mapping[str, Any]) -> None:
    """A new study file with its first row, made beside its place and moved there: it is there whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.unlink(missing_ok=True)  # left by a process that was killed while it made one
        engine = sa.create_engine(sa.URL.create("sqlite", database=str(fresh)))
        try:
            schema.schema.create_all(engine)
            with engine.begin() as connection:
                row = {"format": schema.FORMAT, "schema_version": schema.SCHEMA_VERSION, **first}
                connection.execute(schema.study.insert().values(row))
        finally:
            engine.dispose()
        fresh.replace(path)
    except (sa.exc.DBAPIError, OSError) as error:
        raise StudyError(f"The study {path} cannot be written: {error}. Choose another path with --study.") from error


def open_engine(path: Path, *, writable: bool) -> sa.Engine:
    options = {"uri": "true"} if writable else {"uri": "true", "mode": "ro"}
    address = sa.URL.create("sqlite", database=f"file:{quote(path.resolve().as_posix())}", query=options)
    engine = sa.create_engine(address, connect_args={"timeout": 30})
    if writable:
        # Write-ahead: readers follow while we write, and a commit survives the death of the process without an fsync.
        sa.event.listen(engine, "connect", _write_ahead)
    return engine


def _write_ahead(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def check_schema(path: Path, engine: sa.Engine) -> None:
    try:
        with engine.connect() as connection:
            row = connection.execute(sa.select(schema.study.c.format, schema.study.c.schema_version)).first()
    except sa.exc.DBAPIError as error:
        raise StudyError(f"{path} is not a study of rightbatch ({error.orig}). Is it the right file?") from error
    if row is None or row.format != schema.FORMAT:
        raise StudyError(f"{path} is not a study of rightbatch. Is it the right file?")
    if row.schema_version > schema.SCHEMA_VERSION:
        raise StudyError(
            f"{path} has schema_version {row.schema_version}; this version of rightbatch "
            f"knows up to {schema.SCHEMA_VERSION}. "
            f"Update it: pip install --upgrade rightbatch"
        )


def locked(path: Path) -> FileLock:
    """The lock of a study's only writer; its folder is made if need be."""
    lock = FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StudyError(
            f"Another process is writing {path}. Wait until it ends, or choose another study with --study."
        ) from error
    except OSError as error:
        raise StudyError(f"The study {path} cannot be written: {error}. Choose another path with --study.") from error
    return lock


def being_written(path: Path) -> bool:
    """Whether a process has the study open to write."""
    lock = FileLock(f"{path}.lock")
    if not Path(lock.lock_file).exists():
        return False
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a disk that cannot be written has no writer
        return False
