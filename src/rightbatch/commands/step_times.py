"""Seconds per step of a program, from the points of a run as they come.

A program cannot be timed from inside: all that is known is when its evaluations came, or the seconds that it prints.
"""

from __future__ import annotations

from rightbatch.commands.run import CommandRun
from rightbatch.errors import WorkloadError
from rightbatch.records import Point, Stop, StopReason

REPEAT_SECONDS = 0.1
"""A repeat is as many intervals between evaluations as fill this time, so that no hiccup decides it."""

SILENCE_SECONDS, TOGETHER = 0.5, 3
"""So many evaluations at one instant, after such a silence, did not happen then: the program keeps its lines back."""

LATE_SECONDS = 1.0
"""Where the first evaluation came later than this, and the rest of the run is not even a repeat, so it did."""

KEPT_BACK = (
    "its evaluations came several at once, when they were over: the program keeps its lines back, and their times say "
    "nothing. Write every line at once (in Python: print(..., flush=True); other programs: stdbuf -oL PROGRAM), or "
    "print `seconds` of training in each."
)
TOO_FEW = "the program ended before that."


class Repeats:
    """Takes the points of one run until it has so many repeats, or one at least after so much time.

    The first interval, in which a program warms up, is left out if others follow and it is not as long as that time.

    Attributes
    ----------
    seconds: Those of a step in each repeat.
    short: Whether there is none of full length: `seconds` are then of all that there was.
    kept_back: Whether the points cannot have happened when they came.
    """

    def __init__(self, wanted: int, limit_seconds: float) -> None:
        self.seconds: list[float] = []
        self.short = self.kept_back = False
        self._wanted, self._limit_seconds = wanted, limit_seconds
        self._by_clock = True
        self._first: Point | None = None
        self._mark: Point | None = None
        self._last: Point | None = None
        self._together = 1  # points at the present instant
        self._silence = 0.0  # before them

    @property
    def enough(self) -> bool:
        """Whether no further point is needed."""
        if self.kept_back or len(self.seconds) >= self._wanted:
            return True
        return bool(self.seconds) and self._since_first() >= self._limit_seconds

    def add(self, point: Point, *, by_clock: bool) -> None:
        """Take the next point. `by_clock`: its seconds are when it came, not those that the program printed."""
        self._by_clock = by_clock
        if self._last is not None:
            self._watch_for_bursts(point.seconds - self._last.seconds)
        self._first, self._last = self._first or point, point
        if self._mark is None and point.step > 0 and point.seconds >= REPEAT_SECONDS:
            if self._first.step == 0 and point.seconds >= self._limit_seconds:
                self.seconds.append(_step_seconds(self._first, point))
            self._mark = point
        elif self._mark is not None and point.seconds - self._mark.seconds >= REPEAT_SECONDS:
            self.seconds.append(_step_seconds(self._mark, point))
            self._mark = point

    def end(self) -> None:
        """No point will follow: without a repeat, all that there was is one, if it took any time at all."""
        first, last = self._first, self._last
        if self.seconds or first is None or last is None or last.step == first.step:
            return
        took = last.seconds - first.seconds
        if self._by_clock and (took == 0 or (took < REPEAT_SECONDS and first.seconds > LATE_SECONDS)):
            self.kept_back = True
        elif took > 0:
            self.seconds.append(_step_seconds(first, last))
            self.short = took < REPEAT_SECONDS

    def _since_first(self) -> float:
        return self._last.seconds - self._first.seconds if self._first and self._last else 0.0

    def _watch_for_bursts(self, passed: float) -> None:
        if passed > 0:
            self._together, self._silence = 1, passed
        else:
            self._together += 1
        if self._by_clock and self._together >= TOGETHER and self._silence >= SILENCE_SECONDS:
            self.kept_back = True


def time_steps(run: CommandRun, wanted: int, limit_seconds: float) -> tuple[Repeats, str | None]:
    """The repeats of a run, which then is closed, and why there are no more; None where memory or nothing failed."""
    repeats, failure = Repeats(wanted, limit_seconds), None
    try:
        while not repeats.enough:
            outcome = run.advance()
            if isinstance(outcome, Stop):
                failure = None if outcome.reason is StopReason.OUT_OF_MEMORY else outcome.message or TOO_FEW
                break
            repeats.add(outcome, by_clock=not run.prints_seconds)
    except WorkloadError as error:
        failure = str(error)
    finally:
        run.close()
    if not repeats.enough:
        repeats.end()
    if repeats.kept_back:
        repeats.seconds.clear()
        failure = KEPT_BACK
    return repeats, failure


def _step_seconds(start: Point, end: Point) -> float:
    return (end.seconds - start.seconds) / (end.step - start.step)
