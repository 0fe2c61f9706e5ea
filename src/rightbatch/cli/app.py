"""What the verbs share: the application, the consoles, how an answer is printed, Ctrl-C."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rightbatch import __version__
from rightbatch.answer import Recommendation
from rightbatch.errors import ChangedCodeError, RightbatchError
from rightbatch.records import to_json
from rightbatch.report import terminal

app = typer.Typer(
    help="Which mini-batch size should I train with, at which learning rate? Measured on your model, data, hardware.",
    epilog="Add --debug to any command for the whole traceback of an error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@app.callback(invoke_without_command=True)
def version_option(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        out.print(f"rightbatch {__version__}")
        raise typer.Exit


def print_answer(answer: Recommendation, as_json: bool, study: Path) -> None:
    if as_json:
        print_json(answer)
    else:
        terminal.print_answer(answer, out)
        if answer.model is not None:
            load = f"model.load_state_dict(torch.load({answer.model!r}, weights_only=True))"
            out.print(f"model     {load}", soft_wrap=True, markup=False)
        out.print(f"kept in   {study}; as a page: rightbatch report {study}", style="dim", soft_wrap=True, markup=False)


def print_json(record: Any) -> None:
    print(json.dumps(to_json(record), indent=1, allow_nan=False))


class Interrupted(RightbatchError):
    """Ctrl-C; what was measured is kept."""

    exit_code = 130


class interruptible:
    """Ctrl-C in the block becomes a sentence that says how to go on."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            again = shlex.join(["rightbatch", *sys.argv[1:]])
            raise Interrupted(f"Interrupted. What was measured is kept; the same command goes on: {again}") from error


def asking(make: Callable[[str], Recommendation], changed_code: str) -> Recommendation:
    """Make an answer; where the code of the workload has changed, ask in a terminal whether runs of both may mix."""
    with interruptible():
        try:
            return make(changed_code)
        except ChangedCodeError as error:
            if not (sys.stdin.isatty() and err.is_terminal):
                raise
            err.print(f"rightbatch: {error}", style="yellow", markup=False, soft_wrap=True)
            if not typer.confirm("Go on, with runs of both in this study?", err=True):
                raise
            return make("mix")
