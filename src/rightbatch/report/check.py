"""What a check found, in the terminal."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rightbatch.findings import CheckReport, Finding
from rightbatch.report import units


def print_check(report: CheckReport, console: Console) -> None:
    """Print a report: faults first, then notes, then what could not be looked at."""
    console.print(check_text(report))


def check_text(report: CheckReport) -> RenderableType:
    """The whole report, ready to print."""
    notes = [finding for finding in report.findings if finding.note]
    parts: list[RenderableType] = [_headline(report, len(notes))]
    parts += [_finding(finding) for finding in (*report.faults, *notes)]
    if report.not_looked_at:
        by_reason: dict[str, list[str]] = {}
        for skipped in report.not_looked_at:
            by_reason.setdefault(skipped.why, []).append(skipped.check)
        parts.append(Text("\nnot looked at", style="dim"))
        parts.append(_rows([(", ".join(checks), why) for why, checks in by_reason.items()]))
    return Group(*parts)


def _headline(report: CheckReport, notes: int) -> Text:
    faults = len(report.faults)
    text = Text(f"{report.workload}: ")
    text.append("no faults" if not faults else _count(faults, "fault"), style="bold red" if faults else "bold green")
    if notes:
        text.append(f", {_count(notes, 'note')}")
    text.append(f" ({_count(len(report.looked_at), 'check')} in {units.seconds(report.seconds)})")
    return text


def _finding(finding: Finding) -> RenderableType:
    kind, style = ("note", "yellow") if finding.note else ("fault", "red")
    title = Text.assemble("\n", (f"{kind:<6}", style), (finding.fault.value, "bold"))
    return Group(title, _rows([("seen", finding.seen), ("why", f"{finding.fault.why}."), ("do", finding.do)]))


def _rows(rows: list[tuple[str, str]]) -> RenderableType:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", max_width=40)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, Text(text))  # a person's own words: never read as markup
    return Padding(table, (0, 0, 0, 6))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
