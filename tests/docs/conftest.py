"""The site, built once for all tests of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Warnings are errors: a link to a page or a heading that is not there is one. Workers of pytest-xdist share it."""
    pytest.importorskip("sphinx")
    shared = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp().parent if shared else tmp_path_factory.mktemp("site")
    with FileLock(base / "site.lock"):
        if not (base / "html" / "index.html").is_file():
            build(base)
    return base / "html"


def build(folder: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "-d", str(folder / "trees")]
    done = subprocess.run(
        [*command, "-b", "html", str(DOCS), str(folder / "html")], capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        shutil.rmtree(folder / "html", ignore_errors=True)
    assert done.returncode == 0, done.stderr
