"""A page for every reproduction, from its recorded result: the same claims, numbers, verdicts, notes and figure."""

from __future__ import annotations

from pathlib import Path

import vl_convert

from rightbatch.pipeline.reproduce import recorded, reproductions
from rightbatch.report import units
from rightbatch.report.reproduction_page import row
from rightbatch.reproduction import SIZES, Reproduction, Result

FOLDER = Path(__file__).parents[2] / "reproductions"


def pages() -> dict[str, str]:
    """Markdown and drawings by file."""
    written = {}
    told = [(one, result) for one in reproductions(FOLDER) if (result := largest(one)) is not None]
    for one, result in told:
        drawing = None
        if one.figure is not None:
            drawing = vl_convert.vegalite_to_svg(one.figure(result.measured).to_dict())
            written[f"papers/{one.name}.svg"] = drawing
        written[f"papers/{one.name}.md"] = page(one, result)
    return {"papers/index.md": index(told), **written}


def largest(one: Reproduction) -> Result | None:
    """The largest size that is recorded."""
    kept = [result for size in SIZES if (result := recorded(one.name, size, FOLDER)) is not None]
    return kept[-1] if kept else None


def index(told: list[tuple[Reproduction, Result]]) -> str:
    """Every paper in a line."""
    lines = [
        "# Papers, reproduced",
        "",
        "What is claimed is written down before anything runs, with the smallest effect that could be seen.",
        "`rightbatch reproduce NAME` makes each again.",
        "",
        "| name | what | came to |",
        "|---|---|---|",
        *(f"| [{one.name}]({one.name}.md) | {one.title} | {result.summary} |" for one, result in told),
        "",
        "```{toctree}",
        ":hidden:",
        "",
        *(one.name for one, _ in told),
        "```",
        "",
    ]
    return "\n".join(lines)


def page(one: Reproduction, result: Result) -> str:
    """As the page that `reproduce` writes."""
    rows = [
        f"| {escaped(said['sentence'])} | {said['published']} | {said['measured']} | {said['verdict']} |"
        for said in map(row, result.claims, result.comparisons)
    ]
    figure = [f"![{escaped(one.title)}]({one.name}.svg)", "", f"*{escaped(one.caption)}*", ""] if one.figure else []
    machine = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    lines = [
        f"# {one.name}: {one.title}",
        "",
        f"{escaped(one.source)}.",
        "",
        f"**{result.summary}.** The smallest relative difference that it could see, said before it ran: "
        f"{result.smallest_effect:.2g}. {escaped(result.smallest_effect_reason)}",
        "",
        *figure,
        "| claim | published | measured | verdict |",
        "|---|---|---|---|",
        *rows,
        "",
        "## Notes",
        "",
        *(f"- {escaped(note)}" for note in result.notes),
        "",
        "## How it was made",
        "",
        f"    {result.command}",
        "",
        f"{result.date}, {units.seconds(result.seconds)}; {machine}.",
        "",
    ]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """As plain words in Markdown."""
    for sign in ("\\", "|", "*", "_", "<", "["):
        text = text.replace(sign, f"\\{sign}" if sign != "<" else "&lt;")
    return text
