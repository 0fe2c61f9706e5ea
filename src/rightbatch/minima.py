"""What is measured of the weights that a run ended with, and the choices that such a number depends on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from rightbatch.errors import InputError
from rightbatch.records import Settings

Statistics = Literal["running", "batch", "recomputed"]
Law = Literal["normal", "uniform", "unit-normal", "unit-uniform"]
Start = Literal["centre", "random"]
Solver = Literal["l-bfgs-b", "signed-ascent"]


@dataclass(frozen=True)
class Choices:
    """How sharpness is measured: what Keskar et al. say, and a named choice for each thing that they leave open.

    epsilon: Half the side of the box, relative to |x_i| + 1 (they: 1e-3 and 5e-4).
    dimensions: Of the random subspace (they: 100).
    iterations: Of the solver (they: 10).
    solver: "l-bfgs-b" as they have; or "signed-ascent", steps of a quarter of the box along the signs of the gradient.
    start: Where the solver begins: at the weights ("centre"), or at a random point of the box. Further restarts are
        random.
    restarts: The largest maximum of so many counts; all are kept.
    law: Of the entries of the random matrix: standard normal, or uniform between 0 and 1; "unit-": its columns scaled
        to length 1.
    statistics: What batch normalisation divides by: the averages that training left ("running"), those of each pass
        ("batch"), or averages over the data, computed anew ("recomputed").
    examples: The loss is that of a fixed subset of so many training examples; None: of all.
    curvature_examples: The same for the Hessian, whose products are dear.
    radius: Of the sphere of SAM (Foret et al. 2021: 0.05).
    adaptive_epsilon: Half the side of the adaptive box, relative to |x_i|.
    probes: Products of the Hessian with vectors that the trace is estimated from.
    passes: For the temperature it is trained on for so many, and weights of each are kept.
    noise_examples: The gradient noise is that of a fixed subset of so many training examples; None: of all.
    seed: Of all that is drawn.

    Raises `InputError` for a value that cannot be.
    """

    epsilon: float = 1e-3
    dimensions: int = 100
    iterations: int = 10
    solver: Solver = "l-bfgs-b"
    start: Start = "centre"
    restarts: int = 1
    law: Law = "normal"
    statistics: Statistics = "running"
    examples: int | None = None
    curvature_examples: int | None = 2000
    radius: float = 0.05
    adaptive_epsilon: float = 1e-2
    probes: int = 32
    passes: int = 12
    noise_examples: int | None = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("solver", Solver), ("start", Start), ("law", Law), ("statistics", Statistics)):
            if getattr(self, name) not in get_args(allowed):
                raise InputError(f"{name} is one of {', '.join(get_args(allowed))}; got {getattr(self, name)!r}.")
        for name in ("epsilon", "radius", "adaptive_epsilon"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} is a positive number, got {value:g}.")
        for name, least in (("dimensions", 1), ("iterations", 1), ("restarts", 1), ("probes", 4), ("passes", 8)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is a whole number of at least {least}, got {getattr(self, name)}.")
        for name in ("examples", "curvature_examples", "noise_examples"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{name} is a number of training examples, at least 1; got {value}.")

    def of(self, measure: str) -> Settings:
        """Those that a measure depends on, as they are kept beside its value."""
        return Settings({name: _plain(getattr(self, name)) for name in MEASURES[measure].choices})


def _plain(value: Any) -> Any:
    return "all" if value is None else value


@dataclass(frozen=True)
class Measure:
    """One thing that can be measured of weights: what it is in a line, its source, the choices that it depends on."""

    title: str
    source: str
    choices: tuple[str, ...]
    sharpness: bool = True


BOX = ("solver", "start", "restarts", "iterations", "statistics", "examples", "seed")

MEASURES: dict[str, Measure] = {
    "ends": Measure("loss and metric on training and validation data, distance from the start", "", (), False),
    "box": Measure("rise of the loss in a box", "Keskar et al. 2017, Metric 2.1, A = I", ("epsilon", *BOX)),
    "subspace": Measure(
        "the same, in random directions", "Keskar et al. 2017, Metric 2.1", ("epsilon", "dimensions", "law", *BOX)
    ),
    "adaptive": Measure(
        "rise of the loss in a box in proportion to the weights, by signed ascent",
        "Kwon et al. 2021 (arXiv 2102.11600), with the maximum norm",
        ("adaptive_epsilon", *(choice for choice in BOX if choice != "solver")),
    ),
    "sam": Measure(
        "rise of the loss one step uphill",
        "Foret et al. 2021 (arXiv 2010.01412), equation 2",
        ("radius", "statistics", "examples"),
    ),
    "eigenvalue": Measure(
        "largest eigenvalue of the Hessian",
        "Lanczos; Kuczynski and Wozniakowski 1992",
        ("statistics", "curvature_examples", "seed"),
    ),
    "trace": Measure(
        "trace of the Hessian", "Hutch++, Meyer et al. 2021", ("statistics", "curvature_examples", "probes", "seed")
    ),
    "temperature": Measure(
        "batch size and rate as a temperature of the posterior",
        "Mandt et al. 2017, equation 15",
        ("passes", "noise_examples", "examples"),
        False,
    ),
}
"""All that is measured, by name; `landscape.measuring.MEASURING` has a function for each."""


@dataclass(frozen=True)
class WeightsRecord:
    """One number of the weights that a run ended with.

    run: The identifier of the run.
    measure: A name of `MEASURES`, or "path".
    quantity: What of it: its own name, or a part ("train_loss", "spread").
    low, high: Where it has an interval (95 %).
    choices: Those that it depends on.
    evaluations: Passes over the data that it took; of the record of the measure's own name alone, as `seconds`.
    """

    run: int
    measure: str
    quantity: str
    value: float
    low: float | None = None
    high: float | None = None
    choices: Settings = field(default_factory=Settings)
    evaluations: float = 0.0
    seconds: float = 0.0


def known_measures(names: Any) -> tuple[str, ...]:
    """The names, without doubles. Raises `InputError` for one that is no measure."""
    for name in names:
        if name not in MEASURES:
            raise InputError(f"There is no measure {name!r}. Choose from: {', '.join(MEASURES)}.")
    return tuple(dict.fromkeys(names))
