"""The record of a rule: what it says, who said it, what it predicts, and how a study judges it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rightbatch.records import Interval, WorkloadFacts
from rightbatch.rules.case import Case
from rightbatch.rules.effects import Finding, Untold

Family = Literal["size", "learning rate", "shape", "quality", "schedule", "optimizer"]
FAMILIES: tuple[Family, ...] = ("size", "learning rate", "shape", "quality", "schedule", "optimizer")


@dataclass(frozen=True)
class Source:
    """Where a rule was published: `where` is its venue or arXiv number, `at` the equation, section or table.

    `reported`: the source itself was not read for this book; who reports it. What it says is then worded so.
    """

    authors: str
    year: int
    title: str
    where: str
    at: str = ""
    reported: str = ""

    @property
    def cited(self) -> str:
        """As it stands in a sentence: Goyal et al. 2017, arXiv 1706.02677, section 2.1."""
        text = ", ".join(part for part in (f"{self.short} {self.year}", self.where, self.at) if part)
        return f"{text} (as reported by {self.reported})" if self.reported else text

    @property
    def short(self) -> str:
        """The authors as a citation names them."""
        names = [name.split(", ")[0] for name in self.authors.split(" and ")]
        if len(names) > 2:
            return f"{names[0]} et al."
        return " and ".join(names)

    @property
    def key(self) -> str:
        """The name of its BibTeX entry: first author, year, first word of the title."""
        first = re.sub(r"\W", "", self.authors.split(", ")[0]).lower()
        word = next(w for w in re.findall(r"[a-z]+", self.title.lower()) if w not in ("a", "an", "the", "on", "don"))
        return f"{first}{self.year}{word}"

    def bibtex(self) -> str:
        """A BibTeX entry."""
        if self.where.startswith("arXiv "):
            fields = {"eprint": self.where.removeprefix("arXiv "), "archivePrefix": "arXiv"}
        else:
            fields = {"howpublished": self.where}
        fields = {"author": self.authors, "title": "{" + self.title + "}", "year": str(self.year)} | fields
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@misc{{{self.key},\n{lines}\n}}"


@dataclass(frozen=True)
class Prediction:
    """A number that a rule gives for a workload: of what, and how sure, in its own unit."""

    quantity: str
    value: Interval


@dataclass(frozen=True)
class Rule:
    """A published rule.

    name: What the command line calls it.
    statement: What it says, in one sentence.
    scope: Where its source claims it.
    tolerance: What counts as right, declared before any data.
    predict: What it gives for a workload from what is known of it; nothing where too little is known.
    judge: What a study shows of it, or why it shows nothing.
    applies: Whether it speaks of such a workload at all.
    popular: Whether people follow it without having measured: an answer warns where it fails.
    """

    name: str
    family: Family
    statement: str
    sources: tuple[Source, ...]
    scope: str
    tolerance: str
    predict: Callable[[Case], tuple[Prediction, ...]]
    judge: Callable[[Case], Finding | Untold]
    applies: Callable[[WorkloadFacts], bool] = lambda facts: True
    popular: bool = False

    @property
    def source(self) -> str:
        """All its sources as one text."""
        return "; ".join(source.cited for source in self.sources)


def no_prediction(case: Case) -> tuple[Prediction, ...]:
    """Of a rule that gives no number."""
    return ()
