"""How many rows one forward should have, measured once per network."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

BATCHES_TO_TIME = (4, 8, 16)  # on a CPU more rows a forward can be slower: 17 ms an image at 4, 43 at 32 were measured


def fastest_batch(forward: Callable[[Tensor], Any], shape: Sequence[int]) -> int:
    """The rows in one forward at which a row costs least, for images of shape (C, *axes).

    The largest goes first, unseen: what it was given is kept for all where a program keeps freed memory. Each size after a
    smaller one would pay for fresh pages that its next batch does not need, three times its own time on lite0.
    """
    cost: dict[int, float] = {}
    for size in (BATCHES_TO_TIME[-1], *reversed(BATCHES_TO_TIME)):  # the first one warms up and is overwritten
        x = torch.full((size, *shape), 0.5, dtype=torch.float32)
        begun = time.perf_counter()
        forward(x)
        cost[size] = (time.perf_counter() - begun) / size
    return min(cost, key=lambda size: cost[size])
