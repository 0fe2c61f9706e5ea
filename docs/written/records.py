"""Numbers in the text of a page that are those of a record: between two comments, the first of which names it.

`<!-- smith-le: tuned -->...<!-- / -->` is what was measured of that claim, with its interval; `<!-- zones -->` and
`<!-- growing -->` are tables. `python docs/recorded.py` writes them; a test fails where one differs from its record.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from rightbatch.pipeline.reproduce import recorded
from rightbatch.report import units
from rightbatch.report.reproduction_page import row

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"(<!-- ([\w-]+): ([^>]+?) -->).*?(<!-- / -->)")
TABLE = re.compile(r"(<!-- (zones|growing) -->).*?(<!-- / -->)", re.DOTALL)


def with_numbers(text: str) -> str:
    """The text with all of them as they are recorded now. Raises `KeyError` for one that is not recorded."""
    text = NUMBER.sub(lambda found: found[1] + measured(found[2], found[3]) + found[4], text)
    return TABLE.sub(lambda found: f"{found[1]}\n\n{TABLES[found[2]]()}\n\n{found[3]}", text)


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


def growing() -> str:
    """Every way to change the batch size, over the tuned fixed best and over 32, in the geometric mean."""
    problems = json.loads((ROOT / "benchmarks" / "growing.json").read_text(encoding="utf-8"))["problems"]
    lines = [
        "| | over the tuned fixed best | over a fixed 32 | problems | targets missed |",
        "|---|---|---|---|---|",
    ]
    for name in next(iter(problems.values())):
        if name not in ("fixed best", "quality"):
            of = [(one[name], one["fixed 32"]["ratio"][0]) for one in problems.values()]
            reached = [(row["ratio"][0], row["ratio"][0] / usual) for row, usual in of if not row["missed"]]
            best, usual = (geometric_mean(side) for side in zip(*reached, strict=True))
            seeds = sum(len(row["seconds"]) + row["missed"] for row, _ in of)
            missed = sum(row["missed"] for row, _ in of)
            called = name if name == "fixed 32" else f"`{name}`"
            lines.append(f"| {called} | {best:.2f} | {usual:.2f} | {len(reached)} | {missed} of {seeds} |")
    return "\n".join(lines)


TABLES = {"zones": zones, "growing": growing}
