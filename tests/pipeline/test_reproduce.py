"""Reproductions: one contract for every file of the folder, and what the frame does with a small one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.pipeline.reproduce import recorded, reproduce, reproductions, retell
from rightbatch.records import Interval
from rightbatch.report.reproduction_page import number
from rightbatch.reproduction import SIZES, Claim, Reproduction, Result, Store

FOLDER = Path(__file__).parents[2] / "reproductions"
ALL = reproductions(FOLDER)

KILLED = {"mccandlish", "quadratic", "smith-le"}
"""One that keeps a study too, and two that do not: all keep their units by the same store."""

KILLED_AFTER_ONE_UNIT = """
import os, signal, sys
from rightbatch.pipeline.reproduce import reproduce, reproductions

name, folder, out = sys.argv[1:]
assert reproductions(folder)
assert "torch" not in sys.modules, "only what is run may import torch"
reproduce(name, size="smoke", folder=folder, out=out, watch=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


def kill_after_one_unit(name: str, folder: Path, out: Path) -> None:
    """Run a smoke size in another process, which is killed as soon as its first unit is kept."""
    done = subprocess.run([sys.executable, "-c", KILLED_AFTER_ONE_UNIT, name, str(folder), str(out)], timeout=60)
    assert done.returncode == -signal.SIGKILL


# ------------------------------------------------------------------------------------- every file of the folder


@pytest.fixture(params=ALL, ids=[found.name for found in ALL], scope="module")
def reproduction(request: pytest.FixtureRequest) -> Reproduction:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def smoke(reproduction: Reproduction, out: Path) -> Result:
    return reproduce(reproduction.name, size="smoke", folder=FOLDER, out=out)


def test_every_file_is_one_reproduction() -> None:
    assert [found.name for found in ALL] == sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
    assert len(ALL) >= 1


def test_every_field_is_filled(reproduction: Reproduction) -> None:
    assert reproduction.claims_of("smoke")
    assert reproduction.claims_of("paper") == reproduction.claims
    budgets = [reproduction.budget_seconds[size] for size in SIZES]
    assert budgets == sorted(budgets)
    assert bool(reproduction.caption) == (reproduction.figure is not None)


BUSY = 4
"""The machine of a test has other work too."""


def test_the_smoke_size_compares_every_claim_within_its_budget(reproduction: Reproduction, smoke: Result) -> None:
    assert smoke.seconds < BUSY * reproduction.budget_seconds["smoke"]
    assert [done.claim for done in smoke.comparisons] == [c.identifier for c in reproduction.claims_of("smoke")]
    assert smoke.command == f"rightbatch reproduce {reproduction.name} --size smoke"


def test_killed_in_the_middle_it_goes_on_to_the_same_result(
    reproduction: Reproduction, smoke: Result, tmp_path: Path
) -> None:
    if reproduction.name not in KILLED:
        pytest.skip("its units are kept by the same store as those of the ones that are killed")
    kill_after_one_unit(reproduction.name, FOLDER, tmp_path)
    units: list[bool] = []
    again = reproduce(
        reproduction.name, size="smoke", folder=FOLDER, out=tmp_path, watch=lambda _, __, kept: units.append(kept)
    )
    assert units == [True] + [False] * (len(units) - 1)
    assert len(units) >= 2
    assert (again.measured, again.comparisons) == (smoke.measured, smoke.comparisons)


def test_the_record_round_trips(reproduction: Reproduction, smoke: Result, out: Path) -> None:
    assert Result.from_json((out / f"{reproduction.name}-smoke.json").read_text()) == smoke
    assert Result.from_json(smoke.to_json()) == smoke


def test_the_page_says_every_claim_and_asks_for_nothing(reproduction: Reproduction, smoke: Result, out: Path) -> None:
    text = (out / f"{reproduction.name}-smoke.html").read_text()
    without_namespaces = text.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "")
    for address in ("http:", "https:", "url(//", "src=", "<script", "<link", "@import"):
        assert address not in without_namespaces
    for claim in smoke.claims:
        assert f'id="{claim.identifier}"' in text
    assert smoke.summary in text


def test_what_is_recorded_is_told_by_todays_claims(reproduction: Reproduction, tmp_path: Path) -> None:
    kept = [result for size in SIZES if (result := recorded(reproduction.name, size, FOLDER)) is not None]
    assert kept, "no result is recorded; run it and commit what it writes"
    for result in kept:
        assert result.seconds < result.budget_seconds
        today = retell(result.name, size=result.size, folder=FOLDER, out=tmp_path)
        assert today.claims == result.claims
        for now, then in zip(today.comparisons, result.comparisons, strict=True):
            assert (now.claim, now.verdict) == (then.claim, then.verdict)
            for name in ("measured", "low", "high"):
                value, before = getattr(now, name), getattr(then, name)
                assert (value is None) == (before is None)
                if value is not None:  # the last digits are those of a machine
                    assert value == pytest.approx(before, rel=1e-6, abs=1e-9)
        assert (FOLDER / "results" / f"{result.name}-{result.size}.html").is_file()


def test_nothing_is_told_of_what_was_not_recorded(tmp_path: Path) -> None:
    (tmp_path / "quadratic.py").write_text((FOLDER / "quadratic.py").read_text())
    with pytest.raises(InputError, match="Nothing is recorded of 'quadratic' in the size 'small'"):
        retell("quadratic", folder=tmp_path)


@pytest.mark.parametrize(
    ("value", "said"), [(1.0000001, "1"), (0.2246634, "0.224663"), (1.5, "1.5"), (44000.0, "44,000"), (None, "-")]
)
def test_numbers_of_the_page_have_no_zeros_nor_a_dot_at_their_end(value: float | None, said: str) -> None:
    assert number(value) == said


# --------------------------------------------------------------------------------------------------- the verdict


@pytest.mark.parametrize(
    ("relation", "measured", "smallest_effect", "verdict"),
    [
        ("equal", 100.0, 0.0, "holds"),
        ("equal", 105.0, 0.0, "holds"),
        ("equal", 94.9, 0.0, "fails"),
        ("equal", 105.1, 0.01, "fails"),
        ("equal", 100.0, 0.2, "cannot tell"),
        ("equal", 119.0, 0.2, "cannot tell"),
        ("equal", 121.0, 0.2, "fails"),
        ("equal", float("nan"), 0.0, "fails"),
        ("equal", float("inf"), 0.2, "fails"),
        ("at least", 95.0, 0.0, "holds"),
        ("at least", 94.0, 0.0, "fails"),
        ("at least", 1000.0, 0.0, "holds"),
        ("at least", 1000.0, 0.2, "holds"),
        ("at least", 90.0, 0.2, "cannot tell"),
        ("at least", 110.0, 0.2, "cannot tell"),
        ("at most", 105.0, 0.0, "holds"),
        ("at most", 106.0, 0.0, "fails"),
        ("at most", 1.0, 0.2, "holds"),
    ],
)
def test_a_claim_holds_fails_or_cannot_be_told(
    relation: Any, measured: float, smallest_effect: float, verdict: str
) -> None:
    claim = Claim("a", "A sentence", 100.0, 0.05, "digitised", relation=relation)
    assert claim.compare(measured, smallest_effect).verdict == verdict


@given(
    published=st.floats(-1e6, 1e6),
    measured=st.floats(-1e6, 1e6),
    tolerance=st.floats(0, 1),
    effect=st.floats(0, 1),
    relation=st.sampled_from(["equal", "at least", "at most"]),
)
def test_a_coarser_eye_never_turns_a_failure_into_a_success(
    published: float, measured: float, tolerance: float, effect: float, relation: Any
) -> None:
    claim = Claim("a", "A sentence", published, tolerance, "digitised", relation=relation)
    sharp, coarse = claim.compare(measured, 0.0).verdict, claim.compare(measured, effect).verdict
    assert sharp in ("holds", "fails")
    assert coarse in (sharp, "cannot tell")


def test_slack_allows_one_step_of_a_small_count() -> None:
    claim = Claim("a", "A sentence", 10.0, 0.02, "digitised", slack=1)
    assert [claim.compare(value, 0.0).verdict for value in (8.9, 9, 11, 11.1)] == ["fails", "holds", "holds", "fails"]


@pytest.mark.parametrize(
    ("relation", "low", "high", "verdict"),
    [
        ("equal", 96.0, 104.0, "holds"),
        ("equal", 94.0, 104.0, "cannot tell"),
        ("equal", 80.0, 94.9, "fails"),
        ("equal", 106.0, 120.0, "fails"),
        ("equal", 80.0, 120.0, "cannot tell"),
        ("at least", 95.0, 900.0, "holds"),
        ("at least", 90.0, 900.0, "cannot tell"),
        ("at least", 80.0, 94.0, "fails"),
        ("at most", 1.0, 105.0, "holds"),
        ("at most", 106.0, 107.0, "fails"),
    ],
)
def test_a_value_with_an_interval_is_judged_by_all_of_it(relation: Any, low: float, high: float, verdict: str) -> None:
    claim = Claim("a", "A sentence", 100.0, 0.05, "digitised", relation=relation)
    done = claim.judge(Interval((low + high) / 2, low, high))
    assert (done.verdict, done.interval) == (verdict, Interval((low + high) / 2, low, high))
    assert claim.judge(Interval((low + high) / 2, note="one seed")).verdict == "cannot tell"


def test_what_is_too_large_for_a_unit_has_a_folder_that_goes_when_it_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "a-small.units.jsonl"
    with Store(path, HEADER) as store:
        (store.folder / "weights").write_bytes(b"many")
        assert store.folder.name == "a-small.work"
    with Store(path, HEADER) as store:
        assert (store.folder / "weights").is_file()
    with Store(path, HEADER, again=True) as store:
        assert list(store.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"identifier": ""}, "needs an identifier"),
        ({"published": float("nan")}, "finite published value"),
        ({"tolerance": -0.1}, "at least 0"),
        ({"known_by": "heard of it"}, "read in the paper"),
        ({"relation": "about"}, "at least"),
        ({"from_size": "huge"}, "smoke, small, paper"),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused(changes: dict[str, Any], said: str) -> None:
    fields = {"identifier": "a", "sentence": "A sentence", "published": 1.0, "tolerance": 0.1, "known_by": "digitised"}
    with pytest.raises(InputError, match=said):
        Claim(**(fields | changes))


# --------------------------------------------------------------------------------------------------- a small one


SQUARES = """
from rightbatch.reproduction import Claim, Reproduction

CLAIMS = (
    Claim("three", "The square of three", 9.0, 0.0, "derived"),
    Claim("seven", "The square of seven <b>&</b>", {seven}, 0.0, "read in the paper", from_size="small"),
)


def run(size, store):
    numbers = {{"three": 3}} if size == "smoke" else {{"three": 3, "seven": 7}}
    return {{name: store.unit(name, lambda n=n: n * n) for name, n in numbers.items()}}


def compare(measured):
    return tuple(c.compare(measured[c.identifier], 0.0) for c in CLAIMS if c.identifier in measured)


REPRODUCTION = Reproduction(
    name="squares", title="Squares", source="Euclid, Elements, book 2", claims=CLAIMS,
    budget_seconds={{"smoke": 1, "small": 1, "paper": 1}}, smallest_effect=0.0, smallest_effect_reason="Exact.",
    run=run, compare=compare,
)
"""


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """A folder with one reproduction whose claims hold."""
    return write(tmp_path, SQUARES.format(seven=49.0))


def write(folder: Path, text: str) -> Path:
    (folder / "squares.py").write_text(text)
    return folder


def test_a_size_measures_its_claims_and_all_hold(squares: Path) -> None:
    assert [found.name for found in reproductions(squares)] == ["squares"]
    assert recorded("squares", "small", squares) is None
    smoke, small = (reproduce("squares", size=size, folder=squares) for size in ("smoke", "small"))
    assert [done.claim for done in smoke.comparisons] == ["three"]
    assert [(done.claim, done.ratio) for done in small.comparisons] == [("three", 1.0), ("seven", 1.0)]
    assert small.holds
    assert small.measured == {"three": 9, "seven": 49}
    assert recorded("squares", "small", squares) == small
    assert "<b>" not in (squares / "results" / "squares-small.html").read_text()


def test_a_claim_that_fails_is_a_result(tmp_path: Path) -> None:
    result = reproduce("squares", folder=write(tmp_path, SQUARES.format(seven=48.0)))
    assert not result.holds
    assert result.summary == "2 claims: 1 holds, 1 fails"
    assert (tmp_path / "results" / "squares-small.html").is_file()


def test_the_same_command_does_no_unit_twice_until_told_again(squares: Path) -> None:
    def kept(**options: Any) -> list[bool]:
        seen: list[bool] = []
        reproduce("squares", folder=squares, watch=lambda _, __, known: seen.append(known), **options)
        return seen

    assert kept() == [False, False]
    assert kept() == [True, True]
    assert kept(again=True) == [False, False]


def test_units_of_other_code_are_not_mixed(squares: Path) -> None:
    reproduce("squares", folder=squares)
    write(squares, SQUARES.format(seven=49.0) + "\n# changed\n")
    with pytest.raises(InputError, match="--again"):
        reproduce("squares", folder=squares)
    assert reproduce("squares", folder=squares, again=True).holds


BROKEN = {
    "no such name": ("", "circles", "it has: squares"),
    "not a reproduction": ("REPRODUCTION = 3", "squares", "found int"),
    "another name": (SQUARES.format(seven=49.0).replace('"squares"', '"cubes"'), "squares", "named 'cubes'"),
    "raises": ("1 / 0", "squares", "ZeroDivisionError"),
    "raises when run": (SQUARES.format(seven=49.0).replace("n * n", "n / 0"), "squares", "ZeroDivisionError"),
    "forgets a claim": (SQUARES.format(seven=49.0).replace("in CLAIMS if", "in CLAIMS[1:] if"), "squares", "'three'"),
    "a unit that is no JSON": (SQUARES.format(seven=49.0).replace("n * n", "{n}"), "squares", "JSON cannot hold"),
    "a unit that is not finite": (SQUARES.format(seven=49.0).replace("n * n", "n * 1e999"), "squares", "finite"),
    "two units of a name": (SQUARES.format(seven=49.0).replace("unit(name", "unit('x'"), "squares", "two units 'x'"),
    "claims of one name": (SQUARES.format(seven=49.0).replace('"seven", "The', '"three", "The'), "squares", "several"),
    "a size without budget": (SQUARES.format(seven=49.0).replace(', "paper": 1', ""), "squares", "budget"),
    "no source": (SQUARES.format(seven=49.0).replace("Euclid, Elements, book 2", ""), "squares", "no source"),
}


@pytest.mark.parametrize(("text", "name", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_what_cannot_be_used_is_said(tmp_path: Path, text: str, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        reproduce(name, folder=write(tmp_path, text))


def test_an_unknown_size_and_a_missing_folder_are_said(squares: Path) -> None:
    with pytest.raises(InputError, match="smoke, small, paper"):
        reproduce("squares", size="huge", folder=squares)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--folder"):
        reproductions(squares / "nowhere")


# ----------------------------------------------------------------------------------------------------- the store


HEADER = {"name": "a"}


def test_units_come_back_as_json_gives_them_even_the_first_time(tmp_path: Path) -> None:
    for kept in (False, True):
        with Store(tmp_path / "u", HEADER, watch=lambda _, __, known, kept=kept: check(known is kept)) as store:
            assert store.unit("pair", lambda: (1, 0.1)) == [1, 0.1]


def check(condition: bool) -> None:
    assert condition


@pytest.mark.parametrize("left", [1, 10, 30])
def test_a_half_written_last_line_is_dropped(tmp_path: Path, left: int) -> None:
    path = tmp_path / "u"
    with Store(path, HEADER) as store:
        store.unit("a", lambda: 1)
        whole = path.stat().st_size
        store.unit("b", lambda: 2)
    os.truncate(path, whole + left)
    with Store(path, HEADER) as store:
        assert path.stat().st_size == whole
        assert store.unit("a", lambda: 3) == 1
        assert store.unit("b", lambda: 4) == 4
    with Store(path, HEADER) as store:
        assert store.unit("b", lambda: 5) == 4


def test_a_half_written_first_line_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "u").write_text('{"na')
    with Store(tmp_path / "u", HEADER) as store:
        store.unit("a", lambda: 1)
    assert json.loads((tmp_path / "u").read_text().splitlines()[0]) == HEADER


def test_a_damaged_line_is_said_and_only_one_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "u"
    with Store(path, HEADER) as store:
        store.unit("a", lambda: 1)
        with pytest.raises(InputError, match="Another process"):
            Store(path, HEADER).__enter__()
    path.write_bytes(path.read_bytes() + b"nonsense\n")
    with pytest.raises(InputError, match="damaged"):
        Store(path, HEADER).__enter__()
    with Store(path, HEADER, again=True) as store:
        assert store.unit("a", lambda: 2) == 2


def test_seconds_count_the_units_of_this_run_only(tmp_path: Path) -> None:
    with Store(tmp_path / "u", HEADER) as store:
        for name in ("a", "b"):
            store.unit(name, lambda: 1)
        both = store.seconds
    with Store(tmp_path / "u", HEADER) as store:
        store.unit("a", lambda: 1)
        assert 0 <= store.seconds <= both
