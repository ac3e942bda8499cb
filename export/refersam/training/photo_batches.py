"""Batches for the photo variants: cached features, and phrases asked anew in every step.

The phrases of a step are a function of (seed, step), so a resumed run goes on exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from refersam.data.photos import Photos, vocabulary
from refersam.data.photos.collection import Thing
from refersam.data.photos.grammar import WEIGHTS, Asked, Speaker
from refersam.data.transforms import LONGEST_SIDE_PAD, inside, normalise, square
from refersam.model.nanodet import STRIDES
from refersam.model.photo import PhotoSAM
from refersam.model.photo_encoders import PhotoFeatures
from refersam.training.features import FeatureCache

SIDE = 512
"""Of the pictures, whose features are cached."""
MASK_SIDE = 128
"""Of the masks that training compares with: a quarter of SIDE."""
COLOUR = "colour"
"""The one map of the cache that is no field of `PhotoFeatures`."""

TRAINED = WEIGHTS | {"place": 2.5, "size": 2.0, "relation": 1.5, "plural": 1.3, "ordinal": 1.0}
"""Weights of the kinds in training: more of what asks for one of several, which is learned last."""

SHAPES = {
    "tiny8": (128, 64, 64),
    "tiny16": (160, 32, 32),
    "tiny_last": (320, 32, 32),
    "embedding": (256, 32, 32),
    "lite16": (112, 32, 32),
    "lite32": (1280, 16, 16),
    "scores": (80, 5376),
    "boxes": (4, 5376),
}
"""Of the cached maps, for pictures of SIDE."""


@dataclass(frozen=True)
class SmallScene:
    """A picture's things at MASK_SIDE, without the padding, and what is known of its names."""

    things: list[Thing]
    labelled: frozenset[str]
    set: str
    colour: np.ndarray
    """float16 [3, 32, 32]: the mean colour of the patches, normalised."""


def small_scene(photos: Photos, index: int) -> SmallScene:
    """Sample `index` as training needs it."""
    picture, things, labelled, label = photos.scene(index)
    rows, columns = inside(*picture.shape[:2], MASK_SIDE, LONGEST_SIDE_PAD)
    small = []
    for thing in things:
        image = Image.fromarray(thing.mask.astype(np.uint8) * 255)
        mask = np.asarray(image.resize((columns, rows), Image.Resampling.BOX)) > 127
        small.append(Thing(thing.name, thing.single, mask, thing.colour))
    return SmallScene(small, labelled, label, colour_of(picture))


def colour_of(picture: np.ndarray) -> np.ndarray:
    """float16 [3, 32, 32] of uint8 [H, W, 3], as `PhotoSAM.colour` gives it for the padded square."""
    pixels = torch.from_numpy(square(picture, SIDE, LONGEST_SIDE_PAD))[None]
    return PhotoSAM.colour(normalise(pixels))[0].half().numpy()


@dataclass(frozen=True)
class PhotoBatch:
    """B pictures with P phrases each; row b·P + p belongs to picture b."""

    features: PhotoFeatures  # [B, …]
    colour: Tensor  # [B, 3, 32, 32]
    phrases: list[str]  # B·P
    kinds: list[str]
    masks: Tensor  # float32 [B·P, 128, 128], 0 or 1
    boxes: list[Tensor]  # of the things that each phrase means, [n, 4] as shares of the square

    @property
    def present(self) -> Tensor:
        """bool [B·P]"""
        return torch.tensor([kind != "none" for kind in self.kinds])


class PhotoBatches:
    """Draws batches of those samples whose features are there."""

    def __init__(
        self,
        photos: Photos,
        scenes: Sequence[SmallScene | None],
        cache: FeatureCache,
        pictures: int,
        phrases: int,
        absent: int,
        seed: int,
    ) -> None:
        self.photos, self.scenes, self.cache = photos, scenes, cache
        self.pictures, self.phrases, self.absent, self.seed = pictures, phrases, absent, seed
        there = [int(i) for i in cache.available() if scenes[int(i)] is not None]
        # Pictures of COCO are few and show most of the names, so they come twice as often.
        self.pool = there + [i for i in there if scenes[i].set == "coco"]
        if not self.pool:
            raise ValueError(f"{cache.folder} holds no features yet")

    def indices(self, step: int) -> list[int]:
        """Samples of a step: every epoch is one permutation of the pool."""
        positions = np.arange(step * self.pictures, (step + 1) * self.pictures)
        count = len(self.pool)
        orders = {
            epoch: np.random.default_rng([self.seed, 51, int(epoch)]).permutation(count)
            for epoch in set(positions // count)
        }
        return [self.pool[orders[p // count][p % count]] for p in positions]

    def batch(self, step: int) -> PhotoBatch:
        rng = np.random.default_rng([self.seed, 52, step])
        chosen = self.indices(step)
        read = self.cache.read(chosen)
        colour = np.stack([self.scenes[i].colour for i in chosen])
        phrases, kinds, masks, boxes = [], [], [], []
        for row, index in enumerate(chosen):
            scene = self.scenes[index]
            things, turned = drawn_things(scene, rng)
            if turned:
                for name, value in read.items():
                    value[row] = mirrored(name, value[row])
                colour[row] = colour[row][..., ::-1]
            for asked in ask(scene, things, self.phrases, self.absent, rng):
                phrases.append(asked.phrase)
                kinds.append(asked.kind)
                mask, around = answer(asked, things)
                masks.append(mask)
                boxes.append(around)
        return PhotoBatch(
            PhotoFeatures(**{name: read[name] for name in PhotoFeatures._fields}),
            torch.from_numpy(colour.astype(np.float32)),
            phrases,
            kinds,
            torch.from_numpy(np.stack(masks)).float(),
            boxes,
        )


def drawn_things(scene: SmallScene, rng: np.random.Generator) -> tuple[list[Thing], bool]:
    """The scene's things, mirrored in half of the draws, and whether they are.

    Only a picture that fills the square's width may be mirrored, because its padding stays below.
    """
    things = scene.things
    if things and things[0].mask.shape[1] == MASK_SIDE and rng.random() < 0.5:
        return [Thing(t.name, t.single, t.mask[:, ::-1], t.colour) for t in things], True
    return things, False


class Labelled(Protocol):
    """What is known of a picture's names."""

    @property
    def labelled(self) -> frozenset[str]: ...
    @property
    def set(self) -> str: ...


def ask(
    scene: Labelled, things: list[Thing], count: int, absent: int, rng: np.random.Generator
) -> list[Asked]:
    """`count` phrases about a scene; a picture with too few of its own gets more about what is not there."""
    return Speaker(things, vocabulary(scene.set, rng), scene.labelled).draw(count, absent, rng, TRAINED)


def answer(asked: Asked, things: list[Thing]) -> tuple[np.ndarray, Tensor]:
    """The padded mask that a phrase means, bool [128, 128], and the boxes of the things in it, [n, 4]."""
    mask = np.zeros((MASK_SIDE, MASK_SIDE), bool)
    boxes = []
    for index in asked.targets:
        own = things[index].mask
        mask[: own.shape[0], : own.shape[1]] |= own
        rows, columns = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
        if len(rows):
            boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return mask, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) / MASK_SIDE


def mirrored(name: str, value: Tensor) -> Tensor:
    """A cached map of the mirrored picture, as nearly as the map tells: [C, …] -> [C, …]."""
    if name not in ("scores", "boxes"):
        return value.flip(-1)
    sides = [SIDE // stride for stride in STRIDES]
    parts = value.split([side * side for side in sides], 1)
    flipped = [
        part.reshape(-1, side, side).flip(-1).reshape(-1, side * side)
        for part, side in zip(parts, sides, strict=True)
    ]
    value = torch.cat(flipped, 1)
    if name == "boxes":
        value = torch.stack([1 - value[2], value[1], 1 - value[0], value[3]])
    return value
