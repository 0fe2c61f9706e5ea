"""A synthetic study with a name that means harm, as a sheet and as a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from rightbatch.pipeline.sheets import sheet_of
from rightbatch.report.page import page
from rightbatch.report.sheet import Sheet
from rightbatch.testing import synthetic_study

HARMFUL = "<script>alert(1)</script>"


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "a.study.db"
    synthetic_study(path, batch_sizes=(8, 32, 128, 512, 2048), seeds=2, name=HARMFUL).close()
    return path


@pytest.fixture(scope="session")
def sheet(study: Path) -> Sheet:
    return sheet_of(study)


@pytest.fixture(scope="session")
def text(sheet: Sheet) -> str:
    return page(sheet)
