"""The compressed run-length encoding of pycocotools (cocoapi, maskApi.c)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: The largest mask, and the most groups of 5 bits that a difference of two of its runs takes. More groups
#: could make sums wrap around.
MAX_PIXELS = 1 << 28
MAX_GROUPS = 6


def decode_rle(counts: str, height: int, width: int) -> NDArray[np.bool_]:
    """The mask of compressed counts: bool, (height, width).

    A number is written in groups of 5 bits, lowest first, as characters from "0" on; bit 5 says that another
    group follows, and bit 4 of the last one is the sign. From the third on, a number is the difference to the
    run two before. Runs go down the columns, background first. Raises ValueError if they do not fill the
    mask, or if the mask has more than MAX_PIXELS."""
    if height < 1 or width < 1 or height > MAX_PIXELS // width:
        raise ValueError(f"the runs cannot fill {height} x {width} pixels: the size is out of range")
    codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    if codes.size and (codes.min() < 0 or codes.max() > 63 or codes[-1] & 32):
        raise ValueError("these are not counts of a compressed run-length encoding")
    last = (codes & 32) == 0
    first = np.concatenate(([True], last[:-1])) if codes.size else np.zeros(0, bool)
    starts = np.flatnonzero(first)
    group = np.arange(codes.size) - np.repeat(starts, np.diff(np.append(starts, codes.size)))
    if group.size and group.max() > MAX_GROUPS - 1:
        raise ValueError("a run is too long")
    values = np.add.reduceat((codes & 31) << (5 * group), starts) if starts.size else np.zeros(0, np.int64)
    ends = np.flatnonzero(last)
    negative = (codes[ends] & 16) != 0
    values = values - (negative.astype(np.int64) << (5 * (group[ends] + 1)))
    # From the third on, counts are differences: two cumulative sums, of the odd and of the even counts.
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    # Each bounded first, so that their sum cannot wrap around.
    if (runs < 0).any() or (runs > height * width).any() or runs.sum() != height * width:
        raise ValueError(f"the runs do not fill {height} x {width} pixels")
    pixels = np.repeat(np.arange(runs.size) % 2 == 1, runs)
    return pixels.reshape(width, height).T


def encode_rle(mask: ArrayLike) -> str:
    """The compressed counts of a mask, (height, width). Every value except zero is foreground."""
    pixels = np.asarray(mask, dtype=bool)
    if pixels.ndim != 2 or not pixels.size:
        raise ValueError(f"a mask must have the shape (height, width), not {pixels.shape}")
    flat = pixels.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    # The first run is background; it may be empty.
    runs = np.diff(edges, prepend=[0, 0] if flat[0] else [0], append=[flat.size])
    values = runs.copy()
    values[3:] -= runs[1:-2]
    return "".join(map(number, values.tolist()))


def number(value: int) -> str:
    text = ""
    while True:
        group, value = value & 31, value >> 5
        if value == (-1 if group & 16 else 0):
            return text + chr(48 + group)
        text += chr(48 + (group | 32))
