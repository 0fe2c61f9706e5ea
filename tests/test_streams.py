"""Random streams: what one run draws does not depend on what others draw in between."""

from __future__ import annotations

import io
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from rightbatch.streams import RandomStreams


def draws() -> list[float]:
    # Three of NumPy's Gaussians: it makes them in pairs and keeps one back, which belongs to the state.
    gaussians = np.random.randn(3).tolist()  # noqa: NPY002
    return [random.random(), random.gauss(0, 1), *gaussians, *torch.rand(2).tolist()]


def seed_the_process(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def test_streams_of_one_seed_draw_what_a_seeded_process_draws_whoever_draws_in_between():
    seed_the_process(7)
    expected = [draws() for _ in range(4)]

    one, other = RandomStreams(7), RandomStreams(8)
    found = []
    for _ in range(4):
        with one.active():
            found.append(draws())
        draws()
        with other.active():
            draws()
    assert found == expected
    assert len({tuple(d) for d in expected}) == 4


def test_streams_leave_the_process_as_they_found_it():
    seed_the_process(1)
    expected = [draws(), draws()]
    seed_the_process(1)
    first = draws()
    streams = RandomStreams(9)
    with streams.active():
        draws()
    with pytest.raises(ValueError, match="inside"), streams.active():
        raise ValueError("inside")
    assert [first, draws()] == expected


def test_streams_within_streams_go_on_where_each_was():
    seed_the_process(1)
    expected = [draws(), draws()]
    outer, inner = RandomStreams(1), RandomStreams(2)
    with outer.active():
        found = [draws()]
        with inner.active():
            draws()
        found.append(draws())
    assert found == expected


def test_streams_go_on_where_their_state_was_taken_also_from_a_file():
    streams = RandomStreams(3)
    with streams.active():
        draws()
    state = streams.state()
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    with streams.active():
        expected = draws()
    for saved in (state, torch.load(file, weights_only=True)):
        other = RandomStreams(4)
        other.load(saved)
        with other.active():
            assert draws() == expected


WITHOUT_TORCH = """
import random, sys
import numpy as np
from rightbatch.streams import RandomStreams

def draws():
    return [random.random(), float(np.random.rand())]

streams = RandomStreams(5)
assert "torch" not in sys.modules
with streams.active():
    first = draws()
random.seed(5), np.random.seed(5)
assert first == draws(), "seeded without torch"

import torch
torch.manual_seed(8)
before = torch.get_rng_state()
with streams.active():
    second, late = draws(), torch.rand(2)
assert torch.equal(torch.get_rng_state(), before), "the process is left alone"
assert torch.equal(late, torch.rand(2, generator=torch.Generator().manual_seed(5))), "seeded when first seen"
with streams.active():
    assert not torch.equal(late, torch.rand(2)), "and only then"
print("done")
"""


def test_streams_need_no_torch_and_take_it_in_when_the_process_imports_it():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=False, capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr
