"""From what a person gives (a workload, a loop, a command, a name) to a runner, and to the crew that makes its runs."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from rightbatch.bundled import WORKLOADS
from rightbatch.commands import Command, CommandRunner
from rightbatch.errors import InputError, MissingExtra, WorkloadError
from rightbatch.loading import functions_of, load_function
from rightbatch.loops import Loop, LoopRunner
from rightbatch.pipeline.asking import Ask
from rightbatch.records import Setting
from rightbatch.runner import Runner
from rightbatch.tables import TableRunner, is_table
from rightbatch.workers import Alone, Crew, NotPicklable, Workers

KeepModels = Literal["none", "best", "last"]
StartFrom = str | os.PathLike[str]
"""A file of weights; as an `checkpoint.Checkpoint` one that was read before and must not have changed since."""


def as_runner(
    workload: Any,
    *,
    ask: Ask | None = None,
    device: str | None = None,
    threads: int | None = None,
    keep_models: KeepModels = "none",
    start_from: StartFrom | None = None,
    micro_batch_size: int | None = None,
) -> Runner:
    """A runner from what a person gives.

    `workload` is a `Workload`, a `Loop` or a generator function, a `Command`, a runner, or the name of a bundled
    workload, of a function in a file (my.py:make_workload, my.py:train) or of a table of curves. What a loop does not
    say itself (its direction, how many examples it has) is taken from `ask`. `start_from`: a file with the weights that
    every run of a `Workload` starts from. `micro_batch_size`: larger batches of one are accumulated in parts.

    Raises
    ------
    InputError: For a name that is none of these, or an option that does not go with it.
    MissingExtra: When it needs torch and torch is not installed.
    """
    if isinstance(workload, str) and is_table(workload):
        _no_start_from(start_from, "its runs are recorded: leave it out")
        return TableRunner(workload)
    if hasattr(workload, "start") and hasattr(workload, "facts") and not callable(workload.facts):
        _no_start_from(start_from, "give a runner that starts from it itself")
        return workload  # type: ignore[no-any-return]
    _use_threads(threads)
    made = from_name(workload) if isinstance(workload, str) else workload
    runner = _of_any_framework(made, ask or Ask(), threads)
    if runner is not None:
        if device is not None:
            raise InputError(f"device={device!r} is for a Workload: a loop or a command chooses its device itself.")
        if keep_models != "none":
            raise InputError("Only the models of a rightbatch.Workload can be kept: save them in your own loop.")
        itself = (
            "let the program load it, and put its path on the command line"
            if isinstance(runner, CommandRunner)
            else "load it in your own loop, before the first step"
        )
        _no_start_from(start_from, itself)
        if micro_batch_size is not None:
            raise InputError("Only batches of a rightbatch.Workload can be accumulated: do it in your own loop.")
        return runner
    for option in ("direction", "train_examples", "length_bound"):
        if ask is not None and getattr(ask, option) is not None:
            raise InputError(f"{option} is for loops and commands: a Workload, and a table, say it themselves.")
    settings = ask.settings if ask is not None else None
    return _of_workload(made, workload, device, keep_models, start_from, micro_batch_size, settings)


def _no_start_from(start_from: StartFrom | None, instead: str) -> None:
    if start_from is not None:
        path = os.fspath(start_from)
        raise InputError(f"Only a rightbatch.Workload can be started from a checkpoint ({path}): {instead}.")


def recorded_rates(runner: Runner) -> tuple[float, ...] | None:
    """The rates of a recorded table, which has no others to offer; None where any rate can be run."""
    return runner.rates if isinstance(runner, TableRunner) else None


@contextmanager
def crew_of(workload: Any, runner: Runner, workers: int, **how: Any) -> Iterator[Crew]:
    """Who makes the runs: worker processes where several are asked for, else (and where they cannot) this process.

    `how` is what `as_runner` was given: a workload that has a name is made anew in each worker, any other is pickled.
    """
    if how.get("start_from") is not None:  # with what was in the file when this process read it
        how["start_from"] = getattr(runner, "start_from", how["start_from"])
    if workers <= 1:
        yield Alone(runner)
        return
    try:
        crew = Workers(maker_of(workload, runner, **how), workers, how.get("threads"))
    except NotPicklable as error:
        warnings.warn(f"{error} Runs are made one at a time, in this process.", stacklevel=3)
        yield Alone(runner)
        return
    with crew:
        yield crew


def maker_of(workload: Any, runner: Runner, **how: Any) -> Callable[[], Runner]:
    """What makes the runner in another process: anew where its workload has a name."""
    return partial(as_runner, workload, **how) if isinstance(workload, str) else partial(_same, runner)


def _same(runner: Runner) -> Runner:
    return runner


def _of_any_framework(made: Any, ask: Ask, threads: int | None) -> Runner | None:
    """The runner of a loop or a command; None for what is neither."""
    if inspect.isgeneratorfunction(made):
        made = Loop(
            made,
            direction=ask.direction,
            train_examples=ask.train_examples or 0,
            present=ask.present,
            length_bound=bool(ask.length_bound),
        )
    if not isinstance(made, Loop | Command):
        return None
    # Already while its steps are timed: it may need to know how long a run is.
    made = replace(made, planned_examples=ask.length_of_run(made.train_examples) or made.planned_examples)
    if isinstance(made, Loop):
        return LoopRunner(made, ask.settings)
    return CommandRunner(replace(made, threads=threads) if threads else made, ask.settings)


def _of_workload(
    made: Any,
    given: Any,
    device: str | None,
    keep_models: KeepModels,
    start_from: StartFrom | None,
    micro_batch_size: int | None,
    settings: Mapping[str, Setting] | None,
) -> Runner:
    with _needing_torch():
        from rightbatch.checkpoint import Checkpoint
        from rightbatch.engine import WorkloadRunner, use_device
        from rightbatch.workload import Workload
    if isinstance(made, Workload):
        checkpoint = None if start_from is None else Checkpoint.of(start_from)
        placed = use_device(made, device) if device else made
        return WorkloadRunner(placed, keep_models, checkpoint, micro_batch_size, settings)
    if callable(made):
        raise WorkloadError(
            f"{given!r} is a function that yields nothing. A training loop is a generator: it says `yield "
            f"rightbatch.Point(step, ...)`; a function that makes a Workload is called: find(make())."
        )
    raise WorkloadError(
        f"{given!r} gave a {type(made).__name__}, expected a rightbatch.Workload, a generator function, a Loop or a "
        f"Command."
    )


def from_name(name: str) -> Any:
    """What a name stands for: what is bundled, or what a function in a file makes or is."""
    if name in WORKLOADS:
        with _needing_torch():
            return WORKLOADS[name].make()
    path, colon, function = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise InputError(
            f"There is no workload {name!r}. {_meant(name)}Give a bundled one ({', '.join(WORKLOADS)}), a file and a "
            f"function in it (my.py:make_workload, my.py:train), or a table of curves (curves.csv.gz)."
        )
    with _needing_torch():
        found = load_function(path, function)
    if inspect.isgeneratorfunction(found):
        return found
    try:
        return found()
    except Exception as error:
        if isinstance(error, InputError):
            raise
        raise WorkloadError(
            f"{name} raised {type(error).__name__}: {error}. Run with --debug for the whole traceback."
        ) from error


def _meant(name: str) -> str:
    """What somebody meant who named a file without a function, or a module; nothing for anything else."""
    if name.endswith(".py"):
        found = functions_of(name) if os.path.isfile(name) else ()
        one = found[0] if len(found) == 1 else "FUNCTION"
        listed = f", which is one of {', '.join(found)}" if len(found) > 1 else ""
        return f"Name the function in the file too: {name}:{one}{listed}. "
    module, colon, function = name.rpartition(":")
    file = module.replace(".", os.sep) + ".py"
    return f"Name the file, not the module: {file}:{function}. " if colon and os.path.isfile(file) else ""


def as_given(workload: Any) -> tuple[str, ...]:
    """How the command line names what a person gives; nothing for what it cannot."""
    if isinstance(workload, str):
        return (workload,)
    if not isinstance(workload, Command) or workload.name is not None or workload.target is not None:
        return ()
    options = {"metrics": workload.metrics, "pattern": workload.pattern, "timeout": workload.timeout_seconds}
    said = [word for name, value in options.items() if value is not None for word in (f"--{name}", f"{value}")]
    return (*said, "--", *workload.argv)


def _use_threads(threads: int | None) -> None:
    if threads is None:
        return
    try:
        import torch
    except ImportError:  # a loop or a command may do without: its threads are its own business
        return
    torch.set_num_threads(threads)


@contextmanager
def _needing_torch() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != "torch":
            raise
        raise MissingExtra("PyTorch, which training needs,", "torch") from error
