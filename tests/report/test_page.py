"""The page: its numbers are those of the study, it asks the network for nothing, and no name in it can do harm."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import sqlalchemy as sa
from markupsafe import escape

from rightbatch.errors import InputError
from rightbatch.pipeline.sheets import sheet_of
from rightbatch.report import runs
from rightbatch.report.figures import FIGURES
from rightbatch.report.figures.figure import position_of, variants
from rightbatch.report.markdown import markdown
from rightbatch.report.page import SECTIONS, page, write_figures
from rightbatch.report.sheet import Sheet
from rightbatch.report.spoken import change_text, factor_of_two, factor_of_two_text
from rightbatch.report.svg import for_page
from rightbatch.rules import Verdict
from rightbatch.testing import Truth, synthetic_study

LARGEST_PAGE = 2_500_000


class Checker(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.identifiers: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.addresses += [v or "" for k, v in attributes if k in ("src", "href", "xlink:href", "data", "action")]
        self.identifiers.update(v for k, v in attributes if k == "id" and v)
        if tag not in ("meta", "br", "img", "link", "hr", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    return checker


def test_the_page_is_well_formed_and_asks_for_nothing(text: str) -> None:
    checker = checked(text)
    assert checker.open == []
    assert not set(checker.tags) & {"link", "img", "iframe", "object", "form"}
    assert [a for a in checker.addresses if not a.startswith("#")] == []
    assert "url(http" not in text.replace("&#39;", "")
    assert "@import" not in text
    assert len(text) < LARGEST_PAGE


def test_every_name_in_the_page_is_its_own(text: str) -> None:
    checker = checked(text)
    assert [name for name, count in checker.identifiers.items() if count > 1] == []
    assert set(re.findall(r"url\(#([\w-]+)\)", text)) <= set(checker.identifiers)


def test_a_name_that_is_a_script_harms_nobody(text: str) -> None:
    assert checked(text).tags["script"] == 1  # our own
    assert "alert(1)" not in text[text.rindex("<script>") :]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_every_figure_has_a_place_and_every_drawing_its_words_and_table(sheet: Sheet, text: str) -> None:
    assert [name for section in SECTIONS for name in section.figures] == [figure.name for figure in FIGURES]
    assert text.count("<figure id=") == len(FIGURES)
    drawings = [variant for figure in FIGURES for variant in variants(figure, sheet)]
    assert text.count("<svg ") == len(drawings)
    assert text.count("<summary>the numbers") == len(drawings)


def test_the_page_says_the_answer_and_what_being_wrong_costs(sheet: Sheet, text: str) -> None:
    answer = sheet.answer
    assert f"Train with batch size {answer.batch_size} at learning rate {answer.learning_rate:g}" in text
    assert change_text(answer) in text.replace("&gt;", ">")
    assert factor_of_two_text(answer) in text


def test_the_page_shows_the_verdicts_and_what_would_tell(sheet: Sheet, text: str) -> None:
    assert sheet.verdicts is not None
    shown = text[text.index('<section aria-labelledby="rules">') : text.index('<section aria-labelledby="how">')]
    for one in sheet.verdicts.judgements:
        told = one.verdict in (Verdict.HOLDS, Verdict.FAILS, Verdict.CANNOT_TELL)
        assert (str(escape(one.rule.statement)) in shown) == told, one.rule.name
    assert shown.count(">fails<") == sum(one.verdict is Verdict.FAILS for one in sheet.verdicts.judgements) > 0
    assert "<script>" not in shown
    assert "rightbatch noise" in shown


def test_half_and_twice_the_size_cost_what_the_truth_says(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    truth = Truth(noise=0.0)
    synthetic_study(path, truth=truth, batch_sizes=(8, 16, 32, 64, 128, 256, 512, 1024, 2048), seeds=2).close()
    answer = sheet_of(path, easier=False).answer
    for size, factor, source in factor_of_two(answer):
        assert source == "measured"
        assert factor == pytest.approx(truth.seconds(size) / truth.seconds(answer.batch_size), rel=0.1)


def test_a_size_between_two_that_were_trained_is_said_to_be_guessed(sheet: Sheet) -> None:
    for size, factor, source in factor_of_two(sheet.answer):
        assert size not in {row.batch_size for row in sheet.answer.sizes}
        assert source == "by the sizes beside it"
        assert factor is not None
    assert "(by the sizes beside it)" in factor_of_two_text(sheet.answer)


def test_easier_targets_have_their_own_answers(sheet: Sheet, text: str) -> None:
    assert len(sheet.easier) == 4
    for one in (*sheet.easier, sheet):
        said = f"batch size {one.answer.batch_size} at learning rate {one.answer.learning_rate:.4g}"
        assert re.search(rf"At the target {re.escape(position_of(one))}</strong>: {re.escape(said)}", text)
    shares = [(row.share_of_gain, row.batch_size) for row in sheet.answer.targets if row.share_of_gain < 1]
    assert shares == [(one.share, one.answer.batch_size) for one in sheet.easier]


def test_what_was_not_measured_names_the_command_that_would(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    with synthetic_study(path, batch_sizes=(8, 32, 128), seeds=1) as study:
        study._execute(sa.text("DELETE FROM step_times"))
    text = page(sheet_of(path, objective="examples"))
    for verb in ("profile", "noise", "memory"):
        assert f"<code>rightbatch {verb} synthetic --study {path}</code>" in text


def test_a_large_study_has_a_small_page(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    synthetic_study(path, batch_sizes=(8, 32, 128, 512), seeds=60, rates_around=2).close()
    sheet = sheet_of(path)
    assert len(sheet.evidence.runs) == 1200
    text = page(sheet)
    assert len(text) < LARGEST_PAGE
    assert "every run</summary>" not in text
    assert runs.trials(sheet) == []
    assert sum(row["runs"] for row in runs.cells(sheet)) == 1200


def test_every_run_is_listed_with_why_it_stopped(sheet: Sheet, text: str) -> None:
    assert "every run</summary>" in text
    rows = runs.trials(sheet)
    assert len(rows) == len(sheet.evidence.runs)
    assert Counter(row["why it stopped"] for row in rows) == dict(runs.outcomes(sheet))


def test_figures_are_written_in_three_formats(sheet: Sheet, tmp_path: Path) -> None:
    written = write_figures(replace(sheet, easier=()), tmp_path / "figures")
    names = {path.stem for path in written}
    assert {"sweet-spot", "frontier", "rates-cost", "rates-quality", "stopping-epochs"} <= names
    begin = {".png": b"\x89PNG", ".svg": b"<svg", ".pdf": b"%PDF"}
    for path in written:
        assert path.read_bytes().startswith(begin[path.suffix])
    assert len(written) == 3 * len(names)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        write_figures(sheet, tmp_path / "file")


def test_markdown_says_the_answer_and_leaves_names_alone(sheet: Sheet) -> None:
    said = markdown(sheet)
    answer = sheet.answer
    assert said.startswith("## \\<script\\>alert(1)\\</script\\>: batch size")
    assert f"| **{answer.batch_size}** |" in said
    assert said.count("\n| ") == len(answer.sizes) + 1
    assert f"    {change_text(answer)}\n" in said


def test_a_drawing_gets_the_colours_of_the_page_and_a_label_that_cannot_break_out() -> None:
    drawn = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4" viewBox="0 0 4 4"><g role="graphics-object">'
        '<path aria-label="batch size: 4" role="graphics-symbol" aria-roledescription="point" fill="#0072b2"/>'
        '<rect fill="url(#gradient_0)" stroke="#1b1b1b"/><linearGradient id="gradient_0"/></g></svg>'
    )
    made = for_page(drawn, "own", 'a "label" <b>')
    assert made == (
        '<svg role="img" aria-label="a &#34;label&#34; &lt;b&gt;" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4">'
        '<g><path fill="var(--blue)"><title>batch size: 4</title></path>'
        '<rect fill="url(#own-gradient_0)" stroke="var(--ink)"/><linearGradient id="own-gradient_0"/></g></svg>'
    )
