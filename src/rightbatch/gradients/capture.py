"""One backward pass, listened to: which calls of which modules made the gradient of each parameter."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rightbatch.gradients.exact import refuse_mixing
from rightbatch.gradients.factors import Factors, squares_of_examples, wide
from rightbatch.gradients.layers import Layer, layer_of

Unruled = Callable[[nn.Module, Sequence[Any], Mapping[str, Any], Any], Sequence[RemovableHandle]]


class Arrival(NamedTuple):
    """The gradient of a parameter has come, as backward made it.

    calls: All calls of layers with a rule that use the parameter. Empty where there is a `reason`: why no rule covers
        this parameter.
    """

    name: str
    parameter: nn.Parameter
    calls: Sequence[Call]
    reason: str | None
    gradient: Tensor


class Capture:
    """Between `begin` and `end` tells of the gradient of every trained parameter, with the calls that made it.

    Gradients are the same as without it, to the bit. The hooks stand from `attach` to `detach`, for the parameters that
    are trained then, and do nothing outside of a pass.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._hooks: list[RemovableHandle] = []
        self._arrived_to: Callable[[Arrival], None] | None = None
        self._unruled_to: Unruled | None = None
        self._examples = 0
        self._of_pass: list[RemovableHandle] = []
        self._calls: dict[nn.Parameter, list[Call]] = {}

    def attach(self) -> None:
        """Put the hooks on, if they do not stand.

        Raises `InputError` for a model that mixes examples (`gradients.exact.refuse_mixing`).
        """
        if self._hooks:
            return
        refuse_mixing(self._model)
        names: dict[nn.Parameter, str] = {}
        reasons: dict[nn.Parameter, str | None] = {}
        for prefix, module in self._model.named_modules():
            own = {name: p for name, p in module._parameters.items() if p is not None and p.requires_grad}
            if not own:
                continue
            layer = layer_of(module)
            reason = f"{type(module).__name__} has no rule" if layer is None else None
            for name, parameter in own.items():
                names.setdefault(parameter, f"{prefix}.{name}" if prefix else name)
                # Of several owners one with a rule is enough for now: the others may only hold it.
                reasons[parameter] = reasons.get(parameter, reason) and reason
            called = self._called_unruled if layer is None else functools.partial(self._called, layer, own)
            self._hooks.append(module.register_forward_hook(called, with_kwargs=True))
        for parameter, name in names.items():
            arrived = functools.partial(self._arrived, name, parameter, reasons[parameter])
            self._hooks.append(parameter.register_hook(arrived))  # type: ignore[no-untyped-call]

    def begin(self, examples: int, arrived: Callable[[Arrival], None], unruled: Unruled | None = None) -> None:
        """A forward pass begins, with so many examples along the first dimension of its batch.

        `arrived` is told of every gradient. `unruled(module, args, kwargs, output)` is told of every call of a module
        with trained parameters of its own and no rule, and returns handles of the hooks that it puts on the output.
        """
        self.end()
        self._examples, self._arrived_to, self._unruled_to = examples, arrived, unruled

    def end(self) -> None:
        """Forget what was captured. Allowed more than once."""
        for handle in self._of_pass:
            handle.remove()
        self._of_pass, self._calls, self._arrived_to, self._unruled_to = [], {}, None, None

    def detach(self) -> None:
        """Take all hooks away and forget what was captured. Allowed more than once."""
        self.end()
        for handle in self._hooks:
            handle.remove()
        self._hooks = []

    def _called(
        self,
        layer: Layer,
        own: Mapping[str, nn.Parameter],
        module: nn.Module,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        output: Any,
    ) -> None:
        """A forward hook: remember the input, and the gradient of the output when it comes."""
        if self._arrived_to is None or not (isinstance(output, Tensor) and output.requires_grad):
            return
        entered = args[0] if args else next(iter(kwargs.values()), None)
        call = Call(module, layer, entered, layer.fault(module, entered, self._examples))
        for parameter in own.values():
            self._calls.setdefault(parameter, []).append(call)
        self._of_pass.append(when_gradient_comes(output, call.take))

    def _called_unruled(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> None:
        if self._unruled_to is not None:
            self._of_pass += self._unruled_to(module, args, kwargs, output)

    def _arrived(self, name: str, parameter: nn.Parameter, reason: str | None, gradient: Tensor) -> None:
        """A hook on a parameter: all calls that use it have their gradients, for its own is the sum over them.

        All tensors that it computes with are detached, so that nothing is added to a graph.
        """
        if self._arrived_to is None:
            return
        calls = [call for call in self._calls.pop(parameter, ()) if call.gradient is not None]
        if reason is None:
            reason = next((call.fault for call in calls if call.fault), None) if calls else "used outside its layer"
        with without_autocast(gradient.device):
            self._arrived_to(Arrival(name, parameter, () if reason else calls, reason, gradient.detach()))


class Call:
    """One call of a layer: its input, and the gradient of its output once that has come."""

    def __init__(self, module: nn.Module, layer: Layer, entered: Any, fault: str | None) -> None:
        self.module, self.layer, self.fault = module, layer, fault
        self.entered: Tensor | None = entered.detach() if fault is None else None
        self.gradient: Tensor | None = None
        self._few: tuple[Tensor | slice, Tensor, Tensor] | None = None

    def take(self, gradient: Tensor) -> None:
        """Keep the gradient of the output."""
        self.gradient = gradient

    def factors(self, parameter: nn.Parameter, examples: Tensor | slice | None = None) -> Factors:
        """What this call adds to the gradient of one of the module's parameters; of these examples alone, if given."""
        assert self.entered is not None
        assert self.gradient is not None
        name = next(name for name, own in self.module._parameters.items() if own is parameter)
        entered, gradient = (self.entered, self.gradient) if examples is None else self._of(examples)
        return self.layer.rules[name](self.module, entered, gradient)

    def _of(self, examples: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Input and gradient of some examples, kept: the parameters of a layer ask for the same ones."""
        if self._few is None or self._few[0] is not examples:
            assert self.entered is not None
            assert self.gradient is not None
            self._few = examples, self.entered[examples], self.gradient[examples]
        return self._few[1:]

    @functools.cached_property
    def input_squared(self) -> Tensor:
        """Squared norm of the input of each example, [examples]; 1 for indices, which have no size."""
        assert self.entered is not None
        return (
            squares_of_examples(wide(self.entered))
            if self.entered.is_floating_point()
            else torch.ones(()).to(self.entered.device)
        )

    @functools.cached_property
    def output_squared(self) -> Tensor:
        """Squared norm of the gradient of the output of each example, [examples]."""
        assert self.gradient is not None
        return squares_of_examples(wide(self.gradient))


def when_gradient_comes(output: Tensor, take: Callable[[Tensor], None]) -> RemovableHandle:
    """Call `take` with the gradient of an output of a module, detached and in the output's shape.

    A hook on the output and not a full backward hook of the module: those put a node into the graph, which forbids
    that the output is changed in place. That the input is changed in place, before it was needed, autograd forbids.
    """
    base = output._base
    if base is None or base.numel() != output.numel() or not base.is_contiguous():
        return output.register_hook(lambda gradient: take(gradient.detach()))  # type: ignore[no-any-return, no-untyped-call]
    # Linear with a bias returns a view for inputs of three dimensions; when it is changed in place, autograd drops the
    # node of the view with its hooks, but not that of its base.
    view = output.shape, output.stride(), output.storage_offset() - base.storage_offset()

    def hook(gradient: Tensor) -> None:
        take(gradient.detach().contiguous().as_strided(*view))

    return base.register_hook(hook)  # type: ignore[no-any-return, no-untyped-call]


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Autocast may be on where backward was called, and would make half precision of it all."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()
