"""A training that runs out of memory is tried again with smaller micro-batches, at the same batch size.

    @rightbatch.within_memory(batch_size=512)
    def train(attempt):
        model, optimizer = build()
        done = attempt.resume(model=model, optimizer=optimizer) or 0  # where the one before was
        for step, batch in enumerate(batches(512, start=done), start=done + 1):
            optimizer.zero_grad()
            attempt.backward(loss, model, batch)  # in as many passes as it takes
            optimizer.step()
            attempt.save(step, model=model, optimizer=optimizer)

The batch of a step stays what it was, and so do the rate, the schedule and the number of steps.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import logging
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch

from rightbatch.accumulation import accumulate
from rightbatch.errors import InputError
from rightbatch.losses import examples_in
from rightbatch.memory_room import HEADROOM, data_limit, free_bytes, held_bytes, parse_bytes
from rightbatch.parts import split
from rightbatch.raised import is_memory_error

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")

logger = logging.getLogger("rightbatch")


class Attempt:
    """One attempt at a training, with micro-batches of at most `micro_batch_size` examples. A context.

    Within it, running out of memory ends the attempt and not the program, as long as smaller micro-batches are left.
    """

    def __init__(self, batch_size: int, accumulation_steps: int, smallest: int, kept: dict[str, Any]) -> None:
        self.batch_size, self.accumulation_steps = batch_size, accumulation_steps
        self._smallest, self._kept = smallest, kept
        self.ran_out = self._ended = False

    @property
    def micro_batch_size(self) -> int:
        """Examples of one pass, at most."""
        return -(-self.batch_size // self.accumulation_steps)

    def backward(self, loss: Callable[[torch.nn.Module, Any], Any], model: torch.nn.Module, batch: Any) -> torch.Tensor:
        """Leave the gradients of a batch in the model, in as many passes as it takes; its mean loss, a scalar.

        `loss(model, batch)` returns the losses of the examples, shape [examples]; or `(total, weight)`; or their mean.
        Every pass counts by its true weight. A pass that runs out of memory is made again in smaller ones: nothing that
        was trained is lost. Gradients that were there before are lost then: call `zero_grad` before it.
        """
        examples = examples_in(batch) or self.batch_size
        buffers = [buffer.clone() for buffer in model.buffers()]
        while True:
            try:
                parts = -(-examples // self.micro_batch_size)
                micro_batches = split(batch, parts) if parts > 1 else [batch]
                return accumulate(loss, model, micro_batches, model.parameters())
            except Exception as error:
                if not is_memory_error(error) or not self._shrink(error):
                    raise
            model.zero_grad()
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)
            _collect()

    def save(self, progress: Any, **parts: Any) -> None:
        """Keep how far the training is, and the state of what it consists of (`model=model, optimizer=optimizer`).

        Held in main memory, in place of what was kept before; every few hundred steps is enough.
        """
        states = {name: _copied(part.state_dict()) for name, part in parts.items()}
        self._kept.clear()
        self._kept.update(progress=progress, states=states)

    def resume(self, **parts: Any) -> Any:
        """Load what an attempt before has kept; how far that was, or None where nothing was kept."""
        if not self._kept:
            return None
        for name, part in parts.items():
            part.load_state_dict(self._kept["states"][name])
        return self._kept["progress"]

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or not is_memory_error(error) or not self._shrink(error):
            return False
        self.ran_out = True
        return True

    def _shrink(self, error: BaseException) -> bool:
        """Have the same batch made in more passes; False where they cannot be smaller."""
        before, steps = self.micro_batch_size, _more(self.accumulation_steps)
        if -(-self.batch_size // steps) < self._smallest or steps > self.batch_size:
            if not self._ended:
                said = f"rightbatch: micro-batches of {before} of a batch of {self.batch_size} are the smallest."
                error.add_note(said)
            self._ended = True
            return False
        self.accumulation_steps = steps
        logger.warning(
            "Out of memory with micro-batches of %d. Next: %d passes of at most %d for each batch of %d; the rate, "
            "the schedule and the number of steps stay as they are.",
            before, steps, self.micro_batch_size, self.batch_size,
        )  # fmt: skip
        return True


def attempts(
    batch_size: int, *, micro_batch_size: int | None = None, smallest: int = 1, limit: int | str | None = None
) -> Iterator[Attempt]:
    """Attempts at a training, each a context, until one does not run out of memory:

        for attempt in rightbatch.attempts(batch_size=512):
            with attempt:
                train(attempt)

    Parameters
    ----------
    batch_size: Examples of one update of the weights; they stay so many.
    micro_batch_size: Examples of one pass to begin with; None: the whole batch.
    smallest: No pass has fewer examples: rather does the last attempt raise what it met.
    limit: Bytes, or a text such as "8GB", that this process may hold of main memory. None: what is free, less 5 %,
        unless a GPU is there. Beyond it an allocation fails, where the system would else kill the process (Linux).

    Raises
    ------
    InputError: For sizes that cannot be.
    """
    if batch_size < 1 or smallest < 1 or (micro_batch_size or 1) < 1:
        raise InputError(f"Sizes are at least 1, got {batch_size=}, {micro_batch_size=}, {smallest=}.")
    kept: dict[str, Any] = {}
    steps = 1 if micro_batch_size is None else -(-batch_size // micro_batch_size)
    with _limited(limit):
        while True:
            attempt = Attempt(batch_size, steps, smallest, kept)
            yield attempt
            if not attempt.ran_out:
                return
            steps = attempt.accumulation_steps
            _collect()


def within_memory(
    batch_size: int, **how: Any
) -> Callable[[Callable[Concatenate[Attempt, Arguments], Returned]], Callable[Arguments, Returned]]:
    """Have a training function, whose first argument is the `Attempt`, called until it does not run out of memory.

    The other arguments are those of `attempts`.
    """

    def decorate(function: Callable[Concatenate[Attempt, Arguments], Returned]) -> Callable[Arguments, Returned]:
        @functools.wraps(function)
        def called(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> Returned:
            for attempt in attempts(batch_size, **how):
                with attempt:
                    return function(attempt, *arguments, **keywords)
            raise AssertionError("attempts end with one that did not run out of memory, or with what it raised")

        return called

    return decorate


def _more(steps: int) -> int:
    """1, 2, 3, 4, 6, 8, 12, 16: never more than twice, and from two passes on at most half as many again."""
    if steps == 1:
        return 2
    return steps * 3 // 2 if steps & (steps - 1) == 0 else -(-steps * 4 // 3)


@contextlib.contextmanager
def _limited(limit: int | str | None) -> Iterator[None]:
    if limit is None and torch.cuda.is_available():
        yield
        return
    asked = parse_bytes(limit) if isinstance(limit, str) else limit
    room = asked - held_bytes() if asked is not None else int((1 - HEADROOM) * free_bytes())
    with data_limit(max(0, room)):
        yield


def _collect() -> None:
    """Let go of what a failed attempt left behind, so that the next one finds it free."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _copied(state: Any) -> Any:
    """A state of its own, in main memory."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, tuple | list):
        return type(state)(_copied(value) for value in state)
    return copy.deepcopy(state)
