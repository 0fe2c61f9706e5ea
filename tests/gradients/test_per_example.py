"""Squared norms of whole models against one backward pass for each example, and that training never notices."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from rightbatch.errors import InputError, WorkloadError
from rightbatch.gradients import rows
from rightbatch.gradients.exact import exact_noise, per_example_gradients, trained
from rightbatch.gradients.per_example import PerExampleNorms
from rightbatch.losses import mean_loss

EXAMPLES, LENGTH, VOCABULARY, WIDTH = 6, 5, 11, 8


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.cell = kind(WIDTH, WIDTH, batch_first=True)
        self.output = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, x):
        return self.output(self.cell(self.embedding(x))[0])


class Transformer(nn.Module):
    """One head, one block, of plain modules; the output layer shares its weight with the embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.projections = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.wide = nn.Sequential(nn.Linear(WIDTH, 3 * WIDTH), nn.ReLU(inplace=True), nn.Linear(3 * WIDTH, WIDTH))
        self.output = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, x):
        x = self.embedding(x)
        q, k, v = (
            projection(self.norms[0](x)) for projection in self.projections
        )  # one layer norm, called three times
        x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(x + self.wide(self.norms[1](x)))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.encoder = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True)
        self.output = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, x):
        return self.output(self.encoder(self.embedding(x)))


class Twice(nn.Module):
    """One layer, called twice, on inputs of different lengths."""

    def __init__(self, layer, first, second):
        super().__init__()
        self.layer, self.first, self.second = layer, first, second

    def forward(self, x):
        return self.second(self.layer, self.first(self.layer, x))


class Shared(nn.Module):
    """Two layers with one weight."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)
        layers[-1].weight = layers[0].weight

    def forward(self, x):
        return self.layers(x)


def convolutional():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.GroupNorm(2, 4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 3, padding="same", dilation=2, groups=2, bias=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(6 * 16, 3),
    )


def per_example(model, batch):
    return F.cross_entropy(model(batch[0]).flatten(1), batch[1], reduction="none")


def mean(model, batch):
    return F.cross_entropy(model(batch[0]).flatten(1), batch[1])


def total(model, batch):
    losses = per_example(model, batch)
    return losses.sum(), len(losses)


def token_mean(model, batch):
    """Tokens that are masked by -1 do not count: the mean over the tokens of the batch."""
    tokens, following = batch
    summed = F.cross_entropy(model(tokens).flatten(0, 1), following.flatten(), ignore_index=-1, reduction="sum")
    return summed, (following >= 0).sum()


def vectors(*shape, classes=3):
    return lambda: (torch.randn(EXAMPLES, *shape, dtype=torch.float64), torch.randint(classes, (EXAMPLES,)))


def tokens():
    """Sequences of different lengths, masked beyond; the last one has no token left."""
    found = torch.randint(VOCABULARY, (EXAMPLES, LENGTH + 1))
    following = found[:, 1:].clone()
    for i, kept in enumerate([5, 4, 3, 2, 1, 0]):
        following[i, kept:] = -1
    return found[:, :-1], following


def mlp():
    return nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 9, bias=False), nn.Tanh(), nn.Linear(9, 3))


CASES = {
    "MLP": (mlp, per_example, vectors(7)),
    "MLP, mean": (mlp, mean, vectors(7)),
    "MLP, total": (mlp, total, vectors(7)),
    "CNN": (convolutional, per_example, vectors(2, 8, 8)),
    "CNN in one dimension": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3, stride=2), nn.SiLU(), nn.Conv1d(4, 3, 5)),
        per_example,
        vectors(2, 12),
    ),
    "GRU": (lambda: Recurrent(nn.GRU), token_mean, tokens),
    "LSTM": (lambda: Recurrent(nn.LSTM), token_mean, tokens),
    "transformer with tied embeddings": (Transformer, token_mean, tokens),
    "transformer of torch": (Encoder, token_mean, tokens),
    "linear called twice": (
        lambda: Twice(nn.Linear(7, 7), lambda layer, x: layer(x).tanh(), lambda layer, x: layer(x[:, :3])),
        per_example,
        vectors(4, 7, classes=21),
    ),
    "linear called with and without positions": (
        lambda: Twice(nn.Linear(7, 7), lambda layer, x: layer(x).tanh(), lambda layer, x: layer(x.sum(1))),
        per_example,
        vectors(4, 7),
    ),
    "linear called on two vectors": (
        lambda: Twice(nn.Linear(7, 7), lambda layer, x: layer(x).tanh(), lambda layer, x: layer(x)),
        per_example,
        vectors(7),
    ),
    "convolution called twice": (
        lambda: Twice(
            nn.Conv2d(2, 2, 3, padding=1, groups=2),
            lambda layer, x: layer(x).tanh(),
            lambda layer, x: layer(x[:, :, 2:]),
        ),
        per_example,
        vectors(2, 6, 4),
    ),
    "norm called twice": (
        lambda: Twice(nn.LayerNorm(7), lambda layer, x: layer(x).exp(), lambda layer, x: layer(x.sum(1))),
        per_example,
        vectors(4, 7),
    ),
    "embeddings that share": (
        lambda: Twice(
            nn.Embedding(7, 4),
            lambda layer, x: (x, layer(x)),
            lambda layer, xs: layer(xs[0][:, 1:]).sum(1) * xs[1].sum(1),
        ),
        per_example,
        lambda: (torch.randint(7, (EXAMPLES, 4)), torch.randint(3, (EXAMPLES,))),
    ),
    "layers that share": (
        lambda: Shared(nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, 7, bias=False)),
        per_example,
        vectors(3, 7),
    ),
}


def prepared(case):
    make, loss, draw = CASES[case]
    torch.manual_seed(0)
    return make().double(), loss, draw()


def norms_of(model, loss, batch, examples=EXAMPLES):
    model.zero_grad()
    with PerExampleNorms(model, examples) as norms:
        mean_loss(loss(model, batch), examples).backward()
    return norms


def contributions_by_rows(model, loss, batch):
    """The contributions of examples to a gradient, `[examples, d]` a parameter, from `gradient_rows`."""
    found, weights = (torch.cat(parts) for parts in zip(*rows.gradient_rows(model, loss, batch), strict=True))
    parameters = trained(model)
    parts = (found / weights.sum()).split([parameter.numel() for parameter in parameters.values()], dim=1)
    return dict(zip(parameters, parts, strict=True))


def squares(exact, names):
    return sum(exact[name].flatten(1).square().sum(1) for name in names)


@pytest.mark.parametrize("case", CASES)
def test_norms_are_those_of_a_backward_pass_for_each_example(case):
    model, loss, batch = prepared(case)
    norms = norms_of(model, loss, batch)
    exact = per_example_gradients(model, loss, batch)
    assert {*norms.covered, *norms.uncovered} == set(exact)
    expected = {"GRU": "cell.", "LSTM": "cell.", "transformer of torch": "encoder.self_attn."}.get(case)
    assert all(expected is not None and name.startswith(expected) for name in norms.uncovered), norms.uncovered
    for name, squared in norms.by_parameter().items():
        torch.testing.assert_close(squared, squares(exact, [name]), rtol=1e-9, atol=1e-20, msg=name)
    torch.testing.assert_close(norms.squared(), squares(exact, norms.covered), rtol=1e-9, atol=1e-20)
    # What no layer has a rule for is had from the rows; the two together are the whole.
    rest = squares(contributions_by_rows(model, loss, batch), norms.uncovered)
    torch.testing.assert_close(norms.squared() + rest, squares(exact, exact), rtol=1e-9, atol=1e-20)


@pytest.mark.parametrize("case", CASES)
def test_the_rows_are_the_same_gradients(case):
    model, loss, batch = prepared(case)
    exact = per_example_gradients(model, loss, batch)
    found = contributions_by_rows(model, loss, batch)
    torch.testing.assert_close(squares(found, exact), squares(exact, exact), rtol=1e-9, atol=1e-20)
    for name, gradients in exact.items():
        torch.testing.assert_close(found[name], gradients.flatten(1), rtol=1e-9, atol=1e-13, msg=name)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("case", ["MLP, total", "CNN", "transformer with tied embeddings"])
def test_the_rows_are_made_many_at_once_where_the_layers_can(case, monkeypatch):
    monkeypatch.setattr(rows, "each_example", None)
    model, loss, batch = prepared(case)
    assert all(part.isfinite().all() for part in contributions_by_rows(model, loss, (batch[0], batch[1])).values())


@pytest.mark.parametrize("case", CASES)
def test_the_contributions_add_up_to_the_gradient(case):
    model, loss, batch = prepared(case)
    mean_loss(loss(model, batch), EXAMPLES).backward()
    exact = per_example_gradients(model, loss, batch)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(exact[name].sum(0), parameter.grad, rtol=1e-9, atol=1e-13)


def test_a_sum_has_contributions_as_many_times_as_large_as_a_mean():
    model, loss, batch = prepared("MLP")
    means = norms_of(model, loss, batch).squared()
    with PerExampleNorms(model, EXAMPLES) as norms:
        loss(model, batch).sum().backward()
    torch.testing.assert_close(norms.squared(), EXAMPLES**2 * means, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_the_same_to_the_bit(case):
    model, loss, batch = prepared(case)
    model = model.float()
    batch = tuple(part.float() if part.is_floating_point() else part for part in batch)
    plain = copy.deepcopy(model)
    for _ in range(2):  # the second adds to what is there
        mean_loss(loss(plain, batch), EXAMPLES).backward()
        with PerExampleNorms(model, EXAMPLES):
            mean_loss(loss(model, batch), EXAMPLES).backward()
    for with_norms, without in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(with_norms.grad, without.grad)


def test_what_was_in_grad_before_does_not_matter():
    model, loss, batch = prepared("CNN")
    first = norms_of(model, loss, batch).squared()
    with PerExampleNorms(model, EXAMPLES) as norms:
        mean_loss(loss(model, batch), EXAMPLES).backward()
    assert torch.equal(norms.squared(), first)


def test_frozen_and_unused_parameters_are_neither_covered_nor_uncovered():
    model, loss, batch = prepared("MLP")
    model[0].weight.requires_grad_(False)
    model[4].requires_grad_(False)
    model.add_module("aside", nn.Identity())
    model.aside.unused = nn.Linear(3, 3)
    norms = norms_of(model, loss, batch)
    assert set(norms.covered) == {"0.bias", "2.weight"}
    assert norms.uncovered == {}
    exact = per_example_gradients(model, loss, batch)
    torch.testing.assert_close(norms.squared(), squares(exact, norms.covered), rtol=1e-9, atol=0.0)


def test_with_the_same_dropout_mask_as_the_pass():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(7, 9), nn.Dropout(0.5), nn.Linear(9, 3)).double(), torch.randn(4, 7).double()
    torch.manual_seed(1)
    with PerExampleNorms(model, 4) as norms:
        model(x).square().sum().backward()
    torch.manual_seed(1)
    mask = F.dropout(torch.ones(4, 9).double(), 0.5)
    exact = per_example_gradients(model, lambda m, b: 4 * m[2](m[0](b[0]) * b[1]).square().sum(1), (x, mask))
    torch.testing.assert_close(norms.squared(), squares(exact, exact), rtol=1e-9, atol=0.0)


# ----------------------------------------------------------------------------------------------- what is not covered


class Functional(nn.Module):
    """Its output layer is called as a function, with the weight of the embedding."""

    def __init__(self, share):
        super().__init__()
        self.embedding, self.layer, self.share = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, WIDTH), share

    def forward(self, x):
        x = self.layer(self.embedding(x))
        return x @ self.layer.weight[: int(self.share * WIDTH)].T if self.share else F.linear(x, self.embedding.weight)


@pytest.mark.parametrize("precision", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("share", "name"), [(0, "embedding.weight"), (1, "layer.weight"), (0.25, "layer.weight")])
@pytest.mark.parametrize("examples", [2, 200])
def test_a_weight_that_is_used_outside_its_layer_too_is_noticed(precision, share, name, examples):
    torch.manual_seed(0)
    model, x = Functional(share).to(precision), torch.randint(VOCABULARY, (examples, LENGTH))
    with PerExampleNorms(model, examples) as norms:
        model(x).square().sum((1, 2)).mean().backward()
    assert set(norms.uncovered) == {name}
    assert "used outside its layer too" in norms.uncovered[name]
    assert len(norms.covered) == 2


@pytest.mark.parametrize("precision", [torch.float64, torch.float32, torch.bfloat16])
def test_rounding_is_not_taken_for_such_a_use(precision):
    for seed in range(20):
        torch.manual_seed(seed)
        model = Transformer().to(precision)
        x, following = torch.randint(VOCABULARY, (2, 32, LENGTH))
        with PerExampleNorms(model, 32) as norms:
            F.cross_entropy(model(x).flatten(0, 1), following.flatten()).backward()
        assert norms.uncovered == {}, seed


def test_a_gradient_that_a_hook_changes_is_noticed():
    model, loss, batch = prepared("MLP")
    model[2].weight.register_hook(lambda gradient: gradient * 0.9)
    assert list(norms_of(model, loss, batch).uncovered) == ["2.weight"]


def test_each_reason_is_said():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(VOCABULARY, WIDTH, scale_grad_by_freq=True)
            self.sparse = nn.Embedding(VOCABULARY, WIDTH, sparse=True)
            self.clipped = nn.Embedding(VOCABULARY, WIDTH, max_norm=1.0)
            self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
            self.flat, self.free = nn.Linear(WIDTH, 2), nn.Parameter(torch.ones(2))
            self.shared = nn.Linear(WIDTH, WIDTH)
            self.kernel = nn.Conv1d(WIDTH, WIDTH, 1, bias=False)

        def forward(self, x):
            x = self.tokens(x) + self.sparse(x) + self.clipped(x)
            x = self.shared(self.attention(x, x, x, need_weights=False)[0])
            return (self.flat(x.flatten(0, 1)) * self.free).sum() + self.kernel(x[0].T).sum()

    torch.manual_seed(0)
    model = Model()
    with PerExampleNorms(model, EXAMPLES) as norms:
        model(torch.randint(VOCABULARY, (EXAMPLES, LENGTH))).backward()
    assert set(norms.covered) == {"shared.weight", "shared.bias"}
    assert dict(norms.uncovered) == {
        "free": "Model has no rule",
        "tokens.weight": "its gradient is scaled by how often an index occurs in the batch",
        "sparse.weight": "its gradient is sparse",
        "clipped.weight": "its rows are renormalised in the forward pass",
        "attention.in_proj_weight": "MultiheadAttention has no rule",
        "attention.in_proj_bias": "MultiheadAttention has no rule",
        "attention.out_proj.weight": "used outside its layer",
        "attention.out_proj.bias": "used outside its layer",
        "flat.weight": "its input has 30 rows for 6 examples",
        "flat.bias": "its input has 30 rows for 6 examples",
        "kernel.weight": "its input has no dimension of examples",
    }


def test_uses_that_cannot_be_added_are_uncovered():
    torch.manual_seed(0)
    model = Shared(nn.Conv1d(2, 4, 3, groups=2), nn.Conv1d(4, 1, 1), nn.Conv1d(1, 4, 3)).double()
    x = torch.randn(EXAMPLES, 2, 9, dtype=torch.float64)
    with PerExampleNorms(model, EXAMPLES) as norms:
        model(x).square().sum().backward()
    assert norms.uncovered == {"layers.0.weight": "its layers use it in ways that cannot be added"}


def test_a_subclass_with_a_forward_of_its_own_has_no_rule():
    class Scaled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    with PerExampleNorms(model := Scaled(3, 2), EXAMPLES) as norms:
        model(torch.ones(EXAMPLES, 3)).sum().backward()
    assert norms.uncovered == {"weight": "Scaled has no rule", "bias": "Scaled has no rule"}
    assert norms.squared().tolist() == [0.0] * EXAMPLES


# ------------------------------------------------------------------------------------------- passes that are not plain


def hooks_left(model):
    modules = sum(len(module._forward_hooks) for module in model.modules())
    return modules + sum(len(parameter._backward_hooks or {}) for parameter in model.parameters())


@pytest.mark.parametrize("when", ["forward", "before backward", "after backward"])
def test_all_hooks_are_gone_afterwards(when):
    model, loss, batch = prepared("MLP")
    norms = PerExampleNorms(model, EXAMPLES)
    with pytest.raises(ZeroDivisionError), norms:  # noqa: PT012 - where it is raised is what varies
        assert hooks_left(model) > 0
        if when == "forward":
            model[0](batch[0])
            raise ZeroDivisionError
        value = mean_loss(loss(model, batch), EXAMPLES)
        if when == "after backward":
            value.backward()
        raise ZeroDivisionError
    assert hooks_left(model) == 0
    assert norms._capture._calls == {}
    if when == "after backward":
        assert len(norms.covered) == 5
    else:
        with pytest.raises(InputError, match="No gradient came"):
            norms.squared()


def test_a_backward_pass_after_it_was_left_adds_nothing():
    model, loss, batch = prepared("MLP")
    with PerExampleNorms(model, EXAMPLES) as norms:
        value = mean_loss(loss(model, batch), EXAMPLES)
    value.backward()
    with pytest.raises(InputError, match="No gradient came"):
        norms.squared()


def test_two_backward_passes_within_one_are_refused_and_one_each_time_is_not():
    model, loss, batch = prepared("MLP")
    with PerExampleNorms(model, EXAMPLES) as norms:
        for _ in range(2):
            mean_loss(loss(model, batch), EXAMPLES).backward()
    for read in (norms.squared, norms.by_parameter, lambda: norms.covered, lambda: norms.uncovered):
        with pytest.raises(InputError, match="more than once"):
            read()
    with norms:
        mean_loss(loss(model, batch), EXAMPLES).backward()
    exact = per_example_gradients(model, loss, batch)
    torch.testing.assert_close(norms.squared(), squares(exact, exact), rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_changes_nothing(reentrant):
    model, loss, batch = prepared("MLP")
    expected = norms_of(model, loss, batch)

    def checkpointed(model, batch):
        x = batch[0].clone().requires_grad_()
        return F.cross_entropy(model[3:](checkpoint(model[:3], x, use_reentrant=reentrant)), batch[1], reduction="none")

    norms = norms_of(model, checkpointed, batch)
    assert set(norms.covered) == set(expected.covered)
    torch.testing.assert_close(norms.squared(), expected.squared(), rtol=1e-12, atol=0.0)


def test_under_autocast():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(32, 64), nn.LayerNorm(64), nn.Linear(64, 8)), torch.randn(16, 4, 32)
    expected = norms_of(model, lambda m, x: m(x).square().sum((1, 2)), x, 16).squared()
    with PerExampleNorms(model, 16) as norms, torch.autocast("cpu", dtype=torch.bfloat16):
        model(x).float().square().sum((1, 2)).mean().backward()  # backward within autocast too
    assert norms.uncovered == {}
    assert norms.squared().dtype == torch.float32
    torch.testing.assert_close(norms.squared(), expected, rtol=0.05, atol=0.0)


# -------------------------------------------------------------------------------------------------------------- errors


def test_batch_normalisation_is_refused_by_name():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.BatchNorm1d(8))
    batch = (torch.randn(4, 1, 4, 4),)
    for use in (
        lambda: PerExampleNorms(model, 4).__enter__(),
        lambda: contributions_by_rows(model, lambda m, b: m(b[0]).sum(1), batch),
        lambda: per_example_gradients(model, lambda m, b: m(b[0]).sum(1), batch),
    ):
        with pytest.raises(InputError, match=r"1, 3 normalises.*micro-batches"):
            use()
    assert hooks_left(model) == 0
    norms_of(model.eval(), lambda m, x: m(x).square().sum(1), batch[0], 4).squared()
    model[1] = nn.BatchNorm2d(2, track_running_stats=False).eval()
    with pytest.raises(InputError, match="1 normalises"):
        PerExampleNorms(model, 4).__enter__()


def test_wrong_arguments_are_named():
    model, loss, batch = prepared("MLP")
    with pytest.raises(InputError, match="examples=0"):
        PerExampleNorms(model, 0)
    with pytest.raises(InputError, match="no examples"):
        contributions_by_rows(model, loss, 3)
    with pytest.raises(WorkloadError, match="without a gradient"):
        contributions_by_rows(model, lambda m, b: m(b[0]).detach().sum(1), batch)


# ------------------------------------------------------------------------------------------------------ the exact noise


def test_exact_noise_of_linear_regression_is_known():
    # With the loss (w x - y)^2 / 2 the gradient of an example is (w x - y) x.
    x, y = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([1.0, 0.0, 1.0]).double()
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    gradients = [0.0, 4.0, 6.0]
    noise = exact_noise(model, lambda m, b: (m(b[0][:, None])[:, 0] - b[1]).square() / 2, (x, y))
    average = sum(gradients) / 3
    assert noise.gradient_squared == pytest.approx(average**2, rel=1e-12)
    assert noise.covariance_trace == pytest.approx(sum((g - average) ** 2 for g in gradients) / 2, rel=1e-12)


@pytest.mark.parametrize("case", ["MLP", "MLP, total", "GRU", "transformer with tied embeddings"])
def test_exact_noise_is_the_covariance_of_the_gradients(case):
    model, loss, batch = prepared(case)
    exact = per_example_gradients(model, loss, batch)
    rows = EXAMPLES * torch.cat([gradients.flatten(1) for gradients in exact.values()], dim=1)
    noise = exact_noise(model, loss, batch)
    assert noise.gradient_squared == pytest.approx(float(rows.mean(0).square().sum()), rel=1e-10)
    assert noise.covariance_trace == pytest.approx(float(rows.var(0, correction=1).sum()), rel=1e-10)


def test_exact_noise_needs_two_examples():
    with pytest.raises(InputError, match="at least 2 examples, got 1"):
        exact_noise(nn.Linear(1, 1), lambda m, x: m(x)[:, 0], torch.ones(1, 1))
