"""The page of a reproduction: claim beside measurement, in one HTML file that asks the network for nothing."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from rightbatch.report import units
from rightbatch.reproduction import Claim, Comparison, Result


def reproduction_page(result: Result, chart: Any = None, caption: str = "") -> str:
    """The whole page as HTML; `chart` is an Altair chart or None."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((files("rightbatch.report") / "reproduction.html").read_text(encoding="utf-8"))
    return template.render(
        result=result,
        rows=[row(claim, done) for claim, done in zip(result.claims, result.comparisons, strict=True)],
        # Our own drawing; Vega escapes the texts in it.
        svg=Markup(vl_convert.vegalite_to_svg(chart.to_dict())) if chart is not None else "",
        caption=caption,
        units=units,
    )


def row(claim: Claim, done: Comparison) -> dict[str, str]:
    """A claim beside what was measured, in words."""
    sign = {"equal": "", "at least": "≥ ", "at most": "≤ "}[claim.relation]
    return {
        "identifier": claim.identifier,
        "sentence": claim.sentence,
        "published": sign + number(claim.published),
        "measured": number(done.measured) if done.low is None else units.interval(done.interval),
        "ratio": "-" if done.ratio is None else units.significant(done.ratio, 4),
        "allowed": f"{units.significant(100 * claim.tolerance)} %" + (f" or {claim.slack:g}" if claim.slack else ""),
        "known_by": claim.known_by,
        "verdict": done.verdict,
    }


def number(value: float | None) -> str:
    """A whole number in full, another one at six significant digits, without zeros at its end."""
    if value is not None and value == round(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    said = units.significant(value, 6)
    return said.rstrip("0").rstrip(".") if "." in said and "e" not in said else said
