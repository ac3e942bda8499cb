"""What the detector finds in pictures, and in up to four pictures laid side by side; no pixel is read.

A photograph seldom shows several things of a kind that differ in place or size alone. Boxes and masks of
several photographs can be put into one frame at no cost, so the choice among boxes is learned there.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from refersam.data.photos.collection import Thing
from refersam.training.photo_batches import MASK_SIDE, SmallScene

COUNTS = (0.45, 0.3, 0.15, 0.1)
"""How often 1, 2, 3 and 4 pictures are laid into a frame."""
ALIKE = 0.75
"""Share of the pictures of a frame whose main thing has the first one's name."""
NOTHING = -20.0
"""Logit of the detector's classes in a cell that is there only to fill up."""


@dataclass(frozen=True)
class BoxPicture:
    """A frame as the chooser sees it. The number of cells N is the same for every frame."""

    scores: np.ndarray
    """float32 [80, N]: logits of the detector's classes"""
    boxes: np.ndarray
    """float32 [4, N]: shares of the square around the frame, whose padding is below or on the right"""
    things: list[Thing]
    """Masks of MASK_SIDE along the longer side of the frame"""
    labelled: frozenset[str]
    set: str


@dataclass(frozen=True)
class Tile:
    """A picture's place in the frame: scale and upper left corner, in shares of the frame's longer side."""

    scale: float
    left: float
    top: float


class BoxPictures:
    """Frames of the samples `pool`, drawn at random. `arrays` are those of the features' cache."""

    def __init__(
        self, scenes: Sequence[SmallScene | None], arrays: Mapping[str, np.ndarray], pool: Sequence[int]
    ) -> None:
        self.scenes, self.arrays, self.pool = scenes, arrays, pool

    @functools.cached_property
    def by_name(self) -> dict[str, list[int]]:
        """Samples by the name of their largest single thing."""
        named: dict[str, list[int]] = {}
        for index in self.pool:
            single = [thing for thing in self.scenes[index].things if thing.single]
            if single:
                named.setdefault(max(single, key=lambda thing: thing.mask.sum()).name, []).append(index)
        return named

    def draw(self, rng: np.random.Generator) -> BoxPicture:
        count = 1 + int(rng.choice(len(COUNTS), p=COUNTS))
        if count == 1 or not self.by_name:
            return self.lay([self.pool[int(rng.integers(len(self.pool)))]], [Tile(1.0, 0.0, 0.0)], rng)
        names = list(self.by_name)
        # Names with many pictures come more often, but not in proportion.
        shares = np.array([len(self.by_name[name]) for name in names]) ** 0.5
        main, *others = rng.choice(names, count, p=shares / shares.sum())
        drawn = [main, *(main if rng.random() < ALIKE else other for other in others)]
        chosen = [self.by_name[name][int(rng.integers(len(self.by_name[name])))] for name in drawn]
        sizes = [self.size(index) for index in chosen]
        return self.lay(chosen, tiles(sizes, rng), rng)

    def size(self, index: int) -> tuple[float, float]:
        """Rows and columns of a sample, in shares of its longer side."""
        things = self.scenes[index].things
        rows, columns = things[0].mask.shape if things else (MASK_SIDE, MASK_SIDE)
        return rows / MASK_SIDE, columns / MASK_SIDE

    def lay(self, chosen: Sequence[int], places: Sequence[Tile], rng: np.random.Generator) -> BoxPicture:
        """The frame of samples at their places, each mirrored in half of the draws."""
        sizes = [self.size(index) for index in chosen]
        pairs = list(zip(places, sizes, strict=True))
        frame = (
            max(tile.top + tile.scale * size[0] for tile, size in pairs),
            max(tile.left + tile.scale * size[1] for tile, size in pairs),
        )
        shape = tuple(min(MASK_SIDE, max(1, round(MASK_SIDE * length))) for length in frame)
        cells = self.arrays["scores"].shape[2]
        scores = np.full((self.arrays["scores"].shape[1], cells), NOTHING, np.float32)
        boxes = np.zeros((4, cells), np.float32)
        share = cells // len(chosen)
        things: list[Thing] = []
        for row, (index, tile, size) in enumerate(zip(chosen, places, sizes, strict=True)):
            own = self.arrays["scores"][index].astype(np.float32)
            around = self.arrays["boxes"][index].astype(np.float32)
            if len(chosen) > 1:
                best = np.argpartition(-own.max(0), share - 1)[:share]
                own, around = own[:, best], around[:, best]
            turned = rng.random() < 0.5
            if turned:
                around = np.stack([size[1] - around[2], around[1], size[1] - around[0], around[3]])
            offset = np.array([tile.left, tile.top, tile.left, tile.top], np.float32)[:, None]
            scores[:, row * share : (row + 1) * share] = own
            boxes[:, row * share : (row + 1) * share] = around * tile.scale + offset
            things += [
                Thing(thing.name, thing.single, put(thing.mask, tile, shape, turned), thing.colour)
                for thing in self.scenes[index].things
            ]
        scenes = [self.scenes[index] for index in chosen]
        return BoxPicture(
            scores,
            boxes,
            things,
            frozenset().union(*(scene.labelled for scene in scenes)),
            "voc" if any(scene.set == "voc" for scene in scenes) else scenes[0].set,
        )


def tiles(sizes: Sequence[tuple[float, float]], rng: np.random.Generator) -> list[Tile]:
    """Places of pictures in a row or a column, at random scales, so that the frame's longer side is 1."""
    across = rng.random() < 0.7
    along, other = (1, 0) if across else (0, 1)
    scales = [rng.uniform(0.55, 1.0) / size[other] for size in sizes]
    lengths = [scale * size[along] for scale, size in zip(scales, sizes, strict=True)]
    heights = [scale * size[other] for scale, size in zip(scales, sizes, strict=True)]
    longest = max(sum(lengths), max(heights))
    places, start = [], 0.0
    for scale, length, height in zip(scales, lengths, heights, strict=True):
        beside = rng.uniform(0, max(heights) - height)
        left, top = (start, beside) if across else (beside, start)
        places.append(Tile(scale / longest, left / longest, top / longest))
        start += length
    return places


def put(mask: np.ndarray, tile: Tile, shape: tuple[int, ...], turned: bool) -> np.ndarray:
    """A thing's mask in a frame of `shape`: each cell of the frame takes the nearest one of the mask."""
    if turned:
        mask = mask[:, ::-1]
    whole = np.zeros(shape, bool)
    rows, columns = (
        np.floor(((np.arange(length) + 0.5) / MASK_SIDE - start) / tile.scale * MASK_SIDE).astype(int)
        for length, start in zip(shape, (tile.top, tile.left), strict=True)
    )
    ys = np.flatnonzero((rows >= 0) & (rows < mask.shape[0]))
    xs = np.flatnonzero((columns >= 0) & (columns < mask.shape[1]))
    whole[np.ix_(ys, xs)] = mask[np.ix_(rows[ys], columns[xs])]
    return whole
