"""The person's code in progress: what it yields as points, what it raises in our terms."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

from rightbatch.errors import InputError, RightbatchError, WorkloadError
from rightbatch.loops.clock import PAUSED
from rightbatch.loops.loop import Loop, LoopTrial
from rightbatch.loops.points import real, whole
from rightbatch.raised import in_our_terms
from rightbatch.records import Point
from rightbatch.streams import RandomStreams
from rightbatch.wording import DIRECTION_UNKNOWN

_END = object()

SLACK = 0.05
"""The share of examples by which a loop may be off its batch schedule: batches at the end of a pass may be smaller."""


class Enough(GeneratorExit):
    """Leaves a loop that has been timed. `except Exception` in the loop does not catch it, and `finally` runs."""


class Code:
    """The person's code in progress: advanced with random streams of its own, what it raises put in our terms."""

    def __init__(self, loop: Loop, given: LoopTrial) -> None:
        self.step = -1
        self._loop, self._given = loop, given
        self._random = RandomStreams(given.seed)
        made = self._call(lambda: loop.train(given))
        if not isinstance(made, Iterator):
            raise WorkloadError(
                f"The loop {loop.called!r} returned {made!r:.80} ({type(made).__name__}), expected an iterator of "
                f"points. Is there a `yield` in it?"
            )
        self._points = made
        self._gradients_on: bool | None = None  # as the loop left it where it yielded

    @property
    def where(self) -> str:
        """The trial, and how far it came."""
        given = self._given
        return (
            f"batch_size={given.batch_size}, learning_rate={given.learning_rate:g}, seed={given.seed}, "
            f"after step {max(0, self.step)}"
        )

    def advance(self) -> Point | None:
        """The next point, None when the loop has returned. Raises `WorkloadError` and `MemoryExhausted`."""
        yielded = self._call(self._resume)
        if yielded is _END:
            return None
        point = completed(yielded, self._loop, self._given)
        if point.step <= self.step:
            raise WorkloadError(
                f"The loop {self._loop.called!r} yielded step {point.step} after step {self.step}. The steps of a run "
                f"increase: count optimizer steps over all epochs."
            )
        self.step = point.step
        return point

    def close(self) -> None:
        """Run the loop's `finally` blocks. What goes wrong there, or yields again, is no longer of interest."""
        close = getattr(self._points, "close", None)  # an iterator that is not a generator may have none
        if close is not None:
            with self._random.active(), contextlib.suppress(Exception):
                close()

    def _resume(self) -> Any:
        self._given.clock.release(PAUSED)
        outside = _gradients_are_on(self._gradients_on)
        try:
            return next(self._points, _END)
        finally:
            self._gradients_on = _gradients_are_on(outside)
            self._given.clock.hold(PAUSED)

    def _call(self, function: Callable[[], Any]) -> Any:
        with self._random.active():
            try:
                return function()
            except (RightbatchError, Enough):
                raise
            except (Exception, GeneratorExit) as error:  # the latter can only be the loop's own here
                raised = in_our_terms(error, f"The loop {self._loop.called!r}", self.where)
                raise type(raised)(f"{raised}{self._known_of(error)}") from error

    def _known_of(self, error: BaseException) -> str:
        """What an error of the wrong type comes from, where that is known."""
        if isinstance(error, TypeError) and "Point.__init__()" in str(error):
            return f" A point has {', '.join(f.name for f in fields(Point))}."
        if isinstance(error, TypeError) and "NoneType" in str(error) and self._given.planned_steps is None:
            return " trial.planned_steps is None without a planned length: --epochs or --planned-examples gives one."
        return ""


def _gradients_are_on(now: bool | None) -> bool | None:
    """Whether PyTorch records gradients, where it is there at all; from now on it does as told (None: as before).

    A generator that yields within `torch.no_grad()` leaves that on for whatever runs next: another training, say.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    before: bool = torch.is_grad_enabled()
    if now is not None and now != before:
        torch.set_grad_enabled(now)
    return before


def completed(yielded: Any, loop: Loop, given: LoopTrial) -> Point:
    """What a loop yielded as a point of plain numbers, with what it left out."""
    if not isinstance(yielded, Point):
        raise WorkloadError(
            f"The loop {loop.called!r} yielded a {type(yielded).__name__} ({yielded!r:.80}), expected a "
            f"rightbatch.Point(step, train_loss=..., valid_metric=...)."
        )
    step = whole(yielded.step, "step of a point")
    if step == 0:  # all that came before was making model and data
        given.clock.reset()
    valid_loss, valid_metric = real(yielded.valid_loss, "valid_loss"), real(yielded.valid_metric, "valid_metric")
    if valid_metric is not None and loop.direction is None:
        raise InputError(f"The loop {loop.called!r} yields a valid_metric, {DIRECTION_UNKNOWN}")
    if valid_metric is None and loop.direction != "max":
        valid_metric = valid_loss
    if valid_metric is None:
        also = " or a valid_loss" if loop.direction != "max" else ": for direction='max' a valid_loss alone will not do"
        raise WorkloadError(f"The loop {loop.called!r} yielded step {step} without a valid_metric. Give one{also}.")
    if valid_loss is None and loop.target_quantity == "valid_loss":
        raise WorkloadError(
            f"The loop {loop.called!r} yielded step {step} without a valid_loss, which the target is on. "
            f"Give one, or set target_quantity='valid_metric'."
        )
    own_seconds = real(yielded.seconds, "seconds") or 0.0
    planned = round(given.batch_schedule.examples_after(step))
    told = whole(yielded.examples, "examples of a point")
    batch_size, learning_rate = given.at(planned)
    _check_grown(loop, given, step, planned, told)
    return Point(
        step=step,
        examples=told or planned,
        seconds=own_seconds if own_seconds > 0 else given.clock.seconds(),
        train_loss=real(yielded.train_loss, "train_loss"),
        valid_loss=valid_loss,
        valid_metric=valid_metric,
        batch_size=whole(yielded.batch_size, "batch_size of a point") or batch_size,
        learning_rate=real(yielded.learning_rate, "learning_rate") or learning_rate,
        test_metric=real(yielded.test_metric, "test_metric"),
    )


def _check_grown(loop: Loop, given: LoopTrial, step: int, planned: int, told: int) -> None:
    """Refuse a loop whose batches do not grow although they are to: nothing else would show it."""
    if given.batch_schedule.at(planned) is given.batch_schedule.phases[0]:
        return
    if not told or abs(told - planned) > SLACK * planned:
        seen = f"{told:,} examples after step {step}" if told else f"step {step} without its examples"
        raise WorkloadError(
            f"The loop {loop.called!r} yielded {seen}, where by its batch schedule ({given.batch_schedule}) it has "
            f"seen {planned:,}. Take the size and the rate of every step from trial.at(examples), and yield "
            f"rightbatch.Point(step, examples=...)."
        )
