"""How checks are made: each alone, what raises is a finding, what several need is made once. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from rightbatch.errors import RightbatchError
from rightbatch.findings import Fault, Finding, NotLookedAt

Result = TypeVar("Result")
Context = TypeVar("Context")
Checks = Mapping[str, Callable[[Context], Iterator[Finding]]]
"""A table of checks: what is looked at, and the function that looks."""


class Cannot(Exception):
    """A check cannot be made; the message says why."""


class Raised(Exception):
    """The person's code raised an error in the stage that `what` names."""

    def __init__(self, what: str, error: Exception) -> None:
        super().__init__(f"{what} raised an error")
        self.what, self.error = what, error


class Stage(Generic[Result]):
    """A property of a context that is made at the first use and kept.

    What raises meanwhile is `Raised` once, so that it is one finding; who asks again is told `Cannot`.
    """

    def __init__(self, what: str, make: Callable[[Any], Result]) -> None:
        self._what, self._make = what, make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, context: Any, owner: type | None = None) -> Result:
        failed: dict[str, str] = vars(context).setdefault("_failed", {})
        if self._name in failed:
            raise Cannot(failed[self._name])
        try:
            made = self._make(context)
        except (Cannot, Raised) as error:
            failed[self._name] = str(error)
            raise
        except Exception as error:
            raised = Raised(self._what, error)
            failed[self._name] = str(raised)
            raise raised from error
        vars(context)[self._name] = made  # found there from now on, before this descriptor
        return made


def stage(what: str) -> Callable[[Callable[[Any], Result]], Stage[Result]]:
    """Make a method a `Stage`; `what` names it in messages."""
    return lambda make: Stage(what, make)


def look(context: Context, checks: Checks[Context]) -> tuple[list[Finding], list[str], list[NotLookedAt]]:
    """Make all checks: what they found, which of them came to their end, and which did not and why."""
    findings: list[Finding] = []
    looked_at: list[str] = []
    not_looked_at: list[NotLookedAt] = []
    for name, check in checks.items():
        try:
            for finding in check(context):  # one at a time: what was found before an error stays found
                findings.append(finding)
        except Cannot as reason:
            not_looked_at.append(NotLookedAt(name, str(reason)))
        except Exception as error:
            raised = error if isinstance(error, Raised) else Raised(f"looking at {name}", error)
            findings.append(_of_error(raised))
            not_looked_at.append(NotLookedAt(name, str(raised)))
        else:
            looked_at.append(name)
    return findings, looked_at, not_looked_at


def _of_error(raised: Raised) -> Finding:
    error = raised.error
    said = str(error) if isinstance(error, RightbatchError) else f"{type(error).__name__}: {error}"
    return Finding(
        Fault.RAISED, f"{raised.what} raised {said}", "Correct this first, then check again: it hides what comes after."
    )


def seconds_text(seconds: float) -> str:
    """A time for a message: "12.3 ms", "4.56 s"."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:,.0f} s"


def named(names: list[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
