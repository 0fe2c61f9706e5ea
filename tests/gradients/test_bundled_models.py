"""The monitor covers all parameters of every bundled model whose examples have gradients of their own."""

from __future__ import annotations

import math

import pytest

from rightbatch.bundled import WORKLOADS
from rightbatch.errors import DataError
from rightbatch.gradients.monitor import NoiseScale
from rightbatch.records import Trial
from rightbatch.stepping import Stepper
from rightbatch.streams import RandomStreams

WITHOUT = {"quadratic", "mnist:f1"}
"""One draws its noise as it runs, the other normalises over the batch: an example has no gradient of its own there."""


@pytest.mark.parametrize("name", sorted(set(WORKLOADS) - WITHOUT))
def test_all_of_it_is_covered(name: str) -> None:
    try:
        workload = WORKLOADS[name].make()
    except DataError as error:
        pytest.skip(str(error))
    assert workload.present is not None
    size, rate = workload.present
    with RandomStreams(0).active():
        stepper = Stepper(workload, workload.complete(Trial(size, rate, 0)))
        with NoiseScale(stepper.model, stepper.optimizer, overhead=math.inf) as monitor:
            stepper.run(2)
    assert len(monitor.samples) == 2
    assert monitor.uncovered == {}
