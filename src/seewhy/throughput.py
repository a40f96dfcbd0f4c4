"""What is measured once per network so that it runs fast: the rows of one forward, and how images lie in memory."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from seewhy import capture

BATCHES_TO_TIME = (4, 8, 16)  # on a CPU more rows a forward can be slower: 17 ms an image at 4, 43 at 32 were measured
SAME_OUTPUT = 1e-4  # of the largest output: what another memory format may change, far above rounding, far below a bug


def fastest_batch(forward: Callable[[Tensor], Any], shape: Sequence[int]) -> int:
    """The rows in one forward at which a row costs least, for images of shape (C, *axes)."""
    cost: dict[int, float] = {}
    for size in (BATCHES_TO_TIME[0], *BATCHES_TO_TIME):  # the first one warms up and is overwritten
        x = torch.full((size, *shape), 0.5, dtype=torch.float32)
        begun = time.perf_counter()
        forward(x)
        cost[size] = (time.perf_counter() - begun) / size
    return min(cost, key=lambda size: cost[size])


def same_in_channels_last(run: Callable[[Tensor, bool], Any], x: Tensor) -> bool:
    """Whether a network can read x in channels-last memory, `run(x, True)`, and says the same as for `run(x, False)`."""
    found: list[list[Tensor]] = []
    for channels_last in (False, True):
        try:
            with capture.random_states(0):  # a network that draws random numbers draws the same ones
                found.append([tensor.float() for tensor in capture.tensors(run(x, channels_last))])
        except RuntimeError:  # where the network itself fails, the run that follows says so
            return False
    return bool(found[0]) and len(found[0]) == len(found[1]) and all(map(_same, *found))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.numel() > 0 and bool((a - b).abs().max() <= SAME_OUTPUT * a.abs().max())
