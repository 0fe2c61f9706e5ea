"""The largest batch that fits: which size to try next, from what those tried so far have taken.

Small sizes cost little and tell the slope; one large step then lands just below the limit. What is left after it is
closed by the measured slope where that is certain enough, else by one more size. A size that was not tried is never an
answer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from rightbatch.fit.memory import QUANTILE, MemoryFit, fit_memory

ENOUGH = 0.97
"""The search ends when no size can fit that is larger than the answer by more than this share."""

FIRST = 4
"""Examples of the first try: next to nothing beside what the larger ones cost."""

FAR = 8
"""Where the limit seems farther away than this factor, half the way is tried first..."""

WIDEST_STEP = 16
"""... and never more than this factor at once: small sizes hide in the blocks that memory comes in."""

LEAST_SHARE = 0.75
"""The last gap is closed without trying if an example takes at least this share of what it seems to take."""

CERTAIN = 0.3
"""A slope whose relative error is larger does not close a gap."""

ERRORS = QUANTILE
"""The large step stops so many standard errors short of the limit."""


def next_size(increases: Mapping[int, float], failed: Collection[int], room_bytes: float, most: int) -> int | None:
    """The size to try next; None where the largest of those that ran is the answer, or not even one example fits.

    Parameters
    ----------
    increases: Bytes over those of the process before the model, of each size that fitted.
    failed: Sizes that did not fit.
    room_bytes: What there is for the increase.
    most: The largest size that makes sense: that of the data.
    """
    bound = min(failed, default=most + 1)
    if not increases:
        return min(FIRST, most) if not failed else max(1, bound // 8) if bound > 1 else None
    largest = max(increases)
    if largest >= bound - 1:
        return None
    fit = fit_memory(increases)
    if fit.slope_known and fit.slope_error < CERTAIN and largest >= ENOUGH * min(bound - 1, reach(fit, room_bytes)):
        return None
    wished = _step(fit, room_bytes, most) if bound > most else _retreat(fit, room_bytes, failed)
    return min(max(math.ceil(wished), largest + 1), bound - 1)


def reach(fit: MemoryFit, room_bytes: float) -> float:
    """No larger size than this fits, if an example takes at least three quarters of what it seems to take."""
    largest, increase = fit.anchor
    return largest + (room_bytes - increase) / (LEAST_SHARE * fit.example_bytes.estimate)


def _step(fit: MemoryFit, room_bytes: float, most: int) -> float:
    """Nothing has failed yet: a large step towards the limit, in two where it is far."""
    largest = fit.anchor[0]
    safe = max(largest / ENOUGH, fit.largest(room_bytes, ERRORS) if fit.slope_known else fit.largest(room_bytes))
    if FAR * largest < safe <= most or (safe > most and fit.slope_error > CERTAIN):
        return min(max(safe / 2, 4 * largest), WIDEST_STEP * largest)
    return safe


def _retreat(fit: MemoryFit, room_bytes: float, failed: Collection[int]) -> float:
    """Between the largest that ran and the smallest that did not."""
    largest, bound = fit.anchor[0], min(failed)
    since = sum(size > largest for size in failed)
    # At first by just so much that the search is over if it fits, twice as much after each further failure.
    back = min((1 - ENOUGH) * 2 ** (since - 1), math.log(bound / largest) / 2)
    return min(fit.largest(room_bytes, ERRORS), bound * math.exp(-back))
