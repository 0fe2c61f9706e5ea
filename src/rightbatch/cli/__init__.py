"""The command line: one verb per arrow of the house, with the names of the functions it calls.

Results go to standard output, progress to standard error. Exit codes: 0 done, 1 an error that the person can correct,
2 usage, 3 the evidence does not support an answer (or a claim of a reproduction), 130 interrupted (the same command
goes on).
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, NoReturn

from rightbatch.cli import branching, measuring, memory, posterior, reading, replaying, ruling, sharpness, training  # noqa: F401 - they register their verbs
from rightbatch.cli.app import app, err
from rightbatch.errors import RightbatchError

__all__ = ["app", "main"]


def main() -> NoReturn:
    """The entry point: turns errors raised on purpose into a message and an exit code."""
    own = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]  # behind -- is a person's command
    arguments = [argument for argument in own if argument != "--debug"] + sys.argv[1 + len(own) :]
    debug = "--debug" in own
    if not debug:
        warnings.showwarning = _say
    try:
        app(args=arguments)
    except RightbatchError as error:
        if debug:
            raise
        err.print(f"rightbatch: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _say(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """A warning as a sentence: where in our source it was raised helps nobody."""
    kind = "" if issubclass(category, UserWarning) else f"{category.__name__}: "
    err.print(f"warning: {kind}{message}", style="yellow", markup=False, soft_wrap=True)
