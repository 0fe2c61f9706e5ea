"""The search for the largest batch that fits, on simulated devices: `python benchmarks/memory_devices.py` for a record.

Their memory comes in blocks, rounds the batch up, jumps where another algorithm is chosen, is lost to fragmentation the
fuller it is, and is measured with noise.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from rightbatch.search.largest import ENOUGH, next_size

DEVICES = 1000
MOST = 10**9
MIB = 2**20
USUALLY = 1.645
"""A size is counted as one that fits if it does 19 times of 20."""


@dataclass
class Device:
    """`peak` is in bytes over the process before the model, without the noise of a measurement."""

    room: float
    fixed: float
    example: float
    most: int
    block: float
    granularity: float
    jumps: tuple[tuple[float, float], ...]
    fragmentation: float
    noise: float
    draws: np.random.Generator
    tried: list[tuple[int, bool]] = field(default_factory=list)

    @classmethod
    def drawn(cls, seed: int) -> Device:
        draws = np.random.default_rng([seed, 20])
        room = math.exp(draws.uniform(math.log(1e9), math.log(80e9)))
        fixed = draws.uniform(0.001, 0.5) * room if draws.random() < 0.8 else draws.uniform(1e6, 50e6)
        about = math.exp(draws.uniform(math.log(2), math.log(2e5)))
        return cls(
            room=room,
            fixed=fixed,
            example=(room - fixed) / about,
            most=MOST if draws.random() < 0.8 else max(1, int(about * math.exp(draws.uniform(-3, 1)))),
            block=draws.choice([0.0, 2 * MIB, 20 * MIB, 0.01 * room]),
            granularity=draws.choice([0.0, 0.0, 0.02, 0.05]) * about,
            jumps=tuple(
                (about * draws.uniform(0.05, 1.2), draws.uniform(0.0, 0.03) * room) for _ in range(draws.integers(0, 3))
            ),
            fragmentation=draws.uniform(0, 0.08) if draws.random() < 0.5 else 0.0,
            noise=draws.choice([0.0, 0.001, 0.005, 0.01]),
            draws=draws,
        )

    def peak(self, size: int) -> float:
        rounded = math.ceil(size / self.granularity) * self.granularity if self.granularity > 1 else size
        activations = self.example * rounded
        activations *= 1 + self.fragmentation * min(1.0, activations / self.room)
        activations += sum(bytes_ for start, bytes_ in self.jumps if size >= start)
        if self.block:
            activations = math.ceil(activations / self.block) * self.block
        return self.fixed + activations

    def run(self, size: int) -> float | None:
        """What a size takes this time; None where it does not fit."""
        took = self.peak(size) * (1 + self.noise * self.draws.standard_normal())
        fits = took <= self.room
        self.tried.append((size, fits))
        return took if fits else None

    def usually_fits(self, size: int) -> bool:
        return self.peak(size) * (1 + USUALLY * self.noise) <= self.room

    def truth(self) -> int:
        """The largest size that usually fits: every step of its peak goes up."""
        low, high = 0, self.most + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.usually_fits(middle) else (low, middle)
        return low

    @property
    def cost(self) -> int:
        """Examples in all that was tried: what the tries take is in proportion to them."""
        return sum(size for size, _ in self.tried)


def searched(device: Device) -> int:
    """What our search answers."""
    increases: dict[int, float] = {}
    failed: list[int] = []
    while (size := next_size(increases, failed, device.room, device.most)) is not None:
        took = device.run(size)
        if took is None:
            failed.append(size)
        else:
            increases[size] = took
    return max(increases, default=0)


def doubled(device: Device, *, bisect: bool) -> int:
    """Powers of two until one does not fit; then bisection until no size can fit that is 3 % larger."""
    fits, size = 0, 1
    while device.run(min(size, device.most)) is not None:
        fits = min(size, device.most)
        if fits == device.most:
            return fits
        size *= 2
    bound = min(size, device.most)
    while bisect and fits < ENOUGH * (bound - 1):
        middle = (fits + bound) // 2
        if device.run(middle) is None:
            bound = middle
        else:
            fits = middle
    return fits


@dataclass(frozen=True)
class Played:
    truth: int
    answer: int
    tries: tuple[tuple[int, bool], ...]
    most: int
    cost: int
    powers_cost: int
    bisection_answer: int
    bisection_cost: int

    @property
    def share(self) -> float:
        return self.answer / self.truth if self.truth else 1.0


def played(seed: int) -> Played:
    ours, powers, bisection = (Device.drawn(seed) for _ in range(3))
    answer, _, other = searched(ours), doubled(powers, bisect=False), doubled(bisection, bisect=True)
    return Played(ours.truth(), answer, tuple(ours.tried), ours.most, ours.cost, powers.cost, other, bisection.cost)


@pytest.fixture(scope="module")
def all_played() -> list[Played]:
    return [played(seed) for seed in range(DEVICES)]


def test_the_answer_has_run_and_is_within_the_data(all_played: list[Played]) -> None:
    for one in all_played:
        assert one.answer == 0 or (one.answer, True) in one.tries
        assert one.answer <= one.most
        assert all(1 <= size <= one.most for size, _ in one.tries)


def test_no_size_is_tried_twice(all_played: list[Played]) -> None:
    for one in all_played:
        assert max(Counter(size for size, _ in one.tries).values()) == 1


def test_it_is_nearly_the_largest_that_fits(all_played: list[Played]) -> None:
    shares = np.array([one.share for one in all_played])
    assert np.mean(shares >= ENOUGH) >= 0.975  # the others met a size that usually fits, and this time did not
    assert shares.min() >= 0.9


def test_it_takes_few_tries(all_played: list[Played]) -> None:
    tries = [len(one.tries) for one in all_played]
    assert np.median(tries) <= 5
    assert max(tries) <= 15


def test_it_costs_a_third_of_powers_of_two_and_bisection_and_less_than_powers_of_two(all_played: list[Played]) -> None:
    cost = sum(one.cost for one in all_played)
    assert cost <= sum(one.bisection_cost for one in all_played) / 3
    assert cost <= sum(one.powers_cost for one in all_played)


def test_where_not_even_one_example_fits_the_answer_is_none() -> None:
    assert next_size({}, [1], 1e9, 100) is None


def test_where_all_the_data_fit_they_are_the_answer() -> None:
    assert next_size({100: 1e6}, [], 1e9, 100) is None


def test_sizes_measured_before_are_used() -> None:
    """Under another limit the same sizes tell as much: the search goes on where they leave off."""
    increases = {4: 50e6, 1000: 1050e6}
    size = next_size(increases, [], 2e9, MOST)
    assert size is not None
    assert 1500 < size < 2000
