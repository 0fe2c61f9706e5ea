"""The study: one file that keeps what was measured."""

from rightbatch.store.files import being_written
from rightbatch.store.schema import SCHEMA_VERSION
from rightbatch.store.study import RESUMABLE, Study

__all__ = ["RESUMABLE", "SCHEMA_VERSION", "Study", "being_written"]
