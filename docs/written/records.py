"""Numbers in the text of a page, taken from records when the site is built: they cannot differ from them.

`{{smith-le: tuned}}` is what was measured of that claim, with its interval. `{{zones}}` is the table of zones.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rightbatch.pipeline.reproduce import recorded
from rightbatch.report import units
from rightbatch.report.reproduction_page import row

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"\{\{([\w-]+): ([^}]+)\}\}")


def with_numbers(text: str) -> str:
    """The text with all of them in it. Raises `KeyError` for one that is not recorded."""
    text = NUMBER.sub(lambda found: measured(found[1], found[2]), text)
    return text.replace("{{zones}}", zones()) if "{{zones}}" in text else text


def measured(name: str, claim: str) -> str:
    """What came of a claim of a reproduction at the size `small`, as its page says it."""
    result = recorded(name, "small", ROOT / "reproductions")
    if result is None:
        raise KeyError(f"{name} is not recorded at the size small")
    told = {said.identifier: row(said, done) for said, done in zip(result.claims, result.comparisons, strict=True)}
    return told[claim]["measured"]


def zones() -> str:
    """Very small, as good, huge, of every recorded table."""
    found = json.loads((ROOT / "benchmarks" / "zones.json").read_text(encoding="utf-8"))
    lines = [
        "| problem | very small below | best | cannot be excluded | huge above | 32 costs |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        again = one["costs"].get("32")
        lines.append(
            f"| {name} | {edge(one['very_small_below'], min(one['sizes']))} | {one['batch_size']} | "
            f"{units.sizes(one['not_excluded'])} | {edge(one['huge_above'], max(one['sizes']))} | "
            f"{units.significant(again / one['cost_seconds'])} times the best |"
        )
    return "\n".join(lines)


def edge(zone: dict[str, Any], last: int) -> str:
    """Where it is, and how much of the hardware is used there; or that it is not within what was tried."""
    if zone["batch_size"] is None:
        return f"not seen up to {last:,}"
    return f"{zone['batch_size']:,.0f} ({100 * zone['throughput_share']:.0f} % of the hardware)"
