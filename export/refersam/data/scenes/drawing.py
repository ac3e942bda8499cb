"""Scenes with exact masks: things drawn over a procedural background, reproducible from one integer.

The things are glyphs of Noto Color Emoji (SIL Open Font License 1.1). A scene holds what is needed to decide
which things a phrase means; the phrases are made in `refersam.data.scenes.expressions`.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from refersam.data.scenes.backgrounds import make_background
from refersam.data.scenes.things import THINGS, glyph

SPLITS: dict[str, range] = {
    "train": range(10_000_000),
    "val": range(10_000_000, 10_100_000),
    "test": range(20_000_000, 20_100_000),
}
"""The seeds of each split. They are disjoint, so no scene is in two splits."""

SIDES = (0.24, 0.48)
"""Longer side of a thing as a fraction of the picture's shorter side."""

MAX_ROTATION = 25.0
"""Degrees, either way."""

MIN_VISIBLE = 0.60
"""What stays in sight of each thing once all are drawn, as a fraction of its drawn area."""

MAX_CROPPED = 0.15
"""How much of a thing's area may lie outside the picture."""

SPREAD_PROBABILITY = 0.75
"""How often repeated things get clearly different sizes."""

REPEAT_PROBABILITY = 0.55
"""How often one thing is drawn two or three times in the same scene."""


@dataclass(frozen=True)
class SceneObject:
    """One drawn thing.

    Attributes:
        thing: index into `refersam.data.scenes.things.THINGS`.
        mask: bool [H, W], the pixels where it shows: alpha ≥ 0.5 and not covered by a later object. The masks
            of a scene are disjoint.
        box: left, top, right, bottom of the mask in pixels, right and bottom exclusive.
        centre: x, y of the mask's centroid, in pixels.
        size: area in pixels as drawn, before anything was covered or cropped.
    """

    thing: int
    mask: np.ndarray
    box: tuple[int, int, int, int]
    centre: tuple[float, float]
    size: int


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        objects: 2 to 6 objects, in the order in which they were drawn.
        seed: the seed it was made from.
    """

    image: np.ndarray
    objects: tuple[SceneObject, ...]
    seed: int


def scene_of(split: str, index: int, width: int = 320, height: int = 320) -> Scene:
    """Makes scene `index` of a split; IndexError when the split has no such scene."""
    return make_scene(SPLITS[split][index], width, height)


def make_scene(seed: int, width: int = 320, height: int = 320) -> Scene:
    """Makes the scene of a seed.

    The same seed and size give the same scene in every process (and, with the same Pillow, on every machine).

    Args:
        seed: not negative.
        width: of the picture, in pixels, at least 64.
        height: likewise.

    Raises:
        ValueError: the picture would be smaller than 64 × 64.
        FileNotFoundError: the emoji font is missing.
    """
    if min(width, height) < 64:
        raise ValueError(f"a scene needs at least 64 × 64 pixels, not {width} × {height}")
    rng = np.random.default_rng(seed)
    image = make_background(rng, width, height)
    things = _choose_things(rng)
    lengths = _choose_lengths(rng, things)
    layout = _Layout(width, height)
    while not layout.full(things):
        layout = _Layout(width, height)
        overlap = float(rng.choice([0.0, 0.15, 0.4]))
        for thing, length in zip(things, lengths, strict=True):
            layout.place(rng, thing, length * min(width, height), overlap)
    for sprite in layout.sprites:
        image.paste(sprite.image, (sprite.x, sprite.y), sprite.image)
    return Scene(_photograph(rng, image), layout.objects(), seed)


def _choose_things(rng: np.random.Generator) -> list[int]:
    """Draws 2 to 6 things; in REPEAT_PROBABILITY of all scenes one occurs two or three times."""
    count = int(rng.integers(2, 7))
    repeats = 1
    if rng.random() < REPEAT_PROBABILITY:
        repeats = 2 if rng.random() < 0.6 else 3
        count = max(count, 3, repeats)
    distinct = [int(thing) for thing in rng.choice(len(THINGS), count - repeats + 1, replace=False)]
    things = distinct[:1] * repeats + distinct[1:]
    rng.shuffle(things)
    return things


def _choose_lengths(rng: np.random.Generator, things: list[int]) -> list[float]:
    """Draws each thing's longer side from SIDES; repeated things mostly from separate parts of that range."""
    part = rng.random(len(things))
    if rng.random() < SPREAD_PROBABILITY:
        for thing in set(things):
            alike = rng.permutation([i for i, other in enumerate(things) if other == thing])
            part[alike] = (np.arange(len(alike)) + part[alike]) / len(alike)
    low, high = SIDES
    return [float(low + (high - low) * p) for p in part]


@dataclass(frozen=True)
class _Sprite:
    """A rotated and scaled glyph; its top left corner (x, y) may lie outside the picture."""

    thing: int
    image: Image.Image  # RGBA
    solid: np.ndarray  # bool [h, w]: alpha ≥ 0.5
    x: int
    y: int


class _Layout:
    """Where things lie.

    `owner` [H, W] is the index of the topmost sprite at each pixel, -1 for none; `drawn` and `visible` count
    the pixels of each sprite before and after covering and cropping.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.owner = np.full((height, width), -1, np.int8)
        self.sprites: list[_Sprite] = []
        self.drawn: list[int] = []
        self.visible: list[int] = []

    def full(self, things: list[int]) -> bool:
        """Whether every thing found a place."""
        return len(self.sprites) == len(things)

    def place(self, rng: np.random.Generator, thing: int, longest: float, overlap: float) -> None:
        """Puts the thing where it hides others with at most the fraction `overlap` of its area.

        It shrinks from `longest` pixels when there is no room, and is left out when that does not help.
        """
        shortest = SIDES[0] * min(self.width, self.height)
        for attempt in range(24):
            if attempt % 6 == 0:
                length = max(longest * 0.85 ** (attempt // 6), shortest)
                image = _draw(thing, length, rng.uniform(-MAX_ROTATION, MAX_ROTATION), rng.random() < 0.5)
                solid = np.asarray(image)[..., 3] >= 128
                area = int(np.count_nonzero(solid))
            slack = 0.08 if rng.random() < 0.3 else 0.0
            x = int(rng.integers(-slack * image.width, self.width - (1 - slack) * image.width + 1))
            y = int(rng.integers(-slack * image.height, self.height - (1 - slack) * image.height + 1))
            if self._try(_Sprite(thing, image, solid, x, y), area, overlap):
                return

    def _try(self, sprite: _Sprite, area: int, overlap: float) -> bool:
        h, w = sprite.solid.shape
        top, left = max(sprite.y, 0), max(sprite.x, 0)
        bottom, right = min(sprite.y + h, self.height), min(sprite.x + w, self.width)
        solid = sprite.solid[top - sprite.y : bottom - sprite.y, left - sprite.x : right - sprite.x]
        inside = int(np.count_nonzero(solid))
        if inside < (1 - MAX_CROPPED) * area:
            return False
        window = self.owner[top:bottom, left:right]
        covered = np.bincount(window[solid] + 1, minlength=len(self.sprites) + 1)[1:]
        if covered.sum() > overlap * area:
            return False
        visible = [before - int(lost) for before, lost in zip(self.visible, covered, strict=True)]
        if any(left_over < MIN_VISIBLE * full for left_over, full in zip(visible, self.drawn, strict=True)):
            return False
        window[solid] = len(self.sprites)
        self.sprites.append(sprite)
        self.drawn.append(area)
        self.visible = [*visible, inside]
        return True

    def objects(self) -> tuple[SceneObject, ...]:
        return tuple(self._object(index) for index in range(len(self.sprites)))

    def _object(self, index: int) -> SceneObject:
        mask = self.owner == index
        ys, xs = np.divmod(np.flatnonzero(mask), self.width)
        return SceneObject(
            thing=self.sprites[index].thing,
            mask=mask,
            box=(int(xs.min()), int(ys[0]), int(xs.max()) + 1, int(ys[-1]) + 1),
            centre=(float(xs.mean()), float(ys.mean())),
            size=self.drawn[index],
        )


@cache
def _levels(thing: int, mirrored: bool) -> tuple[Image.Image, Image.Image]:
    """The glyph at full and half size, alpha premultiplied so that scaling mixes in no hidden colours."""
    image = glyph(thing)
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    full = image.convert("RGBa")
    return full, full.reduce(2)


def _draw(thing: int, length: float, degrees: float, mirrored: bool) -> Image.Image:
    """Renders a thing, RGBA: longer side `length` pixels, then rotated; cropped to the pixels it touches."""
    full, half = _levels(thing, mirrored)
    scale = length / max(full.size)
    source, scale = (half, scale * max(full.size) / max(half.size)) if scale < 0.6 else (full, scale)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    w = math.ceil(scale * (source.width * cos + source.height * abs(sin))) + 2
    h = math.ceil(scale * (source.height * cos + source.width * abs(sin))) + 2
    a, b = cos / scale, sin / scale
    matrix = (
        a, b, source.width / 2 - (a * w + b * h) / 2,
        -b, a, source.height / 2 - (a * h - b * w) / 2,
    )  # fmt: skip
    image = source.transform((w, h), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    image = image.convert("RGBA")
    return image.crop(image.getchannel("A").getbbox())


def _photograph(rng: np.random.Generator, image: Image.Image) -> np.ndarray:
    """Adds what a camera adds: contrast, brightness, tint, blur, grain, JPEG. uint8 [H, W, 3]."""
    contrast, brightness = rng.uniform(0.75, 1.2), rng.uniform(-30, 30)
    tint = rng.uniform(-8, 8, 3)
    levels = np.arange(256)
    curves = [contrast * (levels - 128) + 128 + brightness + shift for shift in tint]
    image = image.point(np.clip(np.concatenate(curves), 0, 255).astype(np.uint8).tolist())
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.2, 0.9)))
    if rng.random() < 0.5:
        amplitude = 2 ** int(rng.integers(2, 5))
        shape = (image.height, image.width, 3)
        grain = np.frombuffer(rng.bytes(math.prod(shape)), np.uint8) & (2 * amplitude - 1)
        image = ImageChops.add(image, Image.fromarray(grain.reshape(shape)), offset=-amplitude)
    if rng.random() < 0.5:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(rng.integers(40, 96)))
        image = Image.open(file)
    return np.array(image)
