"""Memory errors are told from others, whoever raised them; all others say whose code and where."""

from __future__ import annotations

import pytest
import torch

from rightbatch.errors import InputError, WorkloadError
from rightbatch.raised import MemoryExhausted, explained, is_memory_error


def test_memory_errors_are_told_from_others():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8)  # more than the address space: the CPU allocator's own words
    assert is_memory_error(caught.value)
    assert is_memory_error(MemoryError())
    assert is_memory_error(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_memory_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_errors_of_the_workload_are_explained_and_our_own_pass():
    with pytest.raises(WorkloadError, match=r"raised ValueError: so what \(after"), explained("after step 3"):
        raise ValueError("so what")
    with pytest.raises(MemoryExhausted, match=r"^CUDA out of memory\.$"), explained("after step 3"):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
    with pytest.raises(InputError, match=r"^ours$"), explained("after step 3"):
        raise InputError("ours")
    with pytest.raises(KeyboardInterrupt), explained("after step 3"):
        raise KeyboardInterrupt
