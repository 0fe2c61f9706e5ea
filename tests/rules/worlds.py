"""For every rule of the book one simulated world where it holds, and one where it fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rightbatch.records import GradientSample, Point, Run, Settings, Stop, StopReason, Trial
from rightbatch.rules import Case
from rightbatch.rules.learning_rate import surge
from rightbatch.testing import TARGET, Simulated, Truth, simulate

SIZES = (2, 8, 32, 128, 512, 2048, 8192, 32768)
"""The design of every world: eight sizes, seven rates around the best of each, five seeds, deviation 0.1."""

SEEDS = 5
RATES = tuple(round(10 ** (k / 4), 4) for k in range(-3, 4))
"""Rates of worlds where quality is asked: the same at every size."""


def drawn(truth: Truth, **more: Any) -> Simulated:
    sizes = more.get("batch_sizes", SIZES)
    planned = round(1.7 * max(sizes) * truth.steps(max(sizes)))
    design = {"batch_sizes": SIZES, "seeds": SEEDS, "rates_around": 3, "planned_examples": planned}
    return simulate(truth, **(design | more))


def case(truth: Truth, **more: Any) -> Case:
    known = {name: more.pop(name) for name in ("known", "sharpness") if name in more}
    noise_scale, exact = more.pop("noise_scale", None), more.pop("exact", False)
    fits = more.pop("fits", None)
    evidence = replace(drawn(truth, **more).evidence, fits=fits)
    if noise_scale is not None:
        samples = gradient_samples(noise_scale, more.get("random_seed", 0), jitter=0.0 if exact else 0.005)
        evidence = replace(evidence, gradient_samples=(samples,))
    return Case(evidence, **known)


def gradient_samples(
    noise_scale: float, random_seed: int, batch_size: int = 1024, jitter: float = 0.005
) -> tuple[GradientSample, ...]:
    """Forty steps of a gradient of squared length 1, its noise along one of a thousand directions each."""
    generator = np.random.default_rng(random_seed)
    samples = []
    for step in range(40):
        batch, parts = np.exp(jitter * generator.standard_normal(2))
        samples.append(
            GradientSample(
                step,
                batch_size,
                0.1,
                batch_squared=float((1 + noise_scale / batch_size) * batch),
                parts_squared=float((1 + noise_scale) / batch_size * parts),
                shares_squared=1 / batch_size,
            )
        )
    return tuple(samples)


# --------------------------------------------------------------------------------------------- laws of their own


@dataclass(frozen=True)
class Base(Truth):
    """Sizes from 2 to 32,768 show all three regimes; time is least at 128."""

    critical_batch_size: float = 1000.0
    rate_knee: float = 1000.0
    beta_seconds: float = 6.1e-5


@dataclass(frozen=True)
class Rates(Base):
    """The best rate is a power of the size."""

    exponent: float = 1.0

    def best_rate(self, batch_size: float) -> float:
        return 0.01 * (batch_size / 32) ** self.exponent


@dataclass(frozen=True)
class Surging(Base):
    """The best rate of Adam: it peaks at the critical size."""

    def best_rate(self, batch_size: float) -> float:
        return surge(0.01, self.critical_batch_size, batch_size)


@dataclass(frozen=True)
class Kinked(Base):
    """Perfect scaling up to 2048, none beyond."""

    def steps(self, batch_size: float) -> float:
        return self.minimum_steps * max(1.0, 2048 / batch_size)


@dataclass(frozen=True)
class Bowl(Base):
    """Very large batches need more steps again."""

    def steps(self, batch_size: float) -> float:
        return super().steps(batch_size) * (1 + batch_size / 150)


@dataclass(frozen=True)
class Harder(Base):
    """The critical size is 600 at 70 % of the gain and 2400 at the target."""

    critical_batch_size: float = 2400.0

    def progress(self, batch_size: float) -> float:
        easy = 30 * (1 + 600 / batch_size)
        loss = 1 - 0.7 * (1 - TARGET)
        return math.log(math.log(loss) / math.log(TARGET)) / math.log(easy / self.steps(batch_size))


@dataclass(frozen=True)
class Powers(Base):
    """Powers of two take less time than their neighbours."""

    gain: float = 0.9

    def step_seconds(self, batch_size: float) -> float:
        size = int(batch_size)
        return super().step_seconds(batch_size) * (self.gain if size & (size - 1) == 0 else 1.0)


@dataclass(frozen=True)
class Quality(Truth):
    """One best rate for all sizes, and a best loss that depends on the trial; gain 0.95, so 1 % of it is 0.0095."""

    rate_penalty: float = 0.02
    critical_batch_size: float = 100.0
    quality_noise: float = 0.05
    lowest: Callable[[int, float], float] = lambda size, rate: 0.05

    def best_rate(self, batch_size: float) -> float:
        return 1.0

    def best_loss(self, trial: Trial) -> float:
        return self.lowest(trial.batch_size, trial.learning_rate)


@dataclass(frozen=True)
class Forgetting(Base):
    """Adam: the best beta2 is `best(batch size)`; a factor e off in the half-life costs `penalty` in log steps."""

    beta2: float = 0.99
    best: Callable[[float], float] = lambda size: 0.99

    def steps(self, batch_size: float) -> float:
        off = math.log(math.log(self.beta2) / math.log(self.best(batch_size)))
        return super().steps(batch_size) * math.exp(0.4 * off**2)


def quality(lowest: Callable[[int, float], float], **more: Any) -> Case:
    truth = Quality(lowest=lowest)
    return case(truth, rates=RATES, planned_examples=round(3 * SIZES[-1] * truth.steps(SIZES[-1])), **more)


def with_settings(truths: Mapping[str | float, Truth], name: str, default: Any, **more: Any) -> Case:
    """One study with several values of a setting, each with its own truth."""
    parts = [
        drawn(truth, settings={name: value}, random_seed=k, **more) for k, (value, truth) in enumerate(truths.items())
    ]
    facts = replace(parts[0].facts, settings=Settings({name: default}))
    runs = tuple(run for part in parts for run in part.runs)
    return Case(Simulated(facts, runs, parts[0].step_times).evidence)


def beta2s(best: Callable[[float], float]) -> Case:
    values = (0.85, 0.96, 0.99, 0.9975)
    truths = {value: Forgetting(beta2=value, best=best) for value in values}
    return with_settings(truths, "beta2", 0.99, batch_sizes=(8, 32, 128, 512), optimizer="Adam")


def sharp(sign: float) -> Case:
    """Forty models, whose sharpness goes with their quality or against it."""
    found = quality(lambda size, rate: 0.05 + 0.004 * math.log(size))
    ends = {
        (r.trial.batch_size, r.trial.learning_rate, r.trial.seed): r.points[-1].valid_metric
        for r in found.evidence.runs
    }
    chosen = {key: value for key, value in ends.items() if key[1] == 1.0}
    return replace(found, sharpness={key: math.exp(sign * 100 * (value or 0.0)) for key, value in chosen.items()})


def schedules(penalty: float) -> Case:
    """Ten runs: five whose rate falls fourfold, five whose batch grows fourfold, these worse by the penalty."""
    generator = np.random.default_rng(0)
    found = drawn(Quality(), rates=(1.0,), seeds=1, batch_sizes=(32, 128))
    runs: list[Run] = []
    for seed in range(2 * SEEDS):
        grows = seed >= SEEDS
        points = [Point(0, 0, 0.0, 1.0, 1.0, 1.0, 32, 0.1)]
        step = examples = 0
        for k in range(1, 21):
            late = k > 10
            size, rate = (128, 0.1) if late and grows else (32, 0.025 if late else 0.1)
            step, examples = step + 12800 // size, examples + 12800
            loss = 0.05 + 0.9 * math.exp(-k / 3) + (penalty if grows else 0.0) + 0.001 * generator.standard_normal()
            points.append(Point(step, examples, 0.0, loss, loss, loss, size, rate))
        runs.append(Run(Trial(32, 0.1, seed, examples), tuple(points), Stop(StopReason.FINISHED), 0.0, seed + 1))
    return Case(replace(found.evidence, runs=tuple(runs)))


def _peak(exponent: float) -> Callable[[int, float], float]:
    return lambda size, rate: 0.05 + 0.0012 * math.log(size / (128 * rate**exponent)) ** 2


def _along(drift: float) -> Callable[[int, float], float]:
    """Quality by rate / size, and `drift` in the log of the size beside it."""
    return lambda size, rate: 0.05 + 0.0004 * math.log(rate / (size / 256)) ** 2 + drift * math.log(size)


CHEAP_BATCHES, DEAR_BATCHES, AT_32 = Base(beta_seconds=1e-9), Base(beta_seconds=1e-3), Base(beta_seconds=1e-3)
UP_TO_2048 = SIZES[:6]
LARGE_IS_WORSE = lambda size, rate: 0.09 if size > 512 else 0.05  # noqa: E731
FLAT = lambda size, rate: 0.05  # noqa: E731
TIMED: Sequence[int] = (31, 33, 127, 129)

Worlds = tuple[Callable[[], Case], Callable[[], Case]]

WORLDS: dict[str, Worlds] = {
    "largest-that-fits": (lambda: case(CHEAP_BATCHES, fits=32768), lambda: case(DEAR_BATCHES, fits=32768)),
    "thirty-two": (lambda: case(AT_32), lambda: case(CHEAP_BATCHES)),
    "powers-of-two": (lambda: case(Powers(), timed_sizes=TIMED), lambda: case(Powers(gain=1.0), timed_sizes=TIMED)),
    "full-batch-below-2000": (
        lambda: case(CHEAP_BATCHES, batch_sizes=(2, 8, 32, 128, 512, 1000), train_examples=1000),
        lambda: case(AT_32, batch_sizes=(2, 8, 32, 128, 512, 1000), train_examples=1000),
    ),
    "eight-costs-five-times": (lambda: case(Base(beta_seconds=1e-5)), lambda: case(AT_32)),
    "noise-scale": (lambda: case(Base(), noise_scale=1000), lambda: case(Base(), noise_scale=50_000)),
    "goodput": (lambda: case(Base(), noise_scale=1000), lambda: case(Base(), noise_scale=4)),
    "temperature-optimum": (lambda: quality(_peak(1.0)), lambda: quality(_peak(0.0))),
    "deepseek-tokens": (
        lambda: case(Base(), known={"compute": 1e18, "tokens_per_example": 1762}),
        lambda: case(Base(), known={"compute": 1e18, "tokens_per_example": 27}),
    ),
    "critical-size-grows": (
        lambda: case(Harder(), batch_sizes=UP_TO_2048),
        lambda: case(Base(critical_batch_size=2400), batch_sizes=UP_TO_2048),
    ),
    "critical-size-and-data": (
        lambda: with_settings(
            {1000: Base(), 16_000: Base(critical_batch_size=1000 * 16**0.47)}, "train_examples", 1000
        ),
        lambda: with_settings({1000: Base(), 16_000: Base()}, "train_examples", 1000),
    ),
    "critical-size-and-model": (
        lambda: with_settings({64: Base(), 512: Base()}, "width", 64),
        lambda: with_settings({64: Base(), 512: Base(critical_batch_size=8000)}, "width", 64),
    ),
    "linear": (lambda: case(Rates(exponent=1.0)), lambda: case(Rates(exponent=0.5))),
    "square-root": (lambda: case(Rates(exponent=0.5)), lambda: case(Rates(exponent=1.0))),
    "adam-square-root": (
        lambda: case(Rates(exponent=0.5), optimizer="Adam"),
        lambda: case(Rates(exponent=1.0), optimizer="AdamW"),
    ),
    "saturating-rate": (lambda: case(Base()), lambda: case(Rates(exponent=1.0))),
    "surge": (lambda: case(Surging(), optimizer="Adam"), lambda: case(Base(), optimizer="Adam")),
    "beta2-half-life": (lambda: beta2s(lambda size: 0.99 ** (size / 32)), lambda: beta2s(lambda size: 0.99)),
    "temperature": (lambda: quality(_along(0.0)), lambda: quality(_along(0.003))),
    "perfect-scaling": (lambda: case(Base()), lambda: case(Base(critical_batch_size=2), batch_sizes=(2, 8, 32, 128))),
    "diminishing-returns": (lambda: case(Base()), lambda: case(Kinked())),
    "maximal-parallelism": (lambda: case(Base()), lambda: case(Base(critical_batch_size=1e6))),
    "hyperbola": (lambda: case(Base()), lambda: case(Bowl(), batch_sizes=UP_TO_2048)),
    "two-to-thirty-two": (
        lambda: quality(lambda size, rate: 0.09 if size > 32 else 0.05),
        lambda: quality(lambda size, rate: 0.05 if size > 32 else 0.09),
    ),
    "too-low-is-possible": (lambda: quality(lambda size, rate: 0.09 if size < 8 else 0.05), lambda: quality(FLAT)),
    "larger-generalises-worse": (lambda: quality(LARGE_IS_WORSE), lambda: quality(FLAT)),
    "no-effect-once-tuned": (lambda: quality(FLAT), lambda: quality(LARGE_IS_WORSE)),
    "number-of-updates": (lambda: quality(FLAT), lambda: quality(LARGE_IS_WORSE)),
    "sharpness-predicts": (lambda: sharp(1.0), lambda: sharp(-1.0)),
    "grow-the-batch": (lambda: schedules(0.0), lambda: schedules(0.04)),
    "emso-any-batch": (
        lambda: case(Base(critical_batch_size=1e6), optimizer="EMSO"),
        lambda: case(Base(), optimizer="EMSO"),
    ),
    "emso-larger-batches": (
        lambda: with_settings({1: Base(), 20: Base(critical_batch_size=1e6)}, "inner_steps", 1, optimizer="EMSO"),
        lambda: with_settings({1: Base(), 20: Base()}, "inner_steps", 1, optimizer="EMSO"),
    ),
    "batch-below-steps": (lambda: case(Base()), lambda: case(Base(critical_batch_size=20_000, minimum_steps=5))),
}
"""By rule: the world where it holds, the world where it fails."""
