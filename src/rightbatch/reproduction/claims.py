"""Claims with their published values, comparisons with what was measured, and the whole result."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from rightbatch.errors import InputError
from rightbatch.records import Interval, to_json
from rightbatch.reproduction.store import Store

Size = Literal["smoke", "small", "paper"]
SIZES: tuple[Size, ...] = get_args(Size)
"""From a few seconds to all of the paper; each measures at least what the one before it does."""

KnownBy = Literal[
    "read in the paper", "reported by others", "computed with the authors' formulas", "digitised", "derived"
]
Relation = Literal["equal", "at least", "at most"]
Verdict = Literal["holds", "fails", "cannot tell"]

Measured = Mapping[str, Any]
"""What a run measured, as plain JSON values."""


@dataclass(frozen=True)
class Claim:
    """One number of a paper, written down before anything runs.

    The measured value may be off by `tolerance` (a share of the published value) or by `slack` (in its own unit),
    whichever is more; with the relation "at least" or "at most" to one side only. `known_by` says how the published
    value is known. `from_size` is the smallest size that measures it.

    Raises `InputError` for a field that is empty or a number that makes no sense.
    """

    identifier: str
    sentence: str
    published: float
    tolerance: float
    known_by: KnownBy
    slack: float = 0.0
    relation: Relation = "equal"
    from_size: Size = "smoke"

    def __post_init__(self) -> None:
        if not (self.identifier and self.sentence):
            raise InputError(f"A claim needs an identifier and a sentence, got {self.identifier!r}, {self.sentence!r}.")
        numbers = (self.published, self.tolerance, self.slack)
        if not all(math.isfinite(number) for number in numbers) or min(self.tolerance, self.slack) < 0:
            raise InputError(
                f"Claim {self.identifier!r} needs a finite published value and a tolerance and slack of at least 0, "
                f"got {numbers}."
            )
        allowed = (self.known_by, KnownBy), (self.relation, Relation), (self.from_size, Size)
        for value, names in allowed:
            if value not in get_args(names):
                raise InputError(
                    f"Claim {self.identifier!r} says {value!r}; it may say one of: {', '.join(get_args(names))}."
                )

    @property
    def allowed(self) -> float:
        """How far off a measured value may be, in the unit of the published one."""
        return max(self.tolerance * abs(self.published), self.slack)

    def compare(self, measured: float, smallest_effect: float) -> Comparison:
        """Hold a measured value to the claim.

        `smallest_effect` is the smallest relative difference that the measurement can see. Where that is more than
        the claim allows, a difference too small to be seen is "cannot tell" and not "holds". A value that is not
        finite fails.
        """
        seen = smallest_effect * abs(self.published)
        # How far beyond the published value on a side that counts; negative on the side that does not.
        excess = {
            "equal": abs(measured - self.published),
            "at least": self.published - measured,
            "at most": measured - self.published,
        }[self.relation]
        verdict: Verdict = "holds"
        if not (math.isfinite(measured) and excess <= max(self.allowed, seen)):
            verdict = "fails"
        elif seen > self.allowed and excess > -seen:
            verdict = "cannot tell"
        known = math.isfinite(measured)
        ratio = measured / self.published if known and self.published else None
        return Comparison(self.identifier, self.published, measured if known else None, ratio, verdict)

    def judge(self, measured: Interval | None) -> Comparison:
        """Hold a value that has an interval to the claim.

        It holds where the whole interval is within what the claim allows, and fails where all of it is outside. Without
        an interval, or of nothing (None), nothing can be told.
        """
        if measured is None:
            return Comparison(self.identifier, self.published, None, None, "cannot tell")
        least = -math.inf if self.relation == "at most" else self.published - self.allowed
        most = math.inf if self.relation == "at least" else self.published + self.allowed
        verdict: Verdict = "cannot tell"
        if measured.low is not None and measured.high is not None:
            if least <= measured.low and measured.high <= most:
                verdict = "holds"
            elif measured.high < least or most < measured.low:
                verdict = "fails"
        ratio = measured.estimate / self.published if self.published else None
        return Comparison(
            self.identifier, self.published, measured.estimate, ratio, verdict, measured.low, measured.high
        )


@dataclass(frozen=True)
class Comparison:
    """What came of one claim. `measured` is None where it is not finite, `ratio` also where 0 was published.

    `low` and `high` are the ends of its 95 % interval, where it has one.
    """

    claim: str
    published: float
    measured: float | None
    ratio: float | None
    verdict: Verdict
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> Interval | None:
        """What was measured; None where it is not finite."""
        return None if self.measured is None else Interval(self.measured, self.low, self.high)


def held(claims: Iterable[Claim], found: Mapping[str, Interval | None]) -> tuple[Comparison, ...]:
    """Hold what was found to the claims, in their order; a claim of which `found` does not speak is left out."""
    return tuple(claim.judge(found[claim.identifier]) for claim in claims if claim.identifier in found)


@dataclass(frozen=True)
class Reproduction:
    """One paper, or one table or figure of it, reproduced.

    Parameters
    ----------
    name: That of its file, without `.py`.
    title, source: What it is, in a line; paper, table, figure or equation, with where to find it.
    claims: Declared before anything runs.
    budget_seconds: The most seconds that each size may take on one core.
    smallest_effect: The smallest relative difference that it can see; `smallest_effect_reason` says why.
    run: `run(size, store)` gives what it measures as plain JSON values; it does its work in `store.unit`.
    compare: `compare(measured)` gives one `Comparison` for every claim that was measured.
    figure: `figure(measured)` gives an Altair chart for the page, described by `caption`.
    notes: `notes(measured)` gives sentences: what is worth knowing and is no claim.
    seed: None where nothing is drawn.

    Raises `InputError` for a field that is empty or a size without a budget.
    """

    name: str
    title: str
    source: str
    claims: tuple[Claim, ...]
    budget_seconds: Mapping[Size, float]
    smallest_effect: float
    smallest_effect_reason: str
    run: Callable[[Size, Store], Measured]
    compare: Callable[[Measured], tuple[Comparison, ...]]
    figure: Callable[[Measured], Any] | None = None
    caption: str = ""
    notes: Callable[[Measured], tuple[str, ...]] | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("name", "title", "source", "claims", "smallest_effect_reason"):
            if not getattr(self, name):
                raise InputError(f"The reproduction {self.name!r} has no {name}. It is to be said before it runs.")
        if not (math.isfinite(self.smallest_effect) and self.smallest_effect >= 0):
            raise InputError(
                f"The smallest effect of {self.name!r} is a relative difference of at least 0, "
                f"got {self.smallest_effect}."
            )
        if set(self.budget_seconds) != set(SIZES) or min(self.budget_seconds.values()) <= 0:
            raise InputError(
                f"{self.name!r} needs a budget in seconds for each of {', '.join(SIZES)}, got {self.budget_seconds}."
            )
        identifiers = [claim.identifier for claim in self.claims]
        twice = sorted({i for i in identifiers if identifiers.count(i) > 1})
        if twice:
            raise InputError(f"{self.name!r} has several claims {twice[0]!r}. Give each an identifier of its own.")

    def claims_of(self, size: Size) -> tuple[Claim, ...]:
        """The claims that a size measures."""
        return tuple(claim for claim in self.claims if SIZES.index(claim.from_size) <= SIZES.index(size))


@dataclass(frozen=True)
class Result:
    """The record of one reproduction: what was claimed, what was measured, the verdicts, and how it was made.

    `seconds` are those of all units, also of those done before an interruption. `code` is the hash of its file.
    """

    name: str
    title: str
    source: str
    size: Size
    claims: tuple[Claim, ...]
    comparisons: tuple[Comparison, ...]
    smallest_effect: float
    smallest_effect_reason: str
    notes: tuple[str, ...]
    measured: Measured
    seed: int | None
    command: str
    code: str
    date: str
    seconds: float
    budget_seconds: float
    machine: Mapping[str, str | int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether every claim holds; a claim that fails or cannot be told is an honest result, not an error."""
        return all(comparison.verdict == "holds" for comparison in self.comparisons)

    @property
    def summary(self) -> str:
        """The verdicts in a sentence: "23 claims: 22 hold, 1 fails"."""
        words = {"holds": ("holds", "hold"), "fails": ("fails", "fail"), "cannot tell": ("cannot be told",) * 2}
        counts = {verdict: sum(done.verdict == verdict for done in self.comparisons) for verdict in words}
        said = [f"{count} {words[verdict][count != 1]}" for verdict, count in counts.items() if count]
        total = len(self.comparisons)
        return f"{total} claim{'s' * (total != 1)}: {', '.join(said)}"

    def to_json(self) -> str:
        """The record as text; `from_json` gives an equal one back."""
        return json.dumps(to_json(self), indent=1, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Result:
        """Read a record back. Raises `InputError` if the text is not one."""
        try:
            fields = json.loads(text)
            fields["claims"] = tuple(Claim(**claim) for claim in fields["claims"])
            fields["comparisons"] = tuple(Comparison(**comparison) for comparison in fields["comparisons"])
            fields["notes"] = tuple(fields["notes"])
            return Result(**fields)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"This is not the result of a reproduction ({type(error).__name__}: {error}). Make it anew."
            ) from error


# ------------------------------------------------------------------------------------------------- units of work
