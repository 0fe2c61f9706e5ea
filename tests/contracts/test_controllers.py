"""What every controller of the batch size promises, and that each says what its source says."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.controllers import (
    CABS,
    CONTROLLERS,
    AdaDamp,
    Choice,
    GeoDamp,
    Goodput,
    InnerProductTest,
    InsteadOfDecay,
    Limits,
    NoiseFollowing,
    NormTest,
    PadaDamp,
    Planned,
    RadaDamp,
    Seen,
    TunedGoodput,
)
from rightbatch.errors import InputError
from rightbatch.records import GradientSample

LIMITS = Limits(4, 512, most_change=4)

MADE = {
    "planned": lambda limits: Planned("64@1000, 256@5000*2", limits),
    "instead-of-decay": lambda limits: InsteadOfDecay((1000, 4000), 5, limits),
    "noise-following": lambda limits: NoiseFollowing(limits=limits),
    "goodput": lambda limits: Goodput(limits=limits),
    "tuned-goodput": lambda limits: TunedGoodput(limits=limits),
    "norm-test": lambda limits: NormTest(limits=limits),
    "inner-product-test": lambda limits: InnerProductTest(nu=2.0, limits=limits),
    "cabs": lambda limits: CABS(limits=limits),
    "adadamp": lambda limits: AdaDamp(limits=limits),
    "padadamp": lambda limits: PadaDamp(0.5, limits),
    "geodamp": lambda limits: GeoDamp(2000, 3, limits),
    "radadamp": lambda limits: RadaDamp(limits=limits),
}


def gradient(size: int, squared: float, trace: float, metric: str = "plain") -> GradientSample:
    """What a batch whose terms are exactly these would have shown."""
    return GradientSample(1, size, 0.1, squared + trace / size, squared / size + trace / size, 1 / size, metric)


def seen(examples: int = 640, size: int = 32, **more: Any) -> Seen:
    known = {"steps": examples // size, "first_batch_size": 32, "learning_rate": 0.1}
    return Seen(examples, batch_size=size, **{**known, **more})


def everything(
    examples: int, size: int, *, squared: float = 1.0, trace: float = 100.0, loss: float = 2.0, share: float = 0.25
) -> Seen:
    """`share`: of the noise, along the gradient."""
    samples = (gradient(size, squared, trace), gradient(size, squared * abs(squared), share * trace * squared, "along"))
    return seen(examples, size, loss=loss, gradients=samples, alpha_seconds=1e-3, beta_seconds=1e-5)


def test_every_controller_is_tried() -> None:
    assert set(MADE) == set(CONTROLLERS)
    assert all(type(MADE[name](LIMITS)) is made for name, made in CONTROLLERS.items())


numbers = st.floats(1e-6, 1e6)
sights = st.lists(st.tuples(st.integers(1, 3000), numbers, st.floats(-1e3, 1e6), st.floats(1e-3, 10)), max_size=12)


@pytest.mark.parametrize("name", CONTROLLERS)
@settings(derandomize=True, deadline=None, max_examples=40)
@given(sights=sights)
def test_choices_are_within_limits_and_follow_from_a_state_of_json(
    name: str, sights: list[tuple[int, float, float, float]]
) -> None:
    controller = MADE[name](LIMITS)
    state, again, size, examples = controller.begin(), controller.begin(), 32, 0
    for more, trace, squared, loss in sights:
        examples += more
        told = everything(examples, size, squared=squared, trace=trace, loss=loss)
        choice, state = controller.choose(state, told)
        # As one that was saved and read back in between.
        same, again = controller.choose(json.loads(json.dumps(again)), told)
        assert same == choice
        assert json.loads(json.dumps(state)) == state
        assert LIMITS.smallest <= choice.batch_size <= LIMITS.largest
        assert size / 4 - 1 <= choice.batch_size <= size * 4 + 1
        assert 0 < choice.rate_factor < math.inf
        size = choice.batch_size


@pytest.mark.parametrize("name", CONTROLLERS)
def test_while_it_cannot_tell_all_stays_as_it_is(name: str) -> None:
    controller = MADE[name](LIMITS)
    if controller.needs:
        assert controller.choose(controller.begin(), seen(size=48))[0].batch_size == 48


@pytest.mark.parametrize("name", CONTROLLERS)
def test_limits_of_one_size_hold_it(name: str) -> None:
    controller = MADE[name](Limits(32, 32))
    state = controller.begin()
    for examples in range(0, 9000, 500):
        choice, state = controller.choose(state, everything(examples, 32, trace=1 + examples))
        assert choice.batch_size == 32


@pytest.mark.parametrize("name", CONTROLLERS)
def test_it_says_what_it_needs(name: str) -> None:
    """What it does not need changes nothing."""
    controller = MADE[name](LIMITS)
    for need, without in (
        ("loss", {"loss": None}),
        ("gradients", {"gradients": ()}),
        ("inner products", {"gradients": everything(3000, 64).gradients[:1]}),
        ("seconds", {"alpha_seconds": None, "beta_seconds": None}),
    ):
        if need not in controller.needs:
            told = everything(3000, 64)
            less = Seen(**{**vars(told), **without})
            assert controller.choose(controller.begin(), less)[0] == controller.choose(controller.begin(), told)[0]


# ------------------------------------------------------------------------------------------- what the sources say


def chosen(controller: Any, *sights: Seen) -> Choice:
    state, choice = controller.begin(), Choice(32)
    for told in sights:
        choice, state = controller.choose(state, told)
    return choice


def test_planned_sizes_and_rates() -> None:
    plan = Planned("64@1000, 256@5000*2")
    assert [chosen(plan, seen(examples)) for examples in (0, 999, 1000, 5000)] == [
        *(Choice(32), Choice(32), Choice(64), Choice(256, 2.0))
    ]
    with pytest.raises(InputError):
        Planned("soon")


def test_growth_in_place_of_decay_keeps_rate_over_batch() -> None:
    controller = InsteadOfDecay((1000, 2000, 3000), 5, Limits(1, 1000))
    found = [chosen(controller, seen(examples)) for examples in (0, 1000, 2000, 3000)]
    assert [choice.batch_size for choice in found] == [32, 160, 800, 1000]
    assert [choice.batch_size / choice.rate_factor for choice in found] == pytest.approx([32, 160, 800, 4000])


def test_the_noise_scale_is_followed() -> None:
    assert chosen(NoiseFollowing(), everything(640, 32)).batch_size == 100
    choice = chosen(NoiseFollowing(ratio=2), everything(640, 32))
    assert choice.batch_size == 200
    assert choice.rate_factor == pytest.approx((1 + 100 / 32) / (1 + 100 / 200))


def test_an_average_of_terms_is_followed_and_not_one_of_ratios() -> None:
    told = [everything(640 * k, 32, squared=4.0 if k % 2 else 0.01) for k in range(1, 9)]
    expected = 100 / (sum((4.0 if k % 2 else 0.01) for k in range(1, 9)) / 8)
    assert chosen(NoiseFollowing(memory_examples=1e9), *told).batch_size == round(expected)


def test_old_gradients_are_forgotten() -> None:
    told = [everything(1000, 32, trace=1000), everything(100_000, 32, trace=50)]
    assert chosen(NoiseFollowing(memory_examples=5000), *told).batch_size == 50


def test_goodput_is_most_where_it_says() -> None:
    size = chosen(Goodput(), everything(640, 32)).batch_size
    assert size == round(math.sqrt(1e-3 * 100 / 1e-5))

    def progress(b: int) -> float:
        return b / (1e-3 + 1e-5 * b) * (100 + 32) / (100 + b)

    assert max(range(1, 1000), key=progress) == size


def test_the_tuned_goodput_is_that_of_four_times_the_noise_and_its_rate_that_of_the_moment() -> None:
    told = [everything(640 * k, 32) for k in range(1, 6)]
    assert chosen(TunedGoodput(), *told[:2]) == Choice(32)  # two samples have no error worth the name
    choice = chosen(TunedGoodput(), *told)
    assert choice.batch_size == round(math.sqrt(1e-3 * 400 / 1e-5))
    assert choice.rate_factor == pytest.approx((1 + 400 / 32) / (1 + 400 / choice.batch_size))


def test_the_first_rate_is_for_the_noise_of_all_so_far() -> None:
    """Of a batch that may not change, as the noise grows a hundredfold; against a slow reckoning of every average."""
    memory, examples = 200.0, np.arange(10, 3010, 10)
    traces = np.where(examples < 1500, 100.0, 10_000.0)
    told = [everything(int(n), 32, trace=trace) for n, trace in zip(examples, traces, strict=True)]
    choice = chosen(TunedGoodput(ratio=1.0, memory_examples=memory, limits=Limits(32, 32)), *told)
    noise = []
    for k in range(2, len(examples)):
        weights = np.exp(-(examples[k] - examples[: k + 1]) / memory)
        noise.append(np.average(traces[: k + 1], weights=weights))
    expected = math.exp(np.mean(np.log(1 + np.array(noise) / 32))) / (1 + noise[-1] / 32)
    assert choice.rate_factor == pytest.approx(expected)
    assert 0.05 < choice.rate_factor < 0.2


def test_a_gradient_that_scatters_is_taken_to_be_larger_by_its_error() -> None:
    squares = [3.0, 0.5, 2.0, 1.5, 4.0]
    told = [everything(640 * (k + 1), 32, squared=squared) for k, squared in enumerate(squares)]
    for caution in (0.5, 1.0, 2.0):
        choice = chosen(TunedGoodput(ratio=1.0, caution=caution, memory_examples=1e12), *told)
        gradient_squared = np.mean(squares) + caution * np.std(squares, ddof=1) / math.sqrt(len(squares))
        assert choice.batch_size == round(math.sqrt(1e-3 * 100 / gradient_squared / 1e-5))


def test_a_gradient_that_cannot_be_told_from_zero_holds_the_tuned_goodput() -> None:
    told = [everything(640 * k, 32, squared=-1.0) for k in range(1, 9)]
    assert chosen(TunedGoodput(), *told) == Choice(32)
    known = [everything(640 * k, 32) for k in range(1, 9)]
    nothing = [everything(10**9 * k, 50, squared=-1.0) for k in range(1, 9)]
    assert chosen(TunedGoodput(), *known, *nothing) == Choice(50, chosen(TunedGoodput(), *known).rate_factor)


@pytest.mark.parametrize("theta", [0.5, 1.0, 2.0])
def test_the_norm_test_passes_from_the_noise_scale_over_theta_squared(theta: float) -> None:
    choice = chosen(NormTest(theta), everything(640, 8))
    assert choice.batch_size == max(8, math.ceil(100 / theta**2))
    assert 100 / choice.batch_size <= theta**2 * 1.0 + 1e-9
    assert chosen(NormTest(theta), everything(640, 5000)).batch_size == 5000  # it never shrinks


@pytest.mark.parametrize("theta", [0.5, 0.9])
def test_the_inner_product_test_asks_for_the_noise_along_the_gradient(theta: float) -> None:
    told = everything(640, 4, squared=2.0, trace=100.0, share=0.1)
    size = chosen(InnerProductTest(theta), told).batch_size
    # G^T Sigma G is a tenth of the trace, 10, times |G|^2 = 2; |G|^4 is 4.
    assert size == math.ceil(10 * 2 / (theta**2 * 4))
    assert 10 * 2 / size <= theta**2 * 4 + 1e-9
    assert chosen(InnerProductTest(theta), everything(640, 5000)).batch_size == 5000  # it never shrinks


def test_with_nu_the_orthogonality_test_is_passed_too() -> None:
    told = everything(640, 8, squared=2.0, trace=100.0, share=0.1)
    # 90 of the trace lie across the gradient.
    assert chosen(InnerProductTest(theta=0.9, nu=0.5), told).batch_size == 90 / 0.5**2 / 2
    assert chosen(InnerProductTest(theta=0.9, nu=50), told) == chosen(InnerProductTest(theta=0.9), told)


def test_noise_alike_in_all_directions_is_one_part_in_their_number() -> None:
    """Of isotropic noise in d dimensions the test asks for a d-th of what the norm test does."""
    told = everything(640, 2, trace=1000.0, share=1 / 50)
    assert chosen(InnerProductTest(theta=1.0), told).batch_size * 50 == chosen(NormTest(theta=1.0), told).batch_size


def test_without_a_gradient_batches_grow_as_far_as_they_may() -> None:
    limits = Limits(1, 4096, most_change=2)
    for controller in (
        NormTest(limits=limits),
        InnerProductTest(limits=limits),
        InnerProductTest(nu=2, limits=limits),
        NoiseFollowing(limits=limits),
        Goodput(limits=limits),
    ):
        assert chosen(controller, everything(640, 32, squared=-0.1)).batch_size == 64


def test_cabs_is_rate_times_trace_over_loss() -> None:
    assert chosen(CABS(), everything(640, 32, trace=5000, loss=2.5)).batch_size == round(0.1 * 5000 / 2.5)


def test_adadamp_grows_as_the_loss_falls() -> None:
    assert chosen(AdaDamp(), seen(0, loss=2.0), seen(64, loss=0.5)).batch_size == 128
    assert chosen(AdaDamp(least_loss=0.4), seen(0, loss=2.0), seen(64, loss=0.5)).batch_size == 512
    held = chosen(AdaDamp(limits=Limits(1, 64)), seen(0, loss=2.0), seen(64, loss=0.5))
    assert held == Choice(64, 0.5)


def test_the_clocks_of_the_damping_family() -> None:
    assert chosen(PadaDamp(0.5), seen(steps=100)).batch_size == 82
    assert [chosen(GeoDamp(1000, 2), seen(n)).batch_size for n in (999, 1000, 3000)] == [32, 64, 256]


def test_radadamp_is_the_mean_of_two_ratios() -> None:
    told = everything(100, 32, squared=4.0, loss=2.0), everything(10**9, 32, squared=1.0, loss=1.0)
    assert chosen(RadaDamp(), *told).batch_size == round(32 / ((0.5 + 0.25) / 2))


@given(st.floats(0, 1e9), st.integers(1, 10_000), st.floats(1.01, 10))
def test_a_size_changes_by_no_more_than_it_may_and_never_stays_for_being_small(
    wanted: float, now: int, most: float
) -> None:
    size = Limits(1, 8192, most).within(wanted, now)
    assert 1 <= size <= 8192
    if now <= 8192:
        assert min(now - 1, now / most) <= size <= max(now + 1, now * most)
        assert abs(size - wanted) <= max(abs(now - wanted), 0.5)
        if abs(wanted - now) >= 1 and 1 <= wanted <= 8192:
            assert size != now


@pytest.mark.parametrize("limits", [(0, 10), (20, 10)])
def test_limits_that_nothing_lies_within_are_refused(limits: tuple[int, int]) -> None:
    with pytest.raises(InputError):
        Limits(*limits)
    with pytest.raises(InputError):
        Limits(1, 10, most_change=1.0)
