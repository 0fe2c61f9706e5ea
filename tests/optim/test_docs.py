"""The page on posteriors: its code runs, and gives what it says."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "posterior.md"


def test_the_code_of_the_page_runs_and_gives_what_it_says():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    prediction, sampler = names["prediction"], names["sampler"]
    assert prediction.mean.shape == prediction.deviation.shape == (360, 10)
    accuracy = (prediction.mean.argmax(1) == names["workload"].valid[1]).float().mean()
    assert accuracy > 0.87
    sure = prediction.mean.max(1).values > 0.9
    assert prediction.deviation.max(1).values[sure].mean() < prediction.deviation.max(1).values[~sure].mean()
    assert abs(sampler.temperature - 1) < 1e-4
    assert not any("Not" in failure for failure in sampler.tests().failures)
    assert names["divergence"] < 0.05
