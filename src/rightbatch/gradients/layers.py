"""The rules: what a call of a layer adds to the gradients of its parameters, from its input and its output's gradient.

To add a layer, write one function for each of its parameters, from (module, input, gradient of the output) to
`Factors`, and enter them in `LAYERS`. Input and gradient have the examples along their first dimension. The order of
positions does not matter, as long as the factors agree. Add a case to the table in
`tests/gradients/test_layer_rules.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from rightbatch.gradients.factors import Factors, Outer, Rows, Vectors, wide

Rule = Callable[[nn.Module, Tensor, Tensor], Factors]


def always(module: nn.Module) -> None:
    """Nothing speaks against the rules of this module."""


@dataclass(frozen=True)
class Layer:
    """The rules of one type of module.

    `rules` by the name that the parameter has in the module; `dimensions(module)` is how many the input has at least,
    with that of the examples; `refuses(module)` says in a short phrase why the rules do not hold for this one.
    """

    rules: Mapping[str, Rule]
    dimensions: Callable[[nn.Module], int]
    refuses: Callable[[nn.Module], str | None] = always

    def fault(self, module: nn.Module, entered: object, examples: int) -> str | None:
        """Why a call with this input is not covered; None where it is."""
        if (reason := self.refuses(module)) is not None:
            return reason
        if not isinstance(entered, Tensor) or entered.ndim < self.dimensions(module):
            return "its input has no dimension of examples"
        if len(entered) != examples:
            return f"its input has {len(entered)} rows for {examples} examples"
        return None


def layer_of(module: nn.Module) -> Layer | None:
    """The rules for a module; None where it has none, or is of a subclass with a forward of its own."""
    for kind in type(module).__mro__:
        if kind in LAYERS:
            return LAYERS[kind] if type(module).forward is kind.forward else None
    return None


def mixes_examples(module: nn.Module) -> bool:
    """Whether one example changes what the module makes of another: batch normalisation by statistics of the batch."""
    if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm):
        return False
    return module.training or module.running_mean is None


# ------------------------------------------------------------------------------------------------------------ matrices


def linear_weight(module: nn.Module, entered: Tensor, gradient: Tensor) -> Factors:
    """Positions are all dimensions between the first and the last."""
    if entered.ndim == 2:
        return Outer(gradient, entered)
    left, right = _features_first(gradient, 1), _features_first(entered, 1)
    return Outer(left.unsqueeze(1), right.unsqueeze(1))


def convolution_weight(module: nn.Module, entered: Tensor, gradient: Tensor) -> Factors:
    """Positions are those of the output; the right factor is the window of the input that each of them sees."""
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    windows, groups = _padded(module, entered), module.groups
    spans = zip(module.kernel_size, module.stride, module.dilation, strict=True)
    for axis, (kernel, stride, dilation) in enumerate(spans, start=2):
        windows = windows.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    # [examples, channels, *positions, *kernel]: the kernel goes before the positions, channels are split into groups.
    spatial = entered.ndim - 2
    order = (0, 1, *range(2 + spatial, 2 + 2 * spatial), *range(2, 2 + spatial))
    windows = windows.permute(order)
    right = windows.view(len(windows), groups, -1, *windows.shape[2:])
    left = gradient.reshape(len(gradient), groups, gradient.shape[1] // groups, -1)
    return Outer(left, right)


def embedding_weight(module: nn.Module, entered: Tensor, gradient: Tensor) -> Factors:
    """Each position adds the gradient of its output to the row that it looked up; the padding row learns nothing."""
    assert isinstance(module, nn.Embedding)
    index = entered.reshape(len(entered), -1)
    right = gradient.reshape(*index.shape, module.embedding_dim)
    if module.padding_idx is not None:
        right = right.masked_fill((index == module.padding_idx).unsqueeze(2), 0)
    return Rows(index, right, module.num_embeddings)


# ------------------------------------------------------------------------------------------------------------- vectors


def last_bias(module: nn.Module, entered: Tensor, gradient: Tensor) -> Factors:
    """Bias of a layer whose features are the last dimension."""
    return Vectors(gradient if gradient.ndim == 2 else _features_first(gradient, 1))


def channel_bias(module: nn.Module, entered: Tensor, gradient: Tensor) -> Factors:
    """Bias of a layer whose features are the second dimension."""
    return Vectors(gradient.reshape(*gradient.shape[:2], -1))


def layer_norm_weight(module: nn.Module, entered: Tensor, gradient: Tensor) -> Factors:
    """The normalised input times the gradient of the output, as for all normalisations."""
    assert isinstance(module, nn.LayerNorm)
    shape = module.normalized_shape
    return Vectors(_features_first(wide(gradient) * F.layer_norm(wide(entered), shape, eps=module.eps), len(shape)))


def layer_norm_bias(module: nn.Module, entered: Tensor, gradient: Tensor) -> Factors:
    """The features are as many dimensions as are normalised."""
    assert isinstance(module, nn.LayerNorm)
    return Vectors(_features_first(gradient, len(module.normalized_shape)))


def rms_norm_weight(module: nn.Module, entered: Tensor, gradient: Tensor) -> Factors:
    """As of a layer norm."""
    assert isinstance(module, nn.RMSNorm)
    shape = module.normalized_shape
    return Vectors(_features_first(wide(gradient) * F.rms_norm(wide(entered), shape, eps=module.eps), len(shape)))


def group_norm_weight(module: nn.Module, entered: Tensor, gradient: Tensor) -> Factors:
    """As of a layer norm, with the features along the second dimension."""
    assert isinstance(module, nn.GroupNorm)
    values = wide(gradient) * F.group_norm(wide(entered), module.num_groups, eps=module.eps)
    return Vectors(values.reshape(*values.shape[:2], -1))


def fixed_batch_norm_weight(module: nn.Module, entered: Tensor, gradient: Tensor) -> Factors:
    """In evaluation mode: normalised by the running statistics, which no example of the batch changes."""
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm)
    values = wide(gradient) * F.batch_norm(wide(entered), module.running_mean, module.running_var, eps=module.eps)
    return Vectors(values.reshape(*values.shape[:2], -1))


# ------------------------------------------------------------------------------------------------------------- helpers


def _features_first(tensor: Tensor, dimensions: int) -> Tensor:
    """[examples, *positions, *features] as [examples, features, positions], where so many dimensions are features."""
    features = tensor.shape[tensor.ndim - dimensions :].numel()
    return tensor.reshape(len(tensor), -1, features).transpose(1, 2)


def _padded(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, entered: Tensor) -> Tensor:
    """The input with the padding of the convolution written out."""
    sides: list[int] = []
    for axis in reversed(range(len(module.kernel_size))):  # as `pad` wants them: the last dimension first
        if isinstance(module.padding, str):
            total = module.dilation[axis] * (module.kernel_size[axis] - 1) if module.padding == "same" else 0
            sides += [total // 2, total - total // 2]
        else:
            sides += [int(module.padding[axis])] * 2
    if not any(sides):
        return entered
    return F.pad(entered, sides, mode="constant" if module.padding_mode == "zeros" else module.padding_mode)


def _embedding_refuses(module: nn.Module) -> str | None:
    assert isinstance(module, nn.Embedding)
    if module.scale_grad_by_freq:
        return "its gradient is scaled by how often an index occurs in the batch"
    if module.sparse:
        return "its gradient is sparse"
    if module.max_norm is not None:
        return "its rows are renormalised in the forward pass"
    return None


def _normalized(module: nn.Module) -> int:
    assert isinstance(module, nn.LayerNorm | nn.RMSNorm)
    return 1 + len(module.normalized_shape)


def _convolution(spatial: int) -> Layer:
    return Layer({"weight": convolution_weight, "bias": channel_bias}, lambda _: 2 + spatial)


_FIXED_BATCH_NORM = Layer({"weight": fixed_batch_norm_weight, "bias": channel_bias}, lambda _: 2)

LAYERS: dict[type[nn.Module], Layer] = {
    nn.Linear: Layer({"weight": linear_weight, "bias": last_bias}, lambda _: 2),
    nn.Conv1d: _convolution(1),
    nn.Conv2d: _convolution(2),
    nn.Conv3d: _convolution(3),
    nn.Embedding: Layer({"weight": embedding_weight}, lambda _: 1, _embedding_refuses),
    nn.LayerNorm: Layer({"weight": layer_norm_weight, "bias": layer_norm_bias}, _normalized),
    nn.RMSNorm: Layer({"weight": rms_norm_weight}, _normalized),
    nn.GroupNorm: Layer({"weight": group_norm_weight, "bias": channel_bias}, lambda _: 2),
    nn.BatchNorm1d: _FIXED_BATCH_NORM,
    nn.BatchNorm2d: _FIXED_BATCH_NORM,
    nn.BatchNorm3d: _FIXED_BATCH_NORM,
    nn.SyncBatchNorm: _FIXED_BATCH_NORM,
}
