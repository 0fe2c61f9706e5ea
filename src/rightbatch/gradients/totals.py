"""sum_i |c_i|^2 over the examples of a batch, without bias, from a few of them.

The squared norm of an example's contribution to a weight costs as much as its share of the backward pass wherever
there are positions (tokens, pixels). So only a few examples, drawn at random at every sampled step, are taken exactly.
For all the others stands what is nearly free: the squared norm of the output's gradient times that of the input. It is
not the norm wanted, and may be off by any factor; but with a slope known from before the draw,

    sum_i |c_i|^2  ~  (B / m) sum_{i drawn} (|c_i|^2 - slope a_i)  +  slope sum_i a_i

has the right expectation whatever the slope and the approximation a_i are (a control variate, or difference estimator:
Cochran 1977, section 7.3). That they go together makes it precise. Where each example has one position, as in an MLP,
a_i is the norm itself, and nothing is drawn.

Every now and then all examples are taken exactly. The slopes are learned there, and whether the contributions add up to
the gradient is checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rightbatch.errors import InputError
from rightbatch.gradients.capture import Arrival, Call, Capture
from rightbatch.gradients.factors import Factors, Found, combinable, measure, squared_norms, wide
from rightbatch.gradients.inner_products import FEWEST_EXAMPLES, InnerProducts
from rightbatch.gradients.metrics import Metric
from rightbatch.gradients.rerun import Rerun
from rightbatch.gradients.slopes import Slopes

GROUP = 4
"""Modules without a rule are run again for groups of so many examples: far fewer would cost as much."""


class Totals:
    """Between `begin` and `finish` the forward and backward passes of a model leave sum_i |c_i|^2 behind.

    c_i is the contribution of example i to the gradient, as in `gradients.per_example.PerExampleNorms`. With a
    `metric`, P of each parameter, sum_i sum_k P_k c_ik^2 is had too, with `inner_products` what `along_gradient` says.
    """

    def __init__(self, model: nn.Module, slopes: Slopes, *, inner_products: bool = False) -> None:
        self._capture, self._slopes, self._wants_products = Capture(model), slopes, inner_products
        self.along_gradient: tuple[float, float] | str = ""
        """After `finish`: |G|^4 and G^T Sigma G of this pass (`gradients.inner_products`), or why they are not had."""

    def begin(self, examples: int, metric: Metric | None = None) -> None:
        """A forward pass begins, of so many examples. Raises `InputError` for a model that mixes examples."""
        slopes = self._slopes
        self._examples, self._metric = examples, metric
        self._checked = slopes.due_for_check
        self._all = self._checked or examples <= slopes.few
        self._drawn_examples: Tensor | None = None
        self._exact: dict[str, Tensor] = {}  # [metrics, examples that were drawn]
        self._near: dict[str, Tensor] = {}  # [examples]
        self._sums: dict[str, Tensor] = {}  # [metrics], of what needs neither
        self._found: dict[str, Found] = {}
        self._uncovered: dict[str, str] = {}
        self._unruled: dict[str, Arrival] = {}
        self._reruns: list[Rerun] = []
        enough = self._wants_products and examples >= FEWEST_EXAMPLES
        self._products = InnerProducts(examples) if enough else None
        self._arrived_again: str | None = None
        if self._checked:
            self._capture.detach()  # what is trained may have changed
        self._capture.attach()
        self._capture.begin(examples, self._arrived, self._called)

    def close(self) -> None:
        """Take all hooks away. Allowed more than once."""
        self._capture.detach()

    def finish(self) -> tuple[tuple[str, ...], Tensor, dict[str, str]]:
        """The covered parameters, their totals, [parameters, 1] or with a metric 2, and the uncovered ones, and why.

        To be called once, before the weights change. Raises `InputError` where there was more than one backward pass.
        """
        self._capture.end()
        if self._arrived_again is not None:
            raise InputError(f"The gradient of {self._arrived_again} came more than once in one backward pass.")
        self._run_again()
        if self._checked:
            for name, found in self._found.items():
                if not found.adds_up():
                    self._uncovered[name] = "used outside its layer too, or its gradient is changed by a hook"
            self._slopes.uncovered = dict(self._uncovered)
        uncovered = {**self._uncovered, **self._slopes.uncovered}
        sums = [(name, value) for name, value in self._sums.items() if name not in uncovered]
        drawn = tuple(name for name in self._exact if name not in uncovered)
        values = [_stack([value for _, value in sums])] if sums else []
        values += [self._sums_of(drawn)] if drawn else []
        self.along_gradient = self._along_gradient((*(name for name, _ in sums), *drawn))
        self._slopes.samples += 1
        metrics = 1 if self._metric is None else 2
        totals = torch.zeros(0, metrics) if not values else values[0]
        if len(values) > 1:
            totals = torch.cat([value.to(totals) for value in values])
        return (*(name for name, _ in sums), *drawn), totals, uncovered

    def _along_gradient(self, names: tuple[str, ...]) -> tuple[float, float] | str:
        if not names:
            return "the gradients of no parameter can be told apart"
        if self._products is None:
            return f"a pass has {self._examples} examples, and {FEWEST_EXAMPLES} are the fewest"
        if without := [name for name in names if name in self._unruled]:
            return f"{without[0]}: {self._unruled[without[0]].reason}"
        return self._products.terms(names)

    def _sums_of(self, names: tuple[str, ...]) -> Tensor:
        """[parameters, metrics], over all examples, from those that were drawn."""
        exact = _stack([self._exact[name] for name in names])
        nothing = exact.new_zeros(self._examples)
        near = _stack([self._near.get(name, nothing) for name in names])
        if self._checked:
            self._slopes.learn(names, exact, near)
        if self._all:
            return exact.sum(2)
        slopes = self._slopes.of(names, exact)
        drawn = (exact - slopes.unsqueeze(2) * near[:, self._drawn(near)].unsqueeze(1)).sum(2)
        return drawn * (self._examples / self._slopes.few) + slopes * near.sum(1, keepdim=True)

    # ------------------------------------------------------------------------------------------------ layers with rules

    def _arrived(self, arrival: Arrival) -> None:
        name, parameter = arrival.name, arrival.parameter
        if name in self._exact or name in self._sums or name in self._unruled or name in self._uncovered:
            self._arrived_again = name
        elif arrival.reason is not None:
            self._unruled[name] = arrival._replace(gradient=arrival.gradient.clone())
        elif not self._checked and self._metric is None and _one_position(arrival.calls):
            self._sums[name] = _near(arrival).sum(0, keepdim=True)
            self._take_products(arrival)
        elif name not in self._slopes.uncovered or self._checked:
            parts = [call.factors(parameter, None if self._all else self._drawn(parameter)) for call in arrival.calls]
            if len(parts) == 1 or combinable(parts):
                self._exact[name] = self._squares_of(arrival, parts)
                self._take_products(arrival)
                if self._checked or name in self._slopes.explaining:
                    self._near[name] = _near(arrival)
            else:
                self._uncovered[name] = "its layers use it in ways that cannot be added"

    def _take_products(self, arrival: Arrival) -> None:
        if self._products is not None:
            calls, parameter = arrival.calls, arrival.parameter
            self._products.take(
                arrival.name, parameter.shape, lambda group: [call.factors(parameter, group) for call in calls]
            )

    def _drawn(self, like: Tensor) -> Tensor:
        """The examples that are taken exactly, in random order: drawn once in a pass, where any are needed."""
        if self._drawn_examples is None:
            drawn = torch.randperm(self._examples, generator=self._slopes.generator)
            self._drawn_examples = drawn[: self._examples if self._all else self._slopes.few].to(like.device)
        if self._drawn_examples.device != like.device:  # a model on several devices
            return self._drawn_examples.to(like.device)
        return self._drawn_examples

    def _squares_of(self, arrival: Arrival, parts: Sequence[Factors]) -> Tensor:
        metric = self._metric.get(arrival.parameter) if self._metric is not None else None
        if self._checked:
            self._found[arrival.name] = found = measure(parts, arrival.gradient)
            squares = found.squared.unsqueeze(0) if metric is None else squared_norms(parts, metric)
        else:
            squares = squared_norms(parts, metric)
        return squares if self._metric is None else squares.expand(2, -1)

    # -------------------------------------------------------------------------------------------- modules without rules

    def _called(
        self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any
    ) -> Sequence[RemovableHandle]:
        again = Rerun(module, self._examples, args, kwargs)
        self._reruns.append(again)
        return again.watch(output)

    def _run_again(self) -> None:
        """Each module without a rule, for one group of examples after the other."""
        by_owner: dict[nn.Module, list[Arrival]] = {}
        for name, arrival in self._unruled.items():
            owners = [call.module for call in self._reruns if _owns(call.module, arrival.parameter)]
            if owners and (self._checked or name not in self._slopes.uncovered):
                owner = min(owners, key=lambda module: sum(1 for _ in module.parameters()))
                by_owner.setdefault(owner, []).append(arrival)
            else:
                assert arrival.reason is not None
                self._uncovered[name] = arrival.reason
        for owner, arrivals in by_owner.items():
            calls = [call for call in self._reruns if call.module is owner]
            try:
                self._by_groups(calls, arrivals)
            except Exception as error:  # whatever a module cannot do with fewer examples, and it says so in many ways
                for arrival in arrivals:
                    self._sums.pop(arrival.name, None)
                    self._uncovered[arrival.name] = (
                        f"{arrival.reason}, nor can it be run again ({type(error).__name__})"
                    )

    def _by_groups(self, calls: Sequence[Rerun], arrivals: Sequence[Arrival]) -> None:
        """From what random groups of g examples add, the sum over single examples without bias.

        Of the products c_i c_j of different examples, all of which add up to |gradient|^2 - sum |c_i|^2, a share of
        r = (g - 1) / (B - 1) falls within groups.
        """
        parameters = [arrival.parameter for arrival in arrivals]
        size = max(GROUP, self._examples // 4) if self._checked else GROUP
        size = max(1, min(size, self._examples // 2))
        squares = [torch.zeros(()) for _ in parameters]
        summed = [torch.zeros_like(parameter) for parameter in parameters]
        groups = torch.split(self._drawn(parameters[0]), size)
        whole = [group for group in groups if len(group) == size]
        for group in groups if self._checked else whole:
            added = _sums([call.gradients(parameters, group) for call in calls])
            for k, gradient in enumerate(added):
                if gradient is not None:
                    summed[k] += gradient
                    if len(group) == size:
                        squares[k] = squares[k].to(gradient.device) + self._squares(parameters[k], gradient)
        if self._checked:
            self._check(arrivals, summed)
        within = (size - 1) / max(1, self._examples - 1)
        for arrival, square in zip(arrivals, squares, strict=True):
            of_groups = square * (self._examples / (size * len(whole)))
            of_batch = self._squares(arrival.parameter, arrival.gradient)
            self._sums[arrival.name] = (of_groups - within * of_batch) / (1 - within)

    def _squares(self, parameter: nn.Parameter, gradient: Tensor) -> Tensor:
        squared = wide(gradient.detach()).square()
        if self._metric is None:
            return squared.sum().unsqueeze(0)
        metric = self._metric.get(parameter)
        return torch.stack([squared.sum(), squared.sum() if metric is None else (squared * metric).sum()])

    def _check(self, arrivals: Sequence[Arrival], summed: Sequence[Tensor]) -> None:
        for arrival, total in zip(arrivals, summed, strict=True):
            # Rounding differs between batches of different sizes, under autocast by a few per cent.
            if float(wide(arrival.gradient - total).norm()) > 0.05 * float(wide(arrival.gradient).norm()):
                self._uncovered[arrival.name] = f"{arrival.reason}, and run again it does something else"


def _near(arrival: Arrival) -> Tensor:
    """What stands for the squared norm of each example, [examples]."""
    matrix = arrival.parameter.ndim > 1
    near = [call.output_squared * call.input_squared if matrix else call.output_squared for call in arrival.calls]
    return torch.stack(near).sum(0) if len(near) > 1 else near[0]


def _one_position(calls: Sequence[Call]) -> bool:
    """Whether what stands for the norms is the norms themselves."""
    call = calls[0]
    return (
        len(calls) == 1 and isinstance(call.module, nn.Linear) and call.entered is not None and call.entered.ndim == 2
    )


def _owns(module: nn.Module, parameter: nn.Parameter) -> bool:
    return any(own is parameter for own in module.parameters())


def _sums(calls: Sequence[Sequence[Tensor | None]]) -> list[Tensor | None]:
    """The sum over calls, for each parameter."""
    found: list[Tensor | None] = []
    for of_parameter in zip(*calls, strict=True):
        tensors = [tensor for tensor in of_parameter if tensor is not None]
        found.append(torch.stack(tensors).sum(0) if tensors else None)
    return found


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """Of one device and type: parameters may be of several."""
    first = tensors[0]
    if any(tensor.device != first.device or tensor.dtype != first.dtype for tensor in tensors):
        tensors = [tensor.to(first.device, torch.float32) for tensor in tensors]
    return torch.stack(list(tensors))
