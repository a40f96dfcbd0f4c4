"""Masks from how annotations write them down: polygons and run lengths. A pixel belongs to what holds its center."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]  # (height, width)
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels, ends exclusive


def polygon_mask(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> Mask:
    """The pixels of a picture (height, width) inside any of the polygons [x0, y0, x1, y1, ...], by the even-odd rule."""
    found = np.zeros(size, dtype=bool)
    for one in polygons:
        found |= _inside(np.asarray(one, dtype=np.float64).reshape(-1, 2), size)
    return found


def _inside(corners: NDArray[np.float64], size: tuple[int, int]) -> Mask:
    """Even-odd: along a row of pixel centers every edge that is crossed turns outside into inside and back."""
    height, width = size
    turns = np.zeros((height, width + 1), dtype=np.int64)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        first, last = (min(max(math.ceil(y - 0.5), 0), height) for y in sorted((y0, y1)))
        rows = np.arange(first, last)
        crossed = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0)) if len(rows) else np.zeros(0)
        np.add.at(turns, (rows, np.ceil(crossed - 0.5).clip(0, width).astype(np.int64)), 1)
    inside: Mask = turns[:, :-1].cumsum(1) % 2 == 1
    return inside


def run_mask(counts: Sequence[int], size: tuple[int, int]) -> Mask:
    """The mask (height, width) of run lengths: so many pixels outside, so many inside, in turns, column by column."""
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(size[1], size[0]).T


def read_runs(given: Any, size: tuple[int, int]) -> tuple[int, ...]:
    """Run lengths of COCO, a list or its packed text, for a picture (height, width); ValueError for what are none."""
    counts = _unpacked(given) if isinstance(given, str) else given
    if not isinstance(counts, list) or not all(type(one) is int and one >= 0 for one in counts):
        raise ValueError("run lengths that are no whole numbers from 0 on")
    if sum(counts) != size[0] * size[1]:
        raise ValueError(f"run lengths of {sum(counts)} pixels in all for a picture of {size[1]} x {size[0]}")
    return tuple(counts)


def _unpacked(text: str) -> list[int]:
    """COCO's packed run lengths: groups of 5 bits in characters from '0' on, bit 6 says that one more follows.

    The last group's highest bit is the sign; from the fourth number on they are differences to the one before the last.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"run lengths with the character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("run lengths that break off")
    return counts


def bounds(mask: Mask) -> Box | None:
    """The smallest box around a mask's pixels; None where there is none."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def box_mask(box: Box, size: tuple[int, int]) -> Mask:
    """The pixels (height, width) whose centers lie in a box."""
    x0, y0, x1, y1 = box
    y, x = (np.arange(length) + 0.5 for length in size)
    found: Mask = ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))
    return found
