"""The monitor of any loop: what it samples is right, training stays what it was, and it leaves nothing behind."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from rightbatch.errors import InputError
from rightbatch.gradients.exact import per_example_gradients
from rightbatch.gradients.metrics import metric_of
from rightbatch.gradients.monitor import NoiseScale
from rightbatch.optim.emso import EMSO
from rightbatch.optim.linear import LinearBatch

GENERATOR = torch.Generator().manual_seed(2)
X = torch.randn(60, 6, generator=GENERATOR, dtype=torch.float64)
Y = (X[:, :2].sum(dim=1) > 0).long()


def network(*more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), *more, nn.Tanh(), nn.Linear(8, 2)).double()


class Recurrent(nn.Module):
    """A GRU, which has no rule, and a layer that has one."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(2, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(x.reshape(len(x), 3, 2))[0][:, -1])


class Gated(nn.Module):
    """One parameter, no rule, and half of its input handed over behind its back."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.gate = nn.Parameter(torch.ones(8)), torch.ones(())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale * self.gate


class Unrepeatable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.gated, self.head = nn.Linear(6, 8), Gated(), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.gated.gate = x[:, :1].tanh()
        return self.head(self.gated(self.first(x)))


def unrepeatable() -> nn.Module:
    torch.manual_seed(0)
    return Unrepeatable().double()


def recurrent() -> nn.Module:
    torch.manual_seed(0)
    return Recurrent().double()


def train(
    model: nn.Module,
    *,
    steps: int = 12,
    micro_batches: int = 1,
    watched: Callable[..., NoiseScale] | None = None,
    clip: float | None = None,
    called: nn.Module | None = None,
) -> NoiseScale | None:
    """A plain loop over batches of 12; the monitor is all that is added to it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    monitor = watched(called or model, optimizer) if watched else None
    order = torch.Generator().manual_seed(1)
    for _ in range(steps):
        chosen = torch.randperm(60, generator=order)[:12]
        optimizer.zero_grad()
        for part in chosen.chunk(micro_batches):
            loss = nn.functional.cross_entropy((called or model)(X[part]), Y[part])
            (loss / micro_batches).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return monitor


def lightning_like(model: nn.Module, optimizer: torch.optim.Optimizer, *, zero_first: bool) -> None:
    """Micro-batches of 4, the last of three in a closure, which sets gradients to zero where it is the first."""
    order = torch.Generator().manual_seed(1)
    for _ in range(4):
        parts = torch.randperm(60, generator=order)[:12].chunk(3)
        for k, part in enumerate(parts):

            def closure(k: int = k, part: torch.Tensor = part) -> torch.Tensor:
                loss = nn.functional.cross_entropy(model(X[part]), Y[part]) / 3
                if k == 0:
                    optimizer.zero_grad(set_to_none=zero_first)
                loss.backward()
                return loss

            optimizer.step(closure) if k == 2 else closure()


def every(model: nn.Module, optimizer: torch.optim.Optimizer, **how: Any) -> NoiseScale:
    return NoiseScale(model, optimizer, overhead=math.inf, **how)


def hooks_of(model: nn.Module) -> int:
    """All hooks that stand on a model and its parameters."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    own = sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)
    return own + sum(
        len(getattr(p, kind) or ())
        for p in model.parameters()
        for kind in ("_backward_hooks", "_post_accumulate_grad_hooks")
    )


def expected_first(model: nn.Module, parts: list[torch.Tensor] | None = None) -> tuple[float, float]:
    """|g|^2 and sum |c_i|^2 of the first batch, by the twin; of micro-batches where `parts` are given."""
    chosen = torch.randperm(60, generator=torch.Generator().manual_seed(1))[:12]

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    each = per_example_gradients(model, loss, (X[chosen], Y[chosen]))
    whole = sum(float((g.sum(dim=0) ** 2).sum()) for g in each.values())
    if parts is None:
        return whole, sum(float((g**2).sum()) for g in each.values())
    return whole, sum(float((g[part].sum(dim=0) ** 2).sum()) for g in each.values() for part in parts)


@pytest.mark.parametrize("clip", [None, 0.01])
def test_the_parts_are_the_examples_where_all_layers_have_a_rule(clip: float | None) -> None:
    monitor = train(network(), watched=every, clip=clip)
    assert monitor is not None
    batch, parts = expected_first(network())
    first = monitor.samples[0]
    assert first.batch_squared == pytest.approx(batch, rel=1e-9)  # before it was clipped
    assert first.parts_squared == pytest.approx(parts, rel=1e-9)
    assert first.shares_squared == pytest.approx(1 / 12)
    assert [sample.step for sample in monitor.samples] == list(range(12))
    assert {(sample.batch_size, sample.learning_rate) for sample in monitor.samples} == {(12, 0.1)}
    assert not monitor.uncovered
    assert monitor.estimate().samples == 12
    assert monitor.estimate(last=5).steps == (7, 11)


@pytest.mark.parametrize("micro_batches", [2, 3])
def test_with_accumulation_the_parts_are_examples_of_all_passes(micro_batches: int) -> None:
    monitor = train(network(), micro_batches=micro_batches, watched=every)
    assert monitor is not None
    batch, parts = expected_first(network())
    assert monitor.samples[0].batch_size == 12
    assert monitor.samples[0].batch_squared == pytest.approx(batch, rel=1e-9)
    assert monitor.samples[0].parts_squared == pytest.approx(parts, rel=1e-9)


@pytest.mark.parametrize(
    "make", [unrepeatable, lambda: network(nn.BatchNorm1d(8))], ids=["not repeatable", "mixed examples"]
)
def test_with_accumulation_any_layer_can_be_watched(make: Callable[[], nn.Module]) -> None:
    monitor = train(make(), micro_batches=3, watched=every)
    assert monitor is not None
    assert not monitor.uncovered
    assert monitor.samples[0].shares_squared == pytest.approx(1 / 3)
    if isinstance(make(), Unrepeatable):
        batch, parts = expected_first(make(), list(torch.arange(12).chunk(3)))
        assert monitor.samples[0].batch_squared == pytest.approx(batch, rel=1e-9)
        assert monitor.samples[0].parts_squared == pytest.approx(parts, rel=1e-9)


def test_without_accumulation_what_is_not_covered_is_named_and_left_out_of_both_terms() -> None:
    monitor = train(unrepeatable(), watched=every)
    assert monitor is not None
    assert monitor.uncovered == {"gated.scale": "Gated has no rule, nor can it be run again (RuntimeError)"}
    without = unrepeatable()
    without.gated.scale.requires_grad_(False)
    batch, parts = expected_first(without)
    assert monitor.samples[0].batch_squared == pytest.approx(batch, rel=1e-9)
    assert monitor.samples[0].parts_squared == pytest.approx(parts, rel=1e-9)


def test_modules_without_a_rule_are_run_again() -> None:
    batch, _ = expected_first(recurrent())
    monitor = train(recurrent(), watched=every)
    assert monitor is not None
    assert not monitor.uncovered
    assert monitor.samples[0].batch_squared == pytest.approx(batch, rel=1e-9)
    assert monitor.samples[0].shares_squared == pytest.approx(1 / 12)


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("make", [network, recurrent])
def test_training_is_the_same_to_the_bit_and_no_hook_is_left(make: Callable[[], nn.Module], micro_batches: int) -> None:
    plain, watched = make(), make()
    train(plain, micro_batches=micro_batches)
    monitor = train(watched, micro_batches=micro_batches, watched=every)
    assert monitor is not None
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), watched.parameters(), strict=True))
    monitor.close()
    monitor.close()
    assert hooks_of(watched) == hooks_of(plain) == 0


def test_a_share_of_the_steps_is_sampled() -> None:
    monitor = train(network(), steps=300, watched=lambda m, o: NoiseScale(m, o, overhead=0.1))
    assert monitor is not None
    assert 0 < len(monitor.samples) < 100
    assert monitor.step == 300
    assert monitor.share < 0.3


def test_evaluation_between_steps_is_not_watched() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with every(model, optimizer) as monitor:
        for _ in range(5):
            model.eval()
            model(X)
            model.train()
            with torch.no_grad():
                model(X[:7])
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X[:8]), Y[:8]).backward()
            optimizer.step()
    assert [sample.batch_size for sample in monitor.samples] == [8] * 5


def test_batch_normalisation_without_accumulation_is_warned_of_and_training_goes_on() -> None:
    model = network(nn.BatchNorm1d(8))
    with pytest.warns(UserWarning, match="not watched any more.*BatchNorm|not watched any more.*normalises"):
        monitor = train(model, watched=every)
    assert monitor is not None
    assert not monitor.samples
    assert hooks_of(model) == 0


def test_two_forward_passes_for_one_backward_are_warned_of() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = every(model, optimizer)
    with pytest.warns(UserWarning, match="called more than once for one backward"):
        (model(X[:5]).sum() + model(X[5:10]).sum()).backward()
    optimizer.step()
    assert not monitor.samples
    assert hooks_of(model) == 0


def test_two_backward_passes_through_one_forward_pass_are_warned_of() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = every(model, optimizer)
    loss = nn.functional.cross_entropy(model(X[:5]), Y[:5])
    loss.backward(retain_graph=True)
    loss.backward()
    with pytest.warns(UserWarning, match="not watched any more.*more than once"):
        optimizer.step()
    assert not monitor.samples
    assert hooks_of(model) == 0


def test_a_checkpoint_goes_on_with_the_same_samples() -> None:
    monitor = train(network(), watched=every)
    assert monitor is not None
    file = io.BytesIO()
    torch.save(monitor.state_dict(), file)
    file.seek(0)
    model = network()
    other = every(model, torch.optim.SGD(model.parameters(), lr=0.1))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert (other.samples, other.step) == (monitor.samples, monitor.step)
    assert other.estimate() == monitor.estimate()


def test_a_compiled_model_is_watched_and_not_compiled_anew() -> None:
    compiled_times = 0

    def backend(module: Any, inputs: Any) -> Any:
        nonlocal compiled_times
        compiled_times += 1
        return module

    plain, model = network(), network()
    train(plain, steps=6)
    torch._dynamo.reset()
    monitor = train(model, steps=6, watched=every_other, called=torch.compile(model, backend=backend))
    assert monitor is not None
    assert compiled_times == 1
    assert 0 < len(monitor.samples) < 6
    assert not monitor.uncovered
    for p, q in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


def every_other(model: nn.Module, optimizer: torch.optim.Optimizer) -> NoiseScale:
    monitor = NoiseScale(model, optimizer, overhead=math.inf)
    turns = iter([False, True] * 100)
    monitor._rhythm.due = lambda: next(turns)  # type: ignore[method-assign]
    return monitor


@pytest.mark.parametrize("overflows", [False, True])
def test_with_a_gradient_scaler_terms_are_those_without_it(overflows: bool) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    monitor = every(model, optimizer, scaler=scaler)
    order = torch.Generator().manual_seed(1)
    for step in range(12):
        chosen = torch.randperm(60, generator=order)[:12]
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X[chosen]), Y[chosen])
        scaler.scale(loss * math.inf if overflows and step == 3 else loss).backward()
        scaler.step(optimizer)
        scaler.update()
    plain = train(network(), watched=every)
    assert plain is not None
    assert len(monitor.samples) == 12 - overflows
    for ours, theirs in list(zip(monitor.samples, plain.samples, strict=False))[:3]:
        assert ours.batch_squared == pytest.approx(theirs.batch_squared, rel=1e-9)
        assert ours.parts_squared == pytest.approx(theirs.parts_squared, rel=1e-9)


def test_too_few_samples_and_a_share_that_is_none_are_refused() -> None:
    monitor = train(network(), steps=3, watched=every)
    assert monitor is not None
    with pytest.raises(InputError, match="So far 3 of 3 steps were sampled"):
        monitor.estimate()
    with pytest.raises(InputError, match="positive share"):
        NoiseScale(network(), torch.optim.SGD(network().parameters(), lr=0.1), overhead=0)


# --------------------------------------------------------------------------------------- what is asked for on request


def test_each_layer_has_its_own_noise_scale_and_their_terms_add_up() -> None:
    monitor = train(recurrent(), watched=lambda model, optimizer: every(model, optimizer, per_layer=True))
    assert monitor is not None
    layers = monitor.layers()
    assert set(layers) == {"gru", "head"}
    whole = monitor.estimate()
    for term in ("gradient_squared", "noise_trace"):
        found = sum(getattr(layer, term).estimate for layer in layers.values())
        assert found == pytest.approx(getattr(whole, term).estimate, rel=1e-9)
    with pytest.raises(InputError, match="per_layer=True"):
        every(model := network(), torch.optim.SGD(model.parameters(), lr=0.1)).layers()


def test_examples_count_by_their_weights() -> None:
    model, weights = network(), torch.arange(1.0, 13.0, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = every(model, optimizer)
    losses = nn.functional.cross_entropy(model(X[:12]), Y[:12], reduction="none")
    ((losses * weights).sum() / weights.sum()).backward()
    monitor.weigh(weights)
    optimizer.step()
    (sample,) = monitor.samples
    assert sample.shares_squared == pytest.approx(float((weights**2).sum() / weights.sum() ** 2))

    def loss(model: nn.Module, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        found = nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
        return (found * batch[2]).sum(), batch[2].sum()

    each = per_example_gradients(network(), loss, (X[:12], Y[:12], weights))
    assert sample.parts_squared == pytest.approx(sum(float((g**2).sum()) for g in each.values()), rel=1e-9)


def test_what_a_board_is_told() -> None:
    class Board(dict[str, float]):
        def add_scalar(self, tag: str, value: float, step: int) -> None:
            assert step == 12
            self[tag] = value

    monitor, board = train(network(), watched=every), Board()
    assert monitor is not None
    monitor.write(board)
    found = monitor.estimate()
    assert board["noise_scale/plain/estimate"] == found.scale.estimate
    assert board["noise_scale/plain/gradient_squared"] == found.gradient_squared.estimate
    train(network(), steps=3, watched=every).write(fewer := Board())  # type: ignore[union-attr]
    assert not fewer


def test_the_metric_of_adam_beside_the_plain_one() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    monitor = every(model, optimizer)
    expected = []
    for _ in range(6):
        twin = network()
        twin.load_state_dict(model.state_dict())
        each = per_example_gradients(twin, lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]), (X[:8], Y[:8]))
        if (metric := metric_of(optimizer)) is not None:
            weights = {name: metric[p] for name, p in model.named_parameters()}
            expected.append(
                (
                    sum(float((weights[name] * g.sum(0) ** 2).sum()) for name, g in each.items()),
                    sum(float((weights[name] * g**2).sum()) for name, g in each.items()),
                )
            )
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X[:8]), Y[:8]).backward()
        optimizer.step()
    found = [(s.batch_squared, s.parts_squared) for s in monitor._series["preconditioned"]]
    assert found == [pytest.approx(pair, rel=1e-9) for pair in expected]
    assert len(found) == 5  # there is no metric before the first step
    assert monitor.estimate(preconditioned=True).scale != monitor.estimate().scale
    sgd = every(network(), torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(InputError, match=r"metric of SGD is not known.*Adam"):
        sgd.estimate(preconditioned=True)


def by_closure(
    make: Callable[[Any], torch.optim.Optimizer], *, before: bool = False, watch: bool = True
) -> tuple[nn.Module, NoiseScale | None]:
    """The same batches as `train` has, solved by an optimizer that takes a closure."""
    model = network()
    optimizer = make(model.parameters())
    monitor = every(model, optimizer) if watch else None
    order = torch.Generator().manual_seed(1)
    for _ in range(6):
        chosen = torch.randperm(60, generator=order)[:12]

        def closure(chosen: torch.Tensor = chosen) -> torch.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(X[chosen]), Y[chosen])
            loss.backward()
            return loss

        if before:  # looked at for its own sake
            model(X[:3])
        optimizer.step(closure)
    return model, monitor


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        lambda parameters: torch.optim.LBFGS(parameters, lr=0.1, max_iter=4),
        lambda parameters: EMSO(parameters, lr=0.1, gamma=1.0, inner_steps=5),
        lambda parameters: EMSO(parameters, lr=0.1, gamma=1.0, inner="l-bfgs"),
    ],
)
def test_of_a_step_with_a_closure_the_first_evaluation_is_seen(make: Any, before: bool) -> None:
    model, monitor = by_closure(make, before=before)
    assert monitor is not None
    batch, parts = expected_first(network())
    first = monitor.samples[0]
    assert first.batch_squared == pytest.approx(batch, rel=1e-9)
    assert first.parts_squared == pytest.approx(parts, rel=1e-9)
    assert [(sample.step, sample.batch_size) for sample in monitor.samples] == [(step, 12) for step in range(6)]
    unwatched, _ = by_closure(make, watch=False)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), unwatched.parameters(), strict=True))


def test_coordinate_descent_gets_the_batch_that_it_was_given() -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 1).double()
    optimizer = EMSO(model.parameters(), lr=0.1, gamma=1.0, inner="coordinate-descent")
    with every(model, optimizer) as monitor:
        optimizer.step(LinearBatch(model, X[:12], Y[:12], "bernoulli"))
    assert monitor.step == 1
    assert optimizer.evaluations > 0


@pytest.mark.parametrize("zero_first", [True, False])
def test_micro_batches_before_a_closure_are_parts_of_its_step(zero_first: bool) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    monitor = every(model, optimizer)
    lightning_like(model, optimizer, zero_first=zero_first)
    expected = train(network(), steps=4, micro_batches=3, watched=every)
    assert expected is not None
    assert [s.batch_size for s in monitor.samples] == [12] * 4
    for one, other in zip(monitor.samples, expected.samples, strict=True):
        assert one.batch_squared == pytest.approx(other.batch_squared, rel=1e-9)
        assert one.parts_squared == pytest.approx(other.parts_squared, rel=1e-9)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_closure_that_begins_anew_has_a_step_of_its_own(set_to_none: bool) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = every(model, optimizer)
    chosen = torch.randperm(60, generator=torch.Generator().manual_seed(1))[:12]

    def closure() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=set_to_none)
        loss = nn.functional.cross_entropy(model(X[chosen]), Y[chosen])
        loss.backward()
        return loss

    model(X[:7]).square().sum().backward()
    optimizer.step(closure)
    batch, parts = expected_first(network())
    assert (monitor.samples[0].batch_size, monitor.samples[0].batch_squared) == (12, pytest.approx(batch, rel=1e-9))
    assert monitor.samples[0].parts_squared == pytest.approx(parts, rel=1e-9)
