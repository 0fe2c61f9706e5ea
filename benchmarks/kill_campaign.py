"""Kill a sweep again and again with kill -9, its own process or one of its workers, at random moments.

    python benchmarks/kill_campaign.py [--kills 20] [--seed 0] [--out FILE.json]

The sweep (the digits at 2 batch sizes and 4 rates, several seeds, two workers) is started again by the same command
after every death of its process. After every kill the study must pass SQLite's integrity check, every curve must
increase in step, no trial may have been finished twice, what was finished before must be there unchanged, and no
process may be left over. At the end the finished runs must have the curves of a sweep that nothing happened to, and the
command its answer. Whatever is broken ends the campaign with exit code 1 and what was seen.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rightbatch import InsufficientEvidence, sweep
from rightbatch.bundled.digits import digits
from rightbatch.engine import WorkloadRunner
from rightbatch.pipeline import loop
from rightbatch.records import Run, StopReason, to_json
from rightbatch.store import Study

BATCH_SIZES, RATES = [32, 128], [0.01, 0.03162, 0.1, 0.3162]
PLANNED_EXAMPLES = 12_000
STATE_SECONDS = 0.2
DEADLINE_SECONDS = 300.0


def command(study: Path, seeds: int, workers: int) -> str:
    """The sweep that is killed: every run to its end, which reaches an easy target; its answer in a line."""
    loop.STATE_SECONDS = STATE_SECONDS
    try:
        answer = sweep(
            digits(), BATCH_SIZES, study=study, rates=RATES, seeds=seeds, workers=workers, threads=1, target=1.5,
            planned_examples=PLANNED_EXAMPLES, objective="examples",
        )  # fmt: skip
    except InsufficientEvidence as said:
        return str(said)
    return f"{answer.batch_size} {answer.learning_rate} {answer.examples:.9g} {list(answer.as_good)}"


def finished(study: Path) -> dict[int, Run]:
    """The runs that ended by themselves, without the seconds, which no two runs share."""
    with Study.open(study) as opened:
        runs = [run for run in opened.runs() if run.stop and run.stop.reason is StopReason.FINISHED]
    return {
        r.identifier: replace(r, wall_seconds=0.0, points=tuple(replace(p, seconds=0.0) for p in r.points))
        for r in runs
    }


def points_in(study: Path) -> int:
    """How many points the study has so far; it may be in the making."""
    try:
        connection = sqlite3.connect(f"file:{study}?mode=ro", uri=True, timeout=30)
        try:
            return int(connection.execute("SELECT count(*) FROM points").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.OperationalError:
        return 0


def faults(study: Path, before: dict[int, Run]) -> list[str]:
    """What is wrong with a study after a kill; `before` are the runs that were finished by then."""
    found = []
    connection = sqlite3.connect(study)
    if (said := connection.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
        found.append(f"integrity check: {said}")
    connection.close()
    with Study.open(study) as opened:
        for run in opened.runs():
            steps = [point.step for point in run.points]
            if steps != sorted(set(steps)):
                found.append(f"run {run.identifier}: its steps do not increase")
    now = finished(study)
    twice = [trial for trial, count in Counter(run.trial for run in now.values()).items() if count > 1]
    found += [f"finished twice: {trial}" for trial in twice]
    found += [
        f"run {number} was finished and is lost or changed" for number in before if now.get(number) != before[number]
    ]
    return found


def processes() -> dict[int, int]:
    """The parent of every process that runs, and is not only waited for."""
    shown = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in shown.splitlines())
    return {int(process): int(parent) for process, parent, state in rows if not state.startswith("Z")}


def wait_for(condition: Callable[[], bool]) -> bool:
    """Whether it came true before the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


class Sweeping:
    """The command, started whenever it is not running."""

    def __init__(self, study: Path, seeds: int) -> None:
        self._arguments = [sys.executable, __file__, "--study", str(study), "--seeds", str(seeds)]
        self.process = self._begin()

    def _begin(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self._arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def again(self) -> None:
        """Start it once more, after its end."""
        self.process.communicate()
        self.process = self._begin()


def campaign(folder: Path, kills: int, seeds: int, seed: int) -> dict[str, Any]:
    """All kills, each with what it hit and what was wrong afterwards; then what the sweep has come to."""
    generator, study = random.Random(seed), folder / "killed.study.db"
    undisturbed = folder / "undisturbed.study.db"
    answer = command(undisturbed, seeds, 1)
    curves = {run.trial: run.points for run in finished(undisturbed).values()}
    most = sum(map(len, curves.values()))
    sweeping, before, rows = Sweeping(study, seeds), dict[int, Run](), []
    for kill in range(kills):
        wanted = points_in(study) + generator.randrange(1, max(2, most // kills))
        going = sweeping.process
        wait_for(lambda: points_in(study) >= wanted or going.poll() is not None)  # noqa: B023
        if going.poll() is not None:
            rows.append({"kill": kill, "found": [f"the command ended by itself: {going.communicate()}"]})
            break
        workers = [process for process, parent in processes().items() if parent == going.pid]
        hit = generator.choice(("parent", "worker")) if workers else "parent"
        os.kill(going.pid if hit == "parent" else generator.choice(workers), signal.SIGKILL)
        found = []
        if hit == "parent":
            going.wait()
            if not wait_for(lambda: not set(workers) & set(processes())):  # noqa: B023
                found.append(f"left over: {set(workers) & set(processes())}")
            found += faults(study, before)
            sweeping.again()
        before = finished(study)
        rows.append({"kill": kill, "hit": hit, "points": wanted, "finished": len(before), "found": found})
        print(
            f"{kill + 1:4}  {hit:<7} {wanted:6} points  {len(before):4} runs finished  {found or 'whole'}", flush=True
        )
    out, err = sweeping.process.communicate()
    found = faults(study, before)
    same = {run.trial: run.points for run in finished(study).values()} == curves
    if sweeping.process.returncode != 0:
        found.append(f"the last command ended with {sweeping.process.returncode}: {err[-500:]}")
    if not same:
        found.append("the finished runs are not those of the undisturbed sweep")
    if out.strip() != answer:
        found.append(f"the answer is {out.strip()!r}, undisturbed {answer!r}")
    with Study.open(study) as opened:
        cut = sum(run.stop is not None and run.stop.reason is StopReason.INTERRUPTED for run in opened.runs())
    return {"kills": rows, "runs": len(curves), "points": most, "cut_short": cut, "answer": answer, "found": found}


def main() -> None:
    """Run the campaign, or the command that it kills."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the sweep: 8 runs each")
    parser.add_argument("--out", type=Path, help="also write every kill and the environment to this JSON file")
    parser.add_argument("--study", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.study is not None:
        print(command(options.study, options.seeds, 2))
        return
    with tempfile.TemporaryDirectory() as folder:
        result = campaign(Path(folder), options.kills, options.seeds, options.seed)
    bad = [*result["found"], *(text for row in result["kills"] for text in row["found"])]
    print(f"{len(result['kills'])} kills, {result['runs']} runs, {result['cut_short']} records of runs cut short")
    print("nothing lost, nothing repeated, nothing left over" if not bad else "\n".join(bad))
    if options.out:
        environment = WorkloadRunner(digits()).environment
        words = f"--kills {options.kills} --seed {options.seed} --seeds {options.seeds}"
        written = {
            "command": f"python benchmarks/kill_campaign.py {words}",
            "environment": to_json(environment),
            **result,
        }
        options.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
