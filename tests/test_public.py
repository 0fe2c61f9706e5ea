"""What the package shows the world, and that what it says of itself agrees."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import rightbatch

REPOSITORY = Path(__file__).parent.parent


def test_public_names_are_these() -> None:
    assert len(rightbatch.__all__) == len(set(rightbatch.__all__))  # ruff sees to the order
    assert all(getattr(rightbatch, name) is not None for name in rightbatch.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = rightbatch.nonsense


def test_type_checkers_see_the_names_where_they_are_found() -> None:
    tree = ast.parse(Path(rightbatch.__file__).read_text(encoding="utf-8"))
    (seen,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in seen.body if isinstance(node, ast.ImportFrom)]
    homes = {name.name: str(node.module).removeprefix("rightbatch.") for node in imports for name in node.names}
    assert homes == rightbatch._FOUND_IN


def test_all_names_can_be_completed_and_imported_at_once() -> None:
    assert set(rightbatch.__all__) <= set(dir(rightbatch))
    names: dict[str, object] = {}
    exec("from rightbatch import *", names)
    assert set(names) - {"__builtins__"} == set(rightbatch.__all__)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("rightbatch", "numpy scipy sqlalchemy rich typer torch"),
        ("rightbatch.worker", "numpy scipy sqlalchemy rich typer torch"),
        ("rightbatch.cli", "scipy.stats scipy.optimize scipy.linalg altair jinja2 torch"),
    ],
)
def test_what_is_started_often_starts_without_what_takes_long_to_import(module: str, heavy: str) -> None:
    program = f"import sys, {module}; print(*set({heavy.split()}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_versions_agree() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    citation = (REPOSITORY / "CITATION.cff").read_text()
    assert rightbatch.__version__ == version("rightbatch")
    assert re.findall(r"^## \[?([\d.]+)", changelog, re.M)[0] == rightbatch.__version__
    assert re.findall(r"^version: (.+)$", citation, re.M) == [rightbatch.__version__]


def test_every_public_function_says_what_it_does() -> None:
    for name in rightbatch.__all__:
        assert (getattr(rightbatch, name).__doc__ or "").strip(), name


def test_pins_have_no_local_suffix() -> None:
    assert "+" not in (REPOSITORY / "constraints.txt").read_text()
