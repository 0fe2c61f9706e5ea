"""Everything that rightbatch raises on purpose.

    RightbatchError
    + InputError             what was given cannot be used
    |  + WorkloadError       the workload itself: shapes, NaN, a callable that raises
    |  + DataError           a data set is missing, damaged or could not be downloaded
    |  + StudyError          a study cannot be opened, written or continued
    |  |  + ChangedCodeError the code of the workload has changed since its study began
    |  + StateError          the saved state of a run cannot be read: the run is then made anew
    |  + MissingExtra        an optional dependency is not installed
    + InsufficientEvidence   all went well, but what was measured does not support an answer

A message says what happened, the value seen, and what to do about it. `exit_code` is what the command line
returns: 1 for what the person can correct, 3 for an honest "cannot tell" (2 is usage, 0 is done).
"""

from __future__ import annotations


class RightbatchError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class InputError(RightbatchError):
    """What was given cannot be used as it is."""


class WorkloadError(InputError):
    """The workload breaks its contract, or raised while it ran."""


class DataError(InputError):
    """A data set is missing, damaged or could not be downloaded."""


class StudyError(InputError):
    """A study file cannot be opened, written or continued."""


class ChangedCodeError(StudyError):
    """The code of the workload has changed since its study began."""


class StateError(InputError):
    """The saved state of a run cannot be read."""


class MissingExtra(InputError):
    """An optional dependency is not installed."""

    def __init__(self, need: str, extra: str) -> None:
        super().__init__(f"{need} is not installed. Install it with: pip install 'rightbatch[{extra}]'")


class InsufficientEvidence(RightbatchError):
    """The evidence does not support an answer; the message says why and what would."""

    exit_code = 3
