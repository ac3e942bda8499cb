"""Pictures joined of two photographs, and photographs with a thing of another one put in.

Photographs seldom show two of a kind that differ in place or size alone. These do, with exact masks.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from refersam.data.photos.collection import Photograph, Thing

SIDE = 448
"""Longer side of a joined picture, that of the photographs."""
HIDDEN = 0.25
"""A thing that loses more than this share to what is put in front of it makes the place unfit."""


def main_thing(photograph: Photograph) -> tuple[str, float]:
    """The name and the share of the picture of the largest single thing; ("", 0.0) without one."""
    rows, columns = photograph.size
    best = ("", 0.0)
    for item in photograph.row["instances"]:
        if "mask" in item and item["kind"] in ("instance", "component"):
            share = item["box"][2] * item["box"][3] / (rows * columns)
            best = max(best, (item["name"], share), key=lambda pair: pair[1])
    return best


class Composer:
    """Composites of a list of photographs; number i is always the same one."""

    def __init__(self, photographs: Sequence[Photograph], seed: int = 0) -> None:
        self.photographs, self.seed = photographs, seed

    @functools.cached_property
    def by_name(self) -> dict[str, list[int]]:
        """Photographs by the name of their main thing, of names that at least two of them have."""
        found: dict[str, list[int]] = {}
        for index, photograph in enumerate(self.photographs):
            name, share = main_thing(photograph)
            if 0.04 < share < 0.9:
                found.setdefault(name, []).append(index)
        return {name: found[name] for name in sorted(found) if len(found[name]) > 1}

    def compose(self, number: int) -> tuple[np.ndarray, list[Thing], frozenset[str], str]:
        """A picture, its things, the names of all that is known to be in it, and the set that labels it."""
        rng = np.random.default_rng([self.seed, 31, number])
        names = list(self.by_name)
        # Names with many photographs come more often, but not in proportion.
        weights = np.array([len(self.by_name[name]) for name in names]) ** 0.5
        name = names[rng.choice(len(names), p=weights / weights.sum())]
        first = self.by_name[name][int(rng.integers(len(self.by_name[name])))]
        other = name if rng.random() < 0.75 else names[int(rng.integers(len(names)))]
        second = first
        while second == first:  # every list holds two photographs or more
            second = self.by_name[other][int(rng.integers(len(self.by_name[other])))]
        one, two = self.photographs[first], self.photographs[second]
        made = put_in(one, two, rng) if rng.random() < 0.4 else None
        picture, things = made or join(one, two, rng)
        label = "voc" if "voc" in (one.set, two.set) else one.set
        return picture, things, one.names | two.names, label


def join(one: Photograph, two: Photograph, rng: np.random.Generator) -> tuple[np.ndarray, list[Thing]]:
    """Two photographs side by side or one above the other, each cut to a half around its main thing."""
    across = rng.random() < 0.75
    share = rng.uniform(0.4, 0.6)
    long, short = round(SIDE * share), SIDE
    sizes = [(short, long), (short, SIDE - long)] if across else [(long, short), (SIDE - long, short)]
    halves = [_half(photograph, size, rng) for photograph, size in zip((one, two), sizes, strict=True)]
    axis = 1 if across else 0
    picture = np.concatenate([half[0] for half in halves], axis)
    things = []
    for side, (_, own) in enumerate(halves):
        blank = np.zeros(sizes[1 - side], bool)
        for thing in own:
            parts = [thing.mask, blank] if side == 0 else [blank, thing.mask]
            things.append(Thing(thing.name, thing.single, np.concatenate(parts, axis)))
    return picture, things


def _half(
    photograph: Photograph, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, list[Thing]]:
    """A window of the photograph with the proportions of `size`, around its main thing, scaled to it."""
    picture, things = photograph.picture(), photograph.things()
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
        things = [Thing(thing.name, thing.single, thing.mask[:, ::-1]) for thing in things]
    rows, columns = picture.shape[:2]
    biggest = max((thing for thing in things if thing.single), key=lambda thing: thing.mask.sum())
    ys, xs = np.flatnonzero(biggest.mask.any(1)), np.flatnonzero(biggest.mask.any(0))
    # The least scale at which the window holds the thing, up to the largest window that fits.
    ratio = size[0] / size[1]
    most = min(rows, columns * ratio)
    need = max(ys[-1] + 1 - ys[0], (xs[-1] + 1 - xs[0]) * ratio)
    height = min(most, max(need * rng.uniform(1.0, 1.6), most * rng.uniform(0.5, 1.0)))
    high, wide = max(1, round(height)), max(1, round(height / ratio))
    wide = min(wide, columns)
    top = _start((ys[0] + ys[-1] + 1) / 2, high, rows, rng)
    left = _start((xs[0] + xs[-1] + 1) / 2, wide, columns, rng)
    window = np.s_[top : top + high, left : left + wide]
    scaled = Image.fromarray(np.ascontiguousarray(picture[window])).resize(
        size[::-1], Image.Resampling.BILINEAR
    )
    kept = []
    for thing in things:
        mask = _resized(thing.mask[window], size)
        if mask.any():
            kept.append(Thing(thing.name, thing.single, mask))
    return np.asarray(scaled), kept


def _start(centre: float, length: int, limit: int, rng: np.random.Generator) -> int:
    wanted = centre - length / 2 + rng.uniform(-0.1, 0.1) * length
    return int(np.clip(round(wanted), 0, limit - length))


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(mask).astype(np.uint8) * 255)
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)) > 127


def put_in(
    ground: Photograph, source: Photograph, rng: np.random.Generator
) -> tuple[np.ndarray, list[Thing]] | None:
    """`ground` with the main thing of `source` put into it, larger or smaller; None where it does not fit."""
    picture, things = ground.picture().copy(), ground.things()
    pixels, others = source.picture(), source.things()
    singles = [thing for thing in others if thing.single]
    added = max(singles, key=lambda thing: thing.mask.sum())
    ys, xs = np.flatnonzero(added.mask.any(1)), np.flatnonzero(added.mask.any(0))
    window = np.s_[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    cut, mask = pixels[window], added.mask[window]
    if rng.random() < 0.5:
        cut, mask = cut[:, ::-1], mask[:, ::-1]
    rows, columns = picture.shape[:2]
    for _ in range(6):
        scale = rng.uniform(0.25, 0.65) * min(rows / cut.shape[0], columns / cut.shape[1])
        size = (max(8, round(cut.shape[0] * scale)), max(8, round(cut.shape[1] * scale)))
        top, left = int(rng.integers(rows - size[0] + 1)), int(rng.integers(columns - size[1] + 1))
        place = np.s_[top : top + size[0], left : left + size[1]]
        small = _resized(mask, size)
        full = np.zeros((rows, columns), bool)
        full[place] = small
        hidden = [(thing.mask & full).sum() / max(1, thing.mask.sum()) for thing in things]
        if max(hidden, default=0.0) > HIDDEN or small.sum() < 0.01 * full.size:
            continue
        image = Image.fromarray(np.ascontiguousarray(cut)).resize(size[::-1], Image.Resampling.BILINEAR)
        soft = Image.fromarray(small.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(0.7))
        alpha = np.asarray(soft, np.float32)[..., None] / 255
        picture[place] = (alpha * np.asarray(image) + (1 - alpha) * picture[place]).astype(np.uint8)
        rest = [Thing(thing.name, thing.single, thing.mask & ~full) for thing in things]
        return picture, [*(thing for thing in rest if thing.mask.any()), Thing(added.name, True, full)]
    return None
