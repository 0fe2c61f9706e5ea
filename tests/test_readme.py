"""What the README shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rightbatch.records import Stop, Trial

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_workload_of_ones_own_is_made_and_trains() -> None:
    pytest.importorskip("torch")
    from rightbatch.engine import WorkloadRunner

    (block,) = re.findall(r"```python\n(.*?)```", README, re.S)
    names: dict[str, object] = {"__name__": "mine"}
    exec(block, names)
    runner = WorkloadRunner(names["make"]())  # type: ignore[operator]
    run = runner.start(Trial(32, 0.001, 0))
    start, first = run.advance(), run.advance()
    assert not isinstance(start, Stop)
    assert not isinstance(first, Stop)
    assert first.valid_loss is not None
    assert first.valid_loss < 1.0


def test_files_that_the_readme_links_to_are_there() -> None:
    root = Path(__file__).parent.parent
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links
    for link in links:
        assert (root / link).exists(), link
