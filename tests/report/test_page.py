"""The page: its numbers are those of the study, it asks the network for nothing, and no name in it can do harm."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import rightbatch
from rightbatch.answer import Recommendation
from rightbatch.evidence import Evidence
from rightbatch.report import numbers
from rightbatch.report.page import page
from rightbatch.report.plots import FIGURES
from rightbatch.testing import Truth, synthetic_study

Shown = tuple[Recommendation, Evidence]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    path = tmp_path_factory.mktemp("page") / "a.study.db"
    synthetic_study(path, batch_sizes=(8, 32, 128, 512, 2048), seeds=2, name="<script>alert(1)</script>").close()
    return rightbatch.show(path)


def test_the_sweet_spot_has_the_costs_of_the_answer(shown: Shown) -> None:
    answer, evidence = shown
    rows = numbers.sweet_spot_data(answer, evidence)
    assert [row["batch_size"] for row in rows] == [8, 32, 128, 512, 2048]
    for row, size in zip(rows, answer.sizes, strict=True):
        assert size.cost is not None
        assert (row["cost"], row["low"], row["high"]) == (size.cost.estimate, size.cost.low, size.cost.high)
    assert rows[0]["zone"] == "very small"
    assert rows[-1]["zone"] == "huge"


def test_the_product_of_steps_and_step_time_is_the_cost(shown: Shown) -> None:
    answer, evidence = shown
    for row, steps in zip(answer.sizes, numbers.steps_data(answer, evidence), strict=True):
        assert row.cost is not None
        assert row.step_seconds is not None
        assert steps["value"] * row.step_seconds == pytest.approx(row.cost.estimate)


def test_an_epoch_takes_its_steps_times_their_seconds(shown: Shown) -> None:
    answer, evidence = shown
    truth = Truth()
    for row in numbers.epoch_data(answer, evidence):
        steps = evidence.facts.train_examples / row["batch_size"]
        assert row["value"] == pytest.approx(steps * truth.step_seconds(row["batch_size"]), rel=0.05)


def test_every_run_at_the_best_rate_is_a_dot(shown: Shown) -> None:
    answer, evidence = shown
    for data in (numbers.target_data, numbers.quality_data):
        assert len(data(answer, evidence)) == 2 * len(answer.sizes)


def test_rates_say_how_each_did(shown: Shown) -> None:
    answer, evidence = shown
    rows = numbers.rates_data(answer, evidence)
    assert len(rows) == len(evidence.cells)
    assert {row["outcome"] for row in rows} <= set(numbers.OUTCOMES)
    best = [row for row in rows if row["outcome"] == "best"]
    assert [(r["batch_size"], r["learning_rate"]) for r in best] == [
        (r.batch_size, r.learning_rate) for r in answer.sizes
    ]


def test_the_laws_pass_through_the_measured_costs(shown: Shown) -> None:
    answer, _ = shown
    law = {row["batch_size"]: row["cost"] for row in numbers.law_data(answer)}
    for row in answer.sizes:
        assert row.cost is not None
        near = min(law, key=lambda size: abs(math.log(size / row.batch_size)))
        assert law[near] == pytest.approx(row.cost.estimate, rel=0.3)


class Checker(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [v or "" for k, v in attributes if k in ("src", "href", "xlink:href", "data", "action")]
        if tag not in ("meta", "br", "img", "link", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_asks_for_nothing(shown: Shown) -> None:
    text = page(*shown)
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert not checker.tags & {"script", "link", "img", "iframe", "object"}
    assert [a for a in checker.addresses if not a.startswith("#")] == []
    assert "url(http" not in text.replace("&#39;", "")
    assert "@import" not in text
    assert len(text) < 2_500_000


def test_a_name_that_is_a_script_harms_nobody(shown: Shown) -> None:
    text = page(*shown)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_the_page_says_the_answer_and_every_figure_has_its_table(shown: Shown) -> None:
    answer, _ = shown
    text = page(*shown)
    assert f"Train with batch size {answer.batch_size} at learning rate {answer.learning_rate:g}" in text
    assert len(re.findall(r"<figure", text)) == len(FIGURES)
    assert len(re.findall(r"<summary>the numbers</summary>", text)) == len(FIGURES)


def test_what_was_not_measured_names_the_command_that_would(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    with synthetic_study(path, batch_sizes=(8, 32, 128), seeds=1) as study:
        study._execute(__import__("sqlalchemy").text("DELETE FROM step_times"))
    answer, evidence = rightbatch.show(path, objective="examples")
    assert "Not measured: <code>rightbatch find synthetic</code> would." in page(answer, evidence)
