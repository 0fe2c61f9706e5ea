"""A page for every verb of the command line, from the commands themselves."""

from __future__ import annotations

import re
from typing import Any

import typer

from rightbatch.cli import app

ORDER = (
    "find", "check", "profile", "sweep", "show", "report", "export", "judge", "rules", "noise", "branches", "memory",
    "sharpness", "posterior", "replay", "reproduce", "workloads",
)  # fmt: skip
"""As a newcomer meets them; verbs that are not named here come last."""


def verbs() -> dict[str, Any]:
    """Every verb by its name, in the order of the pages."""
    known: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    last = len(ORDER)
    order = sorted(known, key=lambda name: (ORDER.index(name) if name in ORDER else last, name))
    return {name: known[name] for name in order}


def pages() -> dict[str, str]:
    """Markdown by file."""
    written = {f"commands/{name}.md": page(name, command) for name, command in verbs().items()}
    return {"commands/index.md": index(), **written}


def index() -> str:
    """Every verb in a line."""
    rows = [f"| [{name}]({name}.md) | {first_line(command)} |" for name, command in verbs().items()]
    lines = [
        "# Commands",
        "",
        "Results go to standard output, progress to standard error. Exit codes: 0 done, 1 an error to be corrected,",
        "2 usage, 3 the evidence does not support an answer (or a claim of a reproduction), 130 interrupted: the same",
        "command goes on. `--debug` shows the whole traceback of an error.",
        "",
        "| verb | what it does |",
        "|---|---|",
        *rows,
        "",
        "```{toctree}",
        ":hidden:",
        "",
        *verbs(),
        "```",
        "",
    ]
    return "\n".join(lines)


def first_line(command: Any) -> str:
    """Of its help."""
    return escaped((command.help or "").strip().split("\n\n")[0])


def page(name: str, command: Any) -> str:
    """What it does, its arguments and its options."""
    context = command.context_class(command, info_name=f"rightbatch {name}")
    usage = command.get_usage(context).removeprefix("Usage: ")
    paragraphs = [escaped(part) for part in re.split(r"\n\s*\n", (command.help or "").strip())]
    records = [parameter.get_help_record(context) for parameter in command.params if not parameter.hidden]
    rows = [f"| `{left.replace('|', chr(92) + '|')}` | {escaped(right)} |" for left, right in filter(None, records)]
    lines = [f"# rightbatch {name}", "", *"\n\n".join(paragraphs).split("\n"), "", f"    {usage}", ""]
    return "\n".join([*lines, "| argument, option | meaning |", "|---|---|", *rows, ""])


def escaped(text: str) -> str:
    """Help as Markdown in a cell: lines joined, bars and braces left alone."""
    joined = " ".join(text.split())
    return joined.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
