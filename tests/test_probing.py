"""What tries a size may die of it in every way; what asked for it goes on."""

from __future__ import annotations

import mmap
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psutil")

from rightbatch.errors import InputError, WorkloadError
from rightbatch.memory_room import data_limit, free_bytes, held_bytes, peak_bytes
from rightbatch.probing import Allowance, Prober
from rightbatch.worker import Setup

MIB = 2**20
HOLDS = 120 * MIB
"""What a process of these tests may hold; one without anything holds some 20 MB."""

SOURCE = '''
import os, signal, subprocess, sys, time
from rightbatch.errors import WorkloadError
from rightbatch.memory_room import forget_peak, held_bytes, peak_bytes
from rightbatch.records import MemoryProbe

class Runner:
    """Holds 1 MB an example, in the way that it is told."""

    def __init__(self, way, note):
        self.way, self.note = way, note
        if way == "large before":
            self.data = bytearray(300 * 2**20)
            time.sleep(5)
        if way == "wrong before":
            raise WorkloadError("there is no data")

    def memory_probe(self, batch_size, micro_batch_size, *, host_bytes, **how):
        forget_peak()
        before = held_bytes()
        with open(self.note, "a") as note:
            note.write(f"{os.getpid()}\\n")
        tries = len(open(self.note).readlines())
        if self.way == "killed" or self.way == "killed once" and tries == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.way == "crashes":
            os.abort()
        if self.way == "raises":
            raise WorkloadError("a shape does not fit")
        if self.way == "a child holds it":
            program = f"import time; x = bytearray({batch_size} * 2**20); time.sleep(0.6)"
            subprocess.run([sys.executable, "-c", program])
        else:
            held = bytearray(batch_size * 2**20)
            time.sleep(0.3 if batch_size > 60 else 0)
        peak = peak_bytes()
        return MemoryProbe(micro_batch_size, batch_size, host_bytes, before, peak, peak, 0.0)

def make(way, note):
    return Runner(way, note)
'''


@pytest.fixture
def prober(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Prober]]:
    (tmp_path / "greedy_runner.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    made: list[Prober] = []

    def build(way: str) -> Prober:
        import greedy_runner

        setup = Setup.of(pickle.dumps(partial(greedy_runner.make, way, str(tmp_path / "note"))), 1)
        made.append(Prober(Allowance(setup, HOLDS, None, 0.0, on_cpu=True)))
        return made[-1]

    yield build
    for one in made:
        one.close()
    sys.modules.pop("greedy_runner", None)


def processes(tmp_path: Path) -> list[int]:
    return [int(line) for line in (tmp_path / "note").read_text(encoding="utf-8").split()]


def test_what_fits_is_measured(prober: Any) -> None:
    probe = prober("well").probe(40, 40, fresh=True)
    assert probe.fits
    assert 40 * MIB <= probe.peak_bytes - probe.before_bytes <= 50 * MIB


def test_a_size_may_follow_in_the_same_process_or_have_its_own(prober: Any, tmp_path: Path) -> None:
    one = prober("well")
    found = [one.probe(size, size, fresh=fresh) for size, fresh in ((10, True), (20, False), (30, True))]
    first, second, third = processes(tmp_path)
    assert first == second != third
    assert found[0].before_bytes == found[1].before_bytes  # of the process as it was before anything was tried in it


def test_one_that_holds_too_much_is_ended_and_the_next_goes_on(prober: Any, tmp_path: Path) -> None:
    one = prober("well")
    for _ in range(5):  # 50 times in benchmarks/memory_limits.py
        probe = one.probe(2000, 2000, fresh=False)
        assert not probe.fits
        assert probe.peak_bytes is None
        assert "of the 126 MB that it may, and was ended" in probe.why
        assert not alive(processes(tmp_path)[-1])
    assert one.probe(10, 10, fresh=False).fits


def test_what_its_children_hold_counts(prober: Any) -> None:
    probe = prober("a child holds it").probe(60, 60, fresh=True)
    assert probe.fits
    assert probe.peak_bytes - probe.before_bytes >= 50 * MIB  # pages that both hold count once
    assert not prober("a child holds it").probe(150, 150, fresh=True).fits


@pytest.mark.parametrize(("way", "said"), [("crashes", "died (exit status -6)"), ("killed", "was killed when it held")])
def test_one_that_dies_did_not_fit(prober: Any, tmp_path: Path, way: str, said: str) -> None:
    probe = prober(way).probe(10, 10, fresh=True)
    assert not probe.fits
    assert said in probe.why
    assert len(processes(tmp_path)) == (3 if way == "killed" else 1)


def test_one_that_somebody_killed_is_tried_again(prober: Any) -> None:
    assert prober("killed once").probe(10, 10, fresh=True).fits


def test_errors_of_the_workload_are_raised(prober: Any) -> None:
    with pytest.raises(WorkloadError, match="a shape does not fit"):
        prober("raises").probe(10, 10, fresh=True)
    with pytest.raises(WorkloadError, match="there is no data"):
        prober("wrong before").probe(10, 10, fresh=True)


def test_data_that_do_not_fit_by_themselves_are_told(prober: Any) -> None:
    with pytest.raises(InputError, match="without any model, did not fit: it held"):
        prober("large before").probe(10, 10, fresh=True)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


# ----------------------------------------------------------------------------------------- what there is of memory


def test_what_is_held_and_what_is_free() -> None:
    before, free = held_bytes(), free_bytes()
    with mmap.mmap(-1, 64 * MIB) as block:  # by itself: an allocator may have as much that earlier tests gave back
        block[:: mmap.PAGESIZE] = bytes(64 * MIB // mmap.PAGESIZE)
        assert 60 * MIB <= held_bytes() - before <= 80 * MIB
        assert peak_bytes() >= held_bytes() - MIB
        assert free > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit of data is Linux's")
def test_beyond_a_limit_an_allocation_fails() -> None:
    with data_limit(100 * MIB):
        bytearray(50 * MIB)
        with pytest.raises(MemoryError):
            bytearray(200 * MIB)
    bytearray(200 * MIB)


def test_control_groups_are_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from rightbatch import memory_room

    folder = tmp_path / "sys" / "work"
    folder.mkdir(parents=True)
    for name, text in (
        ("memory.max", "1000000000"),
        ("memory.current", "400000000"),
        ("memory.stat", "anon 1\ninactive_file 100000000\n"),
    ):
        (folder / name).write_text(text, encoding="ascii")
    assert memory_room._allowed(folder, "max", "current", "inactive_file") == 700_000_000
    (folder / "memory.max").write_text("max\n", encoding="ascii")
    assert memory_room._allowed(folder, "max", "current", "inactive_file") is None
    assert memory_room._allowed(tmp_path, "max", "current", "inactive_file") is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("8GB", 8 * 10**9), ("1.5 GiB", 3 * 2**29), ("500M", 5 * 10**8), ("2e9", 2 * 10**9), ("1024", 1024)],
)
def test_amounts_are_read_as_people_write_them(text: str, number: int) -> None:
    from rightbatch.memory_room import parse_bytes

    assert parse_bytes(text) == number


@pytest.mark.parametrize("text", ["", "8 apples", "-1GB", "GB", "0"])
def test_other_words_are_no_amounts(text: str) -> None:
    from rightbatch.memory_room import parse_bytes

    with pytest.raises(InputError, match="a number with a unit"):
        parse_bytes(text)
