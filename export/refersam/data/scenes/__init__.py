"""Scenes that the project draws itself: emoji over painted backgrounds, with phrases by grammar.

The split `train` is a pool on disk, made by `python -m refersam.data.pool`; `val` and `test` are drawn anew.
"""

from __future__ import annotations

from pathlib import Path

from refersam.data.sample import Dataset
from refersam.data.scenes.drawing import SPLITS
from refersam.data.scenes.pool import Pool
from refersam.data.scenes.questions import Drawn


def load(place: Path | None, split: str, side: int) -> Dataset:
    """Opens the pool in `place` for `train`; `val` and `test` need no place."""
    if split not in SPLITS:
        raise ValueError(f"scenes have no split {split!r}; allowed: {', '.join(SPLITS)}")
    if split != "train":
        return Drawn(split)
    if place is None:
        raise ValueError("the split 'train' of scenes is a pool on disk; name its folder: scenes:DIR")
    return Pool.open(place, side)
