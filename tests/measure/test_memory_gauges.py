"""Gauges of the memory of devices that need not be here, over counters that are written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from rightbatch.measure.memory_gauges import GAUGES

GB = 10**9


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A GPU of 16 GB of which other processes hold 4, this one's context 0.5 and its data 1."""
    seen: dict[str, float] = {"free": 10.5 * GB, "reserved": 1.0 * GB, "peak": 1.0 * GB}

    def set_fraction(fraction: float, device: Any) -> None:
        seen["fraction"] = fraction

    def reset(device: Any) -> None:
        seen["peak"] = seen["reserved"]

    replaced: dict[str, Callable[..., Any]] = {
        "empty_cache": lambda: None,
        "synchronize": lambda device: None,
        "mem_get_info": lambda device: (int(seen["free"]), 16 * GB),
        "memory_reserved": lambda device: int(seen["reserved"]),
        "max_memory_reserved": lambda device: int(seen["peak"]),
        "set_per_process_memory_fraction": set_fraction,
        "reset_peak_memory_stats": reset,
    }
    for name, function in replaced.items():
        monkeypatch.setattr(torch.cuda, name, function)
    monkeypatch.setattr(torch, "zeros", lambda *arguments, **keywords: None)
    return seen


def test_what_others_hold_on_a_gpu_is_not_there_to_be_taken(cuda: dict[str, float]) -> None:
    gauge = GAUGES["cuda"](torch.device("cuda"), None, 0.1, 0)
    assert gauge.before_bytes == 1 * GB
    assert gauge.limit_bytes == pytest.approx(0.9 * 11.5 * GB)
    assert cuda["fraction"] == pytest.approx(gauge.limit_bytes / (16 * GB))
    cuda["peak"] = 7.0 * GB
    assert gauge.peak() == 7 * GB


@pytest.mark.parametrize(("asked", "limit"), [(8 * GB, 8 * GB), (80 * GB, 11.5 * GB)])
def test_a_gpu_gives_no_more_than_was_asked_for_nor_than_there_is(
    cuda: dict[str, float], asked: int, limit: float
) -> None:
    assert GAUGES["cuda"](torch.device("cuda"), asked, 0.0, 0).limit_bytes == pytest.approx(limit)


def test_metal_is_asked_of_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    held = [2 * GB]
    for name, function in (
        ("empty_cache", lambda: None),
        ("synchronize", lambda: None),
        ("driver_allocated_memory", lambda: held[0]),
        ("recommended_max_memory", lambda: 12 * GB),
        ("set_per_process_memory_fraction", lambda fraction: None),
    ):
        monkeypatch.setattr(torch.mps, name, function)
    gauge = GAUGES["mps"](torch.device("mps"), None, 0.5, 10 * GB)
    assert (gauge.before_bytes, gauge.limit_bytes) == (2 * GB, 5 * GB)  # main memory is the same
    held[0] = 3 * GB
    assert gauge.peak() == 3 * GB
