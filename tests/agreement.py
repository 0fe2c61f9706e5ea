"""What the parts of one answer say of each other: for tests of answers of every kind."""

from __future__ import annotations

import pytest

from rightbatch.answer import Recommendation
from rightbatch.question import EQUIVALENT_FACTOR
from rightbatch.report import terminal


def check_agreement(answer: Recommendation) -> None:
    """Fail where the choice, the sizes as good and the table of an answer contradict each other."""
    rows = {row.batch_size: row for row in answer.sizes}
    chosen = rows[answer.batch_size]
    assert (chosen.cost, chosen.learning_rate) == (answer.cost, answer.learning_rate)
    assert chosen.seeds > 0
    trained = [row.cost.estimate for row in answer.sizes if row.cost is not None and row.seeds]
    assert min(trained) >= answer.cost.estimate * (1 - 0.05)  # of two that are about as good, one that is known better
    assert answer.batch_size in answer.as_good
    assert set(answer.as_good) <= set(answer.not_excluded)
    said = terminal.as_good_text(answer)
    for size in answer.as_good:
        cost = rows[size].cost
        assert cost is not None
        assert cost.estimate <= EQUIVALENT_FACTOR * answer.cost.estimate * (1 + 1e-9)
        assert rows[size].seeds or f"{size}" in said.partition("(")[2].partition("believed")[0]
    if answer.targets:
        last = answer.targets[-1]
        assert (last.batch_size, last.learning_rate) == (answer.batch_size, answer.learning_rate)
        assert last.cost == pytest.approx(answer.cost.estimate)
