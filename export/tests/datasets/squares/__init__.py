"""A data set of another kind than scenes: plain squares, pictures of several sizes, no auxiliary labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from refersam.data.sample import Dataset, Question, Sample

COLOURS = {"red": (220, 30, 30), "green": (30, 190, 40), "blue": (40, 60, 230)}
SPLITS = {"train": 0, "val": 1_000, "testA": 2_000}


class Squares:
    """Each picture has one square of each of two colours, and a question about each colour."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(self.first + index)
        height, width = (int(side) for side in rng.integers(40, 90, 2))
        picture = np.full((height, width, 3), 128, np.uint8)
        side = min(height, width) // 3
        shown = [str(colour) for colour in rng.permutation(list(COLOURS))[:2]]
        masks = {colour: np.zeros((height, width), bool) for colour in COLOURS}
        for half, colour in enumerate(shown):
            top = int(rng.integers(0, height - side))
            left = int(rng.integers(0, width // 2 - side)) + half * (width // 2)
            masks[colour][top : top + side, left : left + side] = True
            picture[masks[colour]] = COLOURS[colour]
        return Sample(
            picture,
            tuple(
                Question(
                    f"the {colour} square",
                    lambda mask=mask: mask,
                    kind="seen" if colour in shown else "absent",
                )
                for colour, mask in masks.items()
            ),
        )


def load(place: Path | None, split: str, side: int) -> Dataset:
    """Opens a split; `place` must be a folder, which a real data set would read."""
    if place is None or not place.is_dir():
        raise FileNotFoundError(f"{place} is no folder of squares")
    if split not in SPLITS:
        raise ValueError(f"squares have no split {split!r}; allowed: {', '.join(SPLITS)}")
    return Squares(SPLITS[split])
