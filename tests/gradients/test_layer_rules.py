"""Every rule against one backward pass for each example, in double precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rightbatch.gradients import factors
from rightbatch.gradients.exact import per_example_gradients
from rightbatch.gradients.layers import LAYERS
from rightbatch.gradients.per_example import PerExampleNorms
from rightbatch.losses import mean_loss

EXAMPLES = 5


def numbers(*shape):
    return lambda: torch.randn(EXAMPLES, *shape, dtype=torch.float64)


def indices(*shape, below=7):
    return lambda: torch.randint(below, (EXAMPLES, *shape))


def fixed_batch_norm():
    layer = nn.BatchNorm2d(4)
    layer.running_mean.copy_(torch.randn(4))
    layer.running_var.copy_(torch.rand(4) + 0.5)
    return layer.eval()


CASES = {
    "linear": (lambda: nn.Linear(6, 4), numbers(6)),
    "linear without bias": (lambda: nn.Linear(6, 4, bias=False), numbers(6)),
    "linear, short sequences": (lambda: nn.Linear(16, 12), numbers(2, 16)),
    "linear, long sequences": (lambda: nn.Linear(6, 4), numbers(9, 6)),
    "linear, positions in two dimensions": (lambda: nn.Linear(6, 4), numbers(3, 4, 6)),
    "convolution": (lambda: nn.Conv2d(3, 4, 3), numbers(3, 7, 6)),
    "convolution with all there is": (
        lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(1, 2), groups=2),
        numbers(4, 9, 8),
    ),
    "convolution, few positions": (lambda: nn.Conv2d(16, 12, 3, padding=1, groups=2), numbers(16, 2, 2)),
    "convolution, one position": (lambda: nn.Conv2d(3, 4, 5, groups=1), numbers(3, 5, 5)),
    "depthwise convolution": (lambda: nn.Conv2d(4, 8, 3, padding="same", groups=4), numbers(4, 5, 6)),
    "reflected": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), numbers(2, 6, 5)),
    "circular, the same size": (lambda: nn.Conv2d(2, 3, 3, padding="same", padding_mode="circular"), numbers(2, 6, 5)),
    "convolution in one dimension": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), numbers(4, 11)),
    "even kernel, the same size": (lambda: nn.Conv1d(3, 4, 4, padding="same", dilation=3), numbers(3, 11)),
    "without padding": (lambda: nn.Conv1d(3, 4, 4, padding="valid", bias=False), numbers(3, 11)),
    "convolution in three dimensions": (lambda: nn.Conv3d(2, 3, 2, stride=(1, 2, 1)), numbers(2, 4, 5, 3)),
    "embedding": (lambda: nn.Embedding(7, 3), indices(6)),
    "embedding of one index": (lambda: nn.Embedding(7, 3), indices()),
    "embedding with padding": (lambda: nn.Embedding(4, 3, padding_idx=1), indices(2, 6, below=4)),
    "layer norm": (lambda: nn.LayerNorm(6), numbers(6)),
    "layer norm over positions": (lambda: nn.LayerNorm(6), numbers(4, 6)),
    "layer norm of two dimensions": (lambda: nn.LayerNorm((4, 6), eps=0.1), numbers(3, 4, 6)),
    "layer norm without bias": (lambda: nn.LayerNorm(6, bias=False), numbers(4, 6)),
    "rms norm": (lambda: nn.RMSNorm(6), numbers(4, 6)),
    "rms norm of two dimensions": (lambda: nn.RMSNorm((4, 6), eps=0.1), numbers(4, 6)),
    "group norm": (lambda: nn.GroupNorm(2, 6), numbers(6, 3, 4)),
    "group norm without positions": (lambda: nn.GroupNorm(2, 6), numbers(6)),
    "batch norm by fixed statistics": (fixed_batch_norm, numbers(4, 3, 2)),
}
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def compare(model, x, gradient_scale=1.0):
    """Norms of one layer, or of any model whose parameters are all covered, against the twin."""
    for parameter in model.parameters():
        nn.init.normal_(parameter)

    def loss(model, batch):
        return gradient_scale * model(batch[0]).tanh().flatten(1).square().sum(1)

    with PerExampleNorms(model, len(x)) as norms:
        mean_loss(loss(model, (x,)), len(x)).backward()
    exact = per_example_gradients(model, loss, (x,))
    assert norms.uncovered == {}
    assert set(norms.covered) == set(exact)
    for name, squared in norms.by_parameter().items():
        torch.testing.assert_close(squared, exact[name].flatten(1).square().sum(1), rtol=1e-9, atol=1e-14)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(exact[name].sum(0), parameter.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("make", "enter"), CASES.values(), ids=CASES.keys())
def test_norms_are_those_of_a_backward_pass_for_each_example(make, enter):
    torch.manual_seed(0)
    compare(make().double(), enter())


def test_every_layer_with_a_rule_has_a_case():
    tried = {type(make()) for make, _ in CASES.values()}
    others = {nn.BatchNorm1d, nn.BatchNorm3d, nn.SyncBatchNorm}  # the rule of BatchNorm2d
    assert tried == set(LAYERS) - others


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("limit", [1, 300])
def test_slices_of_examples_change_nothing(monkeypatch, limit, case):
    monkeypatch.setattr(factors, "SLICE_NUMBERS_CPU", limit)
    make, enter = CASES[case]
    torch.manual_seed(1)
    compare(make().double(), enter())


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    examples=st.integers(1, 5),
    between=st.lists(st.integers(1, 7), max_size=2),
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_linear_of_any_shape(examples, between, inputs, outputs, seed):
    torch.manual_seed(seed)
    compare(nn.Linear(inputs, outputs).double(), torch.randn(examples, *between, inputs, dtype=torch.float64))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(data=st.data())
def test_convolution_of_any_shape(data):
    def pair(low, high):
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    examples, groups, size = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3)), pair(5, 8)
    channels, filters = (groups * n for n in pair(1, 3))
    kernel, stride, dilation, padding = pair(1, 3), pair(1, 3), pair(1, 2), pair(0, 2)
    torch.manual_seed(data.draw(st.integers(0, 99)))
    layer = nn.Conv2d(channels, filters, kernel, stride, padding, dilation, groups)
    compare(layer.double(), torch.randn(examples, channels, *size, dtype=torch.float64))


def test_half_precision_is_summed_in_single():
    torch.manual_seed(0)
    model, x = nn.Linear(300, 200).to(torch.bfloat16), torch.randn(3, 40, 300, dtype=torch.bfloat16)
    with PerExampleNorms(model, 3) as norms:
        (1e-4 * model(x)).sum().backward()
    assert norms.squared().dtype == torch.float32
    wide = x.float().sum(1).square().sum(1) * 200 + 200 * 40**2
    torch.testing.assert_close(norms.squared(), wide * 1e-8, rtol=1e-2, atol=0.0)
