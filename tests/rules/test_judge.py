"""`rules` and `judge` as people meet them, and the rule book on a study in a file."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from worlds import Quality, Rates

from rightbatch.cli import main
from rightbatch.errors import InputError
from rightbatch.pipeline.judge import EXAMPLE, judge
from rightbatch.pipeline.show import show
from rightbatch.report.rules import commands
from rightbatch.rules import RULES, Untold, Verdict
from rightbatch.rules.readings import readings
from rightbatch.testing import Truth, simulate, synthetic_study

DOCS = Path(__file__).parents[2] / "docs" / "rules"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study in whose world the best rate grows with the root of the size."""
    path = tmp_path_factory.mktemp("judged") / "made up.study.db"
    synthetic_study(path, truth=Rates(exponent=0.5), batch_sizes=(8, 32, 128, 512, 2048), seeds=5).close()
    return path


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def rightbatch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Call the command line in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["rightbatch", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    return call


def test_the_right_rule_holds_and_the_other_fails(study: Path) -> None:
    found = judge(study)
    assert found.of("square-root").verdict is Verdict.HOLDS
    assert found.of("linear").verdict is Verdict.FAILS
    assert found.of("linear").says == (
        "from batch size 32: right at no size beside it; " + found.of("linear").says.partition("; ")[2]
    )
    assert [one.rule.name for one in found.judgements[:1]] == ["linear"]
    assert found.judgements[-1].verdict is Verdict.DOES_NOT_APPLY


def test_the_answer_warns_of_the_popular_rule_that_fails(study: Path) -> None:
    answer, _ = show(study)
    assert any("the popular rule 'linear' (Goyal et al. 2017) fails here" in text for text in answer.cautions)
    assert not any("square-root" in text for text in answer.cautions)
    assert any("'hyperbola' (McCandlish et al. 2018), which this rests on" in text for text in answer.reasons)


def test_what_would_tell_is_a_command_for_this_study(study: Path) -> None:
    found = judge(study)
    told = dict(commands(found.judgements))
    noise = f"rightbatch noise synthetic --study '{study}'"
    assert {"noise-scale", "goodput"} <= set(told[noise])
    for one in found.judgements:
        if one.verdict in (Verdict.HOLDS, Verdict.FAILS):
            assert one.command == f"rightbatch judge '{study}' --rule {one.rule.name}"


def test_a_known_fact_is_taken_and_an_unknown_one_refused(study: Path) -> None:
    facts = {"compute": 1e18, "tokens_per_example": 1762.0}
    assert judge(study, known=facts).of("deepseek-tokens").effects
    assert not judge(study).of("deepseek-tokens").effects
    with pytest.raises(InputError, match="tokens_per_example"):
        judge(study, known={"flops": 1e18})


def test_of_the_metric_at_equal_cost_no_rule_on_costs_is_judged(study: Path) -> None:
    found = judge(study, objective="metric", at_examples=200_000)
    assert found.of("linear").verdict is Verdict.CANNOT_TELL
    assert "asked for the metric" in found.of("linear").says


def test_one_seed_tells_nothing_of_rates(tmp_path: Path) -> None:
    path = tmp_path / "one.study.db"
    synthetic_study(path, batch_sizes=(8, 32, 128), seeds=1).close()
    found = judge(path).of("linear")
    assert found.verdict is Verdict.CANNOT_TELL
    assert "one seed" in found.says
    assert "--seeds 3" in found.command


def test_larger_is_worse_at_equal_epochs_and_not_at_equal_steps(tmp_path: Path) -> None:
    """Large batches that only lack steps: the same curves say both, each under its own protocol."""
    path = tmp_path / "quality.study.db"
    rates = (0.1, 0.3162, 1.0, 3.162, 10.0)
    sizes = (32, 128, 512, 4096)
    truth = Quality(critical_batch_size=1.0, lowest=lambda size, rate: 0.0)
    planned = round(0.8 * 4096 * truth.steps(4096))
    synthetic_study(path, truth=truth, batch_sizes=sizes, seeds=5, rates=rates, planned_examples=planned).close()
    _, evidence = show(path, target=0.5)
    found = readings(evidence)
    assert not isinstance(found, Untold)
    verdicts = {str(one.protocol): one.verdict for one in found}
    assert verdicts["equal epochs, rate tuned"] is Verdict.HOLDS
    assert verdicts["equal epochs, one rate"] is Verdict.HOLDS
    assert verdicts["equal steps, rate tuned"] is Verdict.FAILS


def test_rules_lists_explains_and_cites(rightbatch: Callable[..., Result]) -> None:
    listed = json.loads(rightbatch("rules", "--json").out)
    assert len(listed) == len(RULES) >= 24
    assert all({"name", "statement", "source"} <= set(rule) for rule in listed)
    assert "square-root" in rightbatch("rules").out
    shape = json.loads(rightbatch("rules", "--family", "shape", "--json").out)
    assert {rule["family"] for rule in shape} == {"shape"}
    explained = rightbatch("rules", "linear").out
    for word in ("Goyal et al. 2017", "as reported by", "within a factor 1.5", "digits", "verdict"):
        assert word in explained
    entries = rightbatch("rules", "--bibtex").out
    assert entries.count("@misc{") == len({s.key for rule in RULES.values() for s in rule.sources})


def test_judge_prints_verdicts_or_the_numbers_of_one(study: Path, rightbatch: Callable[..., Result]) -> None:
    told = rightbatch("judge", study)
    assert told.code == 0
    assert "square-root" in told.out
    assert "would tell: " in told.out
    one = rightbatch("judge", study, "--rule", "linear").out
    assert "fails" in one
    assert "0.667x to 1.5x" in one
    found = json.loads(rightbatch("judge", study, "--json").out)
    verdicts = {rule["name"]: rule["verdict"] for rule in found["rules"]}
    assert verdicts["linear"] == "fails"
    assert len(verdicts) == len(RULES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rules", "lineal"), "There is no rule 'lineal'"),
        (("rules", "--family", "sizes"), "There is no family 'sizes'"),
        (("judge", "none.study.db"), "none.study.db"),
        (("judge", EXAMPLE, "--rule", "lineal"), "There is no rule 'lineal'"),
        (("judge", EXAMPLE, "--known", "compute"), "NAME=NUMBER"),
        (("judge", EXAMPLE, "--known", "flops=1"), "Nothing is known by the name 'flops'"),
    ],
)
def test_wrong_input_is_one_clear_message(
    arguments: tuple[object, ...], message: str, rightbatch: Callable[..., Result]
) -> None:
    result = rightbatch(*arguments)
    assert result.code == 1
    assert message in result.err
    assert "Traceback" not in result.err
    assert not result.out


def test_the_pages_of_the_rules_are_those_of_their_records() -> None:
    rendered = runpy.run_path(str(DOCS.parent / "rules.py"))["pages"]()
    assert {path.name for path in DOCS.iterdir()} == set(rendered)
    for name, text in rendered.items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, f"docs/rules/{name}: run `python docs/rules.py`"


def test_the_recorded_example_tells_of_many_rules() -> None:
    found = judge(EXAMPLE)
    told = [one for one in found.judgements if one.verdict in (Verdict.HOLDS, Verdict.FAILS)]
    assert len(told) >= 6
    assert any(one.verdict is Verdict.FAILS and one.rule.popular for one in told)


def test_simulated_worlds_are_written_as_they_are_drawn(tmp_path: Path) -> None:
    drawn = simulate(Truth(), batch_sizes=(8, 32), seeds=2)
    with synthetic_study(tmp_path / "same.study.db", truth=Truth(), batch_sizes=(8, 32), seeds=2) as kept:
        assert [run.points for run in kept.runs()] == [run.points for run in drawn.runs]
        assert kept.step_times() == drawn.step_times
