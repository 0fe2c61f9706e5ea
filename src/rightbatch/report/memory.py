"""The largest batch that fits, in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rightbatch.another_batch import RULES, Plan
from rightbatch.memory_answer import MemoryReport, savings
from rightbatch.records import Interval, MemoryProbe
from rightbatch.report import units
from rightbatch.wording import bytes_text, counted


def print_memory(console: Console, report: MemoryReport) -> None:
    """Print the answer, what was tried, what a batch takes, how a wished one is trained, and what would buy more."""
    if report.batch_size:
        console.print(f"{report.workload}: [bold]{counted(report.batch_size, 'example')}[/bold] fit in one pass")
    else:
        console.print(f"{report.workload}: not even one example fits")
    console.print(_held(report))
    console.print()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("batch size", "passes", "held", "took", "fits"):
        table.add_column(name, justify="left" if name == "fits" else "right", no_wrap=name != "fits")
    for probe in report.probes:
        table.add_row(
            f"{probe.batch_size:,}",
            str(probe.accumulation_steps),
            bytes_text(probe.peak_bytes) if probe.peak_bytes is not None else "-",
            units.seconds(probe.seconds),
            _fits(probe, report.limit_bytes),
        )
    console.print(table)
    console.print()
    if report.plans is not None:
        _print_plans(console, report.by or "", report.plans)
    for title, text in _said(report):
        console.print(Text.from_markup(f"[dim]{title:<9}[/dim] {escape(text)}"))


def _print_plans(console: Console, by: str, plans: tuple[Plan, Plan, Plan]) -> None:
    rule = RULES[by]
    console.print(f"if another batch is as welcome, by the rule {by}: {rule.statement} ({rule.source})")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "batch size", "rate", "steps", "examples"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for name, plan in zip(("now", "wished", "instead"), plans, strict=True):
        steps = None if plan.steps is None else round(plan.steps)
        counts = [f"{count:,.0f}" if count is not None else "-" for count in (steps, plan.examples)]
        table.add_row(name, f"{plan.batch_size:,}", units.rate(plan.learning_rate), *counts)
    console.print(table)
    console.print(
        "what is of steps (warm-up, milestones) moves as the steps do; the rule was not tried here", style="dim"
    )
    console.print()


def _held(report: MemoryReport) -> str:
    of = "what is free" if report.asked_bytes is None else f"the {bytes_text(report.asked_bytes)} asked for, or free"
    allowed = f"{bytes_text(report.limit_bytes)} ({of}, less {100 * report.headroom:g} %)"
    if report.peak_bytes is None:
        return f"it may hold {allowed}; of one example: {report.why}"
    if report.batch_size == report.train_examples:
        return f"these are all the data; it held {bytes_text(report.peak_bytes)} of {allowed}"
    bound = "" if report.at_most is None else f"; above {report.at_most:,} none is likely to"
    return f"it was run, and held {bytes_text(report.peak_bytes)} of {allowed}{bound}"


def _fits(probe: MemoryProbe, limit_bytes: int) -> str:
    if probe.peak_bytes is None:
        return f"no: {probe.why}"
    return "yes" if probe.peak_bytes <= limit_bytes else "no"


def _said(report: MemoryReport) -> list[tuple[str, str]]:
    said = []
    fit, parts = report.fit, report.parts
    if fit is not None:
        before = f"{bytes_text(report.before_bytes)} before there is a model"
        fixed, each = _interval(fit.fixed_bytes), _interval(fit.example_bytes)
        said.append(("a batch", f"takes {before}, {fixed} at any size, and {each} an example"))
    if parts is not None:
        held = f"{bytes_text(parts.model_bytes)}, gradients {bytes_text(parts.gradient_bytes)}"
        kept = (
            ""
            if parts.kept_bytes is None
            else f"; {bytes_text(parts.kept_bytes)} an example kept for the backward pass"
        )
        said.append(("counted", f"model {held}, state of the optimizer {bytes_text(parts.optimizer_bytes)}{kept}"))
    if report.refused:
        said.append(("caution", f"the workload refused a size, {report.refused}"))
    if report.wished is not None:
        wished = report.wished
        text = (
            f"{wished.batch_size:,} = {wished.accumulation_steps} passes of at most {wished.micro_batch_size:,}, run: "
            f"it held {bytes_text(wished.peak_bytes)}. Rate, warm-up and number of steps stay: the batch is the same"
            if wished.accumulation_steps > 1
            else f"{wished.batch_size:,} fit in one pass: it held {bytes_text(wished.peak_bytes)}"
        )
        said.append(("wished", text))
        if wished.normalising:
            names = ", ".join(wished.normalising[:3]) + (" ..." if len(wished.normalising) > 3 else "")
            changes = (
                ""
                if wished.difference is None
                else f": cutting half of one into {wished.accumulation_steps} changes its gradient by "
                f"{100 * wished.difference:.2g} %"
            )
            text = (
                f"{counted(len(wished.normalising), 'module')} ({names}) normalise over a batch, and here over each "
                f"pass by itself, which is another training{changes}"
            )
            said.append(("caution", text))
    for saving in savings(report):
        said.append(("predicted", f"{saving.what}: {saving.batch_size:,} would fit in one pass (not run)"))
    earlier = sum(probe.seconds for probe in report.probes) - report.wall_seconds
    before = f", and {units.seconds(earlier)} before" if earlier > 1 else ""
    said.append(("cost", f"{units.seconds(report.wall_seconds)} now{before}"))
    return said


def _interval(value: Interval) -> str:
    if value.low is None or value.high is None:
        return bytes_text(value.estimate)
    return f"{bytes_text(value.estimate)} [{bytes_text(value.low)}, {bytes_text(value.high)}]"
