"""What the package shows the world, and that what it says of itself agrees."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

import rightbatch

REPOSITORY = Path(__file__).parent.parent


def test_public_names_are_these() -> None:
    assert rightbatch.__all__ == sorted(rightbatch.__all__)
    assert all(getattr(rightbatch, name) is not None for name in rightbatch.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = rightbatch.nonsense


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
