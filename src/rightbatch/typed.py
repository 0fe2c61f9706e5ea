"""Commands on a study's workload, as a person would type them."""

from __future__ import annotations

import shlex

from rightbatch.records import WorkloadFacts

OF_MODELS = frozenset({"noise", "memory", "posterior", "sharpness"})
"""Verbs that look into the model itself, which a loop, a program and a table do not show."""


def possible(verb: str, facts: WorkloadFacts) -> bool:
    """Whether a verb can do anything with such a workload."""
    return verb not in OF_MODELS or facts.optimizer != "unknown"


def command(verb: str, facts: WorkloadFacts, *options: str) -> str:
    """`rightbatch VERB WORKLOAD OPTIONS`, the workload as it was given; what is behind `--` stays at the end.

    A workload that was given as an object of Python goes by its name. Empty for a verb that can do nothing with it.
    """
    if not possible(verb, facts):
        return ""
    words = facts.given or (facts.name,)
    end = words.index("--") if "--" in words else len(words)
    return " ".join(filter(None, ["rightbatch", verb, shlex.join(words[:end]), *options, shlex.join(words[end:])]))
