"""An answer in Markdown, for a pull request or a team's log."""

from __future__ import annotations

from rightbatch.report import spoken, terminal, units
from rightbatch.report.figures.sweet_spot import zone_of
from rightbatch.report.growth import growth_text
from rightbatch.report.sheet import Sheet

SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>#|"})


def markdown(sheet: Sheet) -> str:
    """The answer, how sure it is, what being wrong costs, and every batch size in a table."""
    answer = sheet.answer
    lines = [
        f"## {_plain(answer.workload)}: batch size {answer.batch_size}, learning rate "
        f"{units.rate(answer.learning_rate)}",
        "",
        f"    {spoken.change_text(answer)}",
        "",
        f"- {_plain(terminal.describe_target(answer))}",
        f"- {_plain(terminal.cost_text(answer))}",
        *([f"- now: {_plain(terminal.present_text(answer))}"] if answer.present else []),
        f"- {_plain(spoken.sure_text(answer))}",
        f"- {_plain(spoken.factor_of_two_text(answer))}",
        *([f"- growing: {_plain(growth_text(answer.growth))}"] if answer.growth else []),
        *(f"- because {_plain(reason)}" for reason in answer.reasons),
        *(f"- caution: {_plain(caution)}" for caution in answer.cautions),
        "",
        "| batch size | zone | best rate | cost | steps | a step | seeds |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in answer.sizes:
        cost = units.interval(row.cost, lambda value: units.cost(value, answer.objective))
        cells = (
            f"**{row.batch_size}**" if row.batch_size == answer.batch_size else str(row.batch_size),
            zone_of(answer, row.batch_size),
            units.rate_of(row),
            cost,
            units.significant(row.steps),
            units.seconds(row.step_seconds),
            str(row.seeds) if row.seeds or row.cost is None else "predicted",
        )
        lines.append(f"| {' | '.join(cells)} |")
    spent = units.seconds(sum(answer.spent_seconds.values()))
    return "\n".join([*lines, "", f"{_plain(answer.protocol)}. It took {spent}.", ""])


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is, whatever a person called things."""
    return " ".join(text.translate(SPECIAL).split())
