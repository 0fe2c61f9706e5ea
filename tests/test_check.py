"""`check` finds each fault alone, several at once, and none where there is none."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from checks_cases import CASES, CLEAN, TRAIN, VALID, Unused, a_command, a_loop, cosine, good, loop, refuse
from rightbatch.bundled import WORKLOADS
from rightbatch.checks import aims, attempts, rehearsal, runs
from rightbatch.checks import workload as workload_checks
from rightbatch.checks.looking import Cannot
from rightbatch.errors import DataError, InputError
from rightbatch.findings import CheckReport, Fault, Finding, NotLookedAt
from rightbatch.pipeline.check import check
from rightbatch.records import Point, Target, to_json
from rightbatch.report.check import check_text


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Small models are slower on several threads, and timing is steadier on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def faults(report: CheckReport) -> set[Fault]:
    return {finding.fault for finding in report.faults}


def printed(report: CheckReport) -> str:
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115 - closed by the next line
    with console.file:
        console.print(check_text(report))
    return console.export_text()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_fault_is_found_alone(case):
    report = check(case.make())
    assert faults(report) == (set() if case.note else {case.fault}), report.findings
    [finding] = [finding for finding in report.findings if finding.fault is case.fault]
    assert finding.note is case.note
    assert re.search(case.seen, finding.seen, re.S), finding.seen
    assert finding.do


def test_every_fault_has_a_case_and_says_why_it_matters():
    assert {case.fault for case in CASES.values()} == set(Fault)
    assert all(fault.why for fault in Fault)


@pytest.mark.parametrize("make", CLEAN.values(), ids=CLEAN.keys())
def test_what_is_clean_has_no_fault(make):
    report = check(make())
    assert report.clean
    assert not report.faults
    assert {finding.fault for finding in report.findings} <= {Fault.NO_LEARNING}
    assert len(report.looked_at) >= 5


@pytest.mark.parametrize("name", WORKLOADS)
def test_what_is_bundled_has_no_fault(name, monkeypatch):
    if name not in ("digits", "quadratic"):
        if "RIGHTBATCH_DATA" not in os.environ:
            pytest.skip("RIGHTBATCH_DATA does not name a folder with data sets")
        monkeypatch.setattr(rehearsal, "STEPS_SECONDS", 0.5)
        monkeypatch.setattr(rehearsal, "FURTHER_SECONDS", 0.5)
        monkeypatch.setattr(rehearsal, "ROUNDS", 1)
    try:
        report = check(name)
    except DataError as error:
        pytest.skip(str(error))
    assert report.clean, report.faults
    # In so short a time a large model makes no ten steps, and its loss does not fall.
    missing = {entry.check for entry in report.not_looked_at} - {"learning", "the direction of the metric"}
    assert len(missing) <= 1


def test_all_faults_are_found_at_once():
    report = check(
        good(
            model=Unused,
            optimizer=lambda parameters, _: torch.optim.SGD(parameters, lr=0.1),
            valid=tuple(t[:300] for t in VALID),
            schedule=cosine,
            present=(32, 0.01),
        )
    )
    assert faults(report) == {Fault.NO_GRADIENT, Fault.RATE_IGNORED, Fault.FEW_EXAMPLES}
    assert [finding.fault for finding in report.findings if finding.note] == [Fault.LENGTH_BOUND]
    assert not report.clean


def test_data_that_is_not_finite_does_not_hide_the_rest():
    x = TRAIN[0].clone()
    x[3, 0] = torch.inf
    report = check(good(data=(x, TRAIN[1]), model=Unused))
    assert faults(report) == {Fault.DATA_NOT_FINITE, Fault.NO_GRADIENT}
    nothing_left = check(good(data=(torch.full_like(x, torch.nan), TRAIN[1])))
    assert faults(nothing_left) == {Fault.DATA_NOT_FINITE, Fault.CONSTRUCTION}


def test_an_error_of_the_workload_is_told_once_and_hides_only_what_needs_it():
    report = check(good(metric=refuse, optimizer=lambda parameters, _: torch.optim.SGD(parameters, lr=0.7)))
    assert sorted(finding.fault.name for finding in report.findings) == ["RAISED", "RATE_IGNORED"]
    skipped = {entry.check for entry in report.not_looked_at}
    assert "the cost of evaluation" in skipped
    assert {"gradients", "learning", "repeatability", "train and validation apart"} <= set(report.looked_at)
    assert skipped.isdisjoint(report.looked_at)
    assert skipped | set(report.looked_at) == set(workload_checks.CHECKS)


def test_a_crash_inside_one_check_does_not_hide_the_others(monkeypatch):
    def crash(_):
        yield Finding(Fault.LENGTH_BOUND, "seen before the crash", "nothing", note=True)
        raise ZeroDivisionError("in the check itself")

    monkeypatch.setitem(workload_checks.CHECKS, "gradients", crash)
    report = check(good(optimizer=lambda parameters, _: torch.optim.SGD(parameters, lr=0.7)))
    assert [finding.fault for finding in report.findings] == [Fault.LENGTH_BOUND, Fault.RAISED, Fault.RATE_IGNORED]
    assert "looking at gradients raised ZeroDivisionError: in the check itself" in report.findings[1].seen
    assert report.not_looked_at == (NotLookedAt("gradients", "looking at gradients raised an error"),)


def test_the_present_choice_and_settings_can_be_given():
    slow = check(good(present=None), present=(16, 0.02))
    assert slow.clean
    bad = check(good(present=None, optimizer=lambda p, _: torch.optim.SGD(p, lr=0.7)), present=(16, 0.02))
    assert "asked for 0.02 and 0.08" in bad.faults[0].seen


def test_a_batch_larger_than_the_data_is_found_where_it_was_asked_for():
    report = check(good(present=(701, 0.1)))
    assert faults(report) == {Fault.RAISED}
    assert "batch_size=701 is larger than the data: 700 training examples" in report.faults[0].seen
    small = tuple(t[:20] for t in TRAIN)
    assert check(good(data=small, present=None)).clean  # nobody asked for 32


def test_a_program_that_says_nothing_is_ended(monkeypatch):
    monkeypatch.setattr(attempts, "RUN_SECONDS", 1.0)
    report = check(a_command("silent"))
    assert faults(report) == {Fault.NO_POINT}
    assert "took longer than 1 seconds" in report.faults[0].seen
    # What has no need of a point is looked at: the seed, the target and the length are not known here.
    assert len(report.not_looked_at) == len(runs.CHECKS) - 4


def test_a_loop_without_a_planned_length_and_a_metric_that_stands_still_are_not_accused():
    def at_chance(trial):
        for step in range(1, 100):
            if trial.due(step):
                yield replace(next(loop(trial)), step=step, valid_loss=None, valid_metric=0.1)

    report = check(a_loop(at_chance, direction="min"))
    assert report.clean
    assert {entry.check for entry in report.not_looked_at} >= {"the learning rate", "the batch size"}
    unplanned = check(loop)
    assert unplanned.clean
    assert [entry.check for entry in unplanned.not_looked_at] == ["the cost of evaluation"]


def test_a_share_that_begins_near_0_may_have_a_target_far_from_it():
    wanted = Target(0.25, "valid_metric", "max")
    points = [Point(step, valid_metric=0.01) for step in (0, 10, 20)]
    assert not list(aims.target(points, wanted))
    [finding] = aims.target(points, replace(wanted, value=25.0))
    assert finding.note
    assert not list(aims.target(points, None))


def test_a_metric_that_is_noisy_or_stays_at_0_is_not_accused():
    falling = [Point(k, valid_loss=1 - k / 20, valid_metric=value) for k, value in enumerate((0.5, 0.7, 0.4, 0.6))]
    assert not list(aims.direction(falling, "max"))
    assert not list(aims.direction(falling, "min"))
    collapsed = [replace(point, valid_metric=max(0.0, 0.4 - 0.2 * point.step)) for point in falling]
    for points in (collapsed, falling[:2], [replace(point, valid_loss=None) for point in falling]):
        with pytest.raises(Cannot):
            list(aims.direction(points, "max"))


def test_what_is_no_workload_is_an_error_or_a_finding(tmp_path):
    with pytest.raises(InputError, match="no workload 'nonsense'"):
        check("nonsense")
    with pytest.raises(InputError, match="a table of runs"):
        check("curves.csv.gz")
    file = tmp_path / "mine.py"
    file.write_text("def make():\n    raise ValueError('no data today')\n")
    report = check(f"{file}:make")
    assert faults(report) == {Fault.CONSTRUCTION}
    assert "no data today" in report.faults[0].seen
    assert report.looked_at == ()


def test_a_report_is_printed_and_written():
    report = check(good(model=Unused, metric=refuse, schedule=cosine))
    text = printed(report)
    flat = " ".join(text.split())
    assert text.startswith("good: 2 faults, 1 note (")
    for finding in report.findings:
        assert finding.fault.value in flat
        assert finding.fault.why in flat
    assert flat.index("fault parameters get no gradient") < flat.index("note only the ends of runs count")
    assert "not looked at" in flat
    data = json.loads(json.dumps(to_json(report)))
    assert [entry["fault"] for entry in data["findings"]] == [f.fault.name.lower() for f in report.findings]
    assert printed(CheckReport("fine", (), ("one",), 1.0)) == "fine: no faults (1 check in 1.00 s)\n"
    marked = Finding(Fault.RAISED, "[bold]brackets[/nothing]", "keep them")
    assert "[bold]brackets[/nothing]" in printed(CheckReport("x", (marked,), (), 1.0))


def test_a_loop_is_checked_where_torch_is_not_installed(tmp_path: Path):
    (tmp_path / "mine.py").write_text("""
import random
import rightbatch
def train(trial):
    value = 1.0
    for step in range(1, 1000):
        value -= trial.learning_rate * (value + random.gauss(0, 1) / trial.batch_size)
        if trial.due(step):
            yield rightbatch.Point(step, valid_loss=value ** 2)
""")
    program = f"""
import sys
class NoTorch:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, NoTorch)
from rightbatch.pipeline.check import check
report = check({str(tmp_path / "mine.py") + ":train"!r})
assert report.clean and len(report.looked_at) == 9, report
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
