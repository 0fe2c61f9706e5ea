"""The verb that finds what fits: memory."""

from __future__ import annotations

from typing import Annotated

import typer

from rightbatch.cli.app import app, err, interruptible, out, print_json
from rightbatch.cli.arguments import asked, given
from rightbatch.cli.options import Device, Json, Present, SettingOption, StudyOption, Threads, Words
from rightbatch.memory_room import HEADROOM
from rightbatch.pipeline import memory as fitting
from rightbatch.records import MemoryProbe
from rightbatch.report.memory import print_memory
from rightbatch.wording import bytes_text


@app.command("memory")
def memory_command(
    words: Words,
    limit: Annotated[str | None, typer.Option(help="What training may hold, as 8GB; default: what is free.")] = None,
    headroom: Annotated[float, typer.Option(help="The share of it that stays free.")] = HEADROOM,
    wish: Annotated[
        int | None, typer.Option(min=1, help="A batch size to be trained with, in parts if need be.")
    ] = None,
    instead: Annotated[
        str | None, typer.Option(help="With --wish: what the largest that fits means by a rule: linear, sqrt, adam ...")
    ] = None,
    study: StudyOption = None,
    again: Annotated[bool, typer.Option("--again", help="Measure sizes anew that the study knows.")] = False,
    present: Present = None,
    settings: SettingOption = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Find the largest batch that really fits, by running few sizes, each in a process of its own."""
    ask = asked(present=present, settings=settings)
    with interruptible(), err.status("trying what fits") as status:

        def watch(probe: MemoryProbe) -> None:
            held = f"held {bytes_text(probe.peak_bytes)}" if probe.peak_bytes is not None else "did not fit"
            status.update(f"trying what fits: {probe.batch_size:,} {held}")

        report = fitting.memory(
            given(words, ask),
            limit=limit,
            headroom=headroom,
            wish=wish,
            instead=instead,
            study=study,
            again=again,
            device=device,
            threads=threads,
            watch=watch,
            **ask,
        )
    if as_json:
        print_json(report)
    else:
        print_memory(out, report)
    if not report.batch_size or (wish is not None and report.wished is None):
        raise typer.Exit(3)
