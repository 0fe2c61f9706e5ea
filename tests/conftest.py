"""One thread for torch: results to the bit, and workers of pytest-xdist that do not fight for cores."""

try:
    import torch
except ModuleNotFoundError:  # without torch only the tests that need none are run
    pass
else:
    torch.set_num_threads(1)
