"""Photographs with masks of their things, as they lie on disk, and their split by picture.

A collection is a folder with a folder per set (`coco`, `voc`); a set has `instances.jsonl`, a row per
picture, and the pictures that the rows name:

    {"image": "images/1.jpg", "width": 448, "height": 336, "instances": [
        {"name": "dog", "kind": "instance", "box": [x, y, w, h],
         "mask": {"size": [336, 448], "counts": "…"}}]}

A mask is a run-length code of COCO's. Of the kinds, `instance` and `component` are one thing each; the others
(`crowd`, `region`) may be several.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as runs

SINGLE = ("instance", "component")

SPLITS = ("train", "dev", "test")
SHARES = {"coco": (0.10, 0.15), "voc": (0.05, 0.10)}
"""Of a set's pictures: the shares of `dev` and of `test`. The rest is `train`."""
OTHER_SHARES = (0.10, 0.10)


@dataclass(frozen=True)
class Thing:
    """One thing of a picture, or several where `single` is false. `mask` is bool [H, W]."""

    name: str
    single: bool
    mask: np.ndarray
    colour: str = ""
    """Its plain colour, "" where the pixels do not say one."""


@dataclass(frozen=True)
class Photograph:
    """A row of a set; `identity` is `SET/IMAGE`."""

    set: str
    identity: str
    path: Path
    row: dict[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.row["height"], self.row["width"]

    def picture(self) -> np.ndarray:
        """uint8 [H, W, 3]. Raises ValueError when the file is of another size than the row says."""
        with Image.open(self.path) as image:
            pixels = np.asarray(image.convert("RGB"))
        if pixels.shape[:2] != self.size:
            raise ValueError(f"{self.path} is of {pixels.shape[:2]} pixels, its row says {self.size}")
        return pixels

    def things(self) -> list[Thing]:
        """Its things with their masks; those without a mask are left out."""
        return [
            Thing(item["name"], item["kind"] in SINGLE, runs.decode(item["mask"]).astype(bool))
            for item in self.row["instances"]
            if "mask" in item
        ]

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """Names of all things, also of those without a mask."""
        return frozenset(item["name"] for item in self.row["instances"])


def read(place: Path, split: str) -> list[Photograph]:
    """The photographs of a split, set by set, in the order of their rows.

    Raises ValueError for a folder without rows and for a damaged row, with its file and line.
    """
    if split not in SPLITS:
        raise ValueError(f"photographs have no split {split!r}; allowed: {', '.join(SPLITS)}")
    files = sorted(place.glob("*/instances.jsonl"))
    if not files:
        raise ValueError(f"{place} holds no SET/instances.jsonl, so there are no photographs to read")
    found: list[Photograph] = []
    for file in files:
        rows = list(_rows(file))
        if not rows:
            raise ValueError(f"{file} has no rows")
        found += [photograph for photograph in rows if split_of(photograph) == split]
    return found


def _rows(file: Path) -> Iterator[Photograph]:
    with file.open() as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                image, _, _, things = (row[key] for key in ("image", "width", "height", "instances"))
                if any({"name", "kind"} - item.keys() for item in things):
                    raise KeyError("name or kind of an instance")
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{file}, line {number} is no row of a photograph: {error!r}") from error
            name = file.parent.name
            yield Photograph(name, f"{name}/{image}", file.parent / image, row)


def split_of(photograph: Photograph) -> str:
    """A function of the picture's identity, so the same picture never changes sides."""
    digest = hashlib.sha256(photograph.identity.encode()).digest()
    at = int.from_bytes(digest[:6]) / 2**48
    dev, test = SHARES.get(photograph.set, OTHER_SHARES)
    return "dev" if at < dev else "test" if at < dev + test else "train"


COLOURS = {
    # hue from, hue to (degrees), least saturation, least value
    "red": (345, 12, 0.5, 0.25),
    "orange": (13, 35, 0.65, 0.55),
    "yellow": (44, 66, 0.5, 0.5),
    "green": (85, 160, 0.35, 0.2),
    "blue": (195, 250, 0.4, 0.25),
}
PLAIN = 0.55
"""The share of a thing's pixels that must have a colour for the colour to be named."""


def plain_colour(pixels: np.ndarray) -> str:
    """The colour that most of uint8 [N, 3] have, "" when none has PLAIN of them."""
    if len(pixels) < 50:
        return ""
    values = pixels.astype(np.float32) / 255
    high, low = values.max(1), values.min(1)
    spread = high - low
    saturation = np.where(high > 0, spread / np.maximum(high, 1e-6), 0)
    red, green, blue = values.T
    safe = np.maximum(spread, 1e-6)
    hue = np.select(
        [high == red, high == green],
        [(green - blue) / safe % 6, (blue - red) / safe + 2],
        (red - green) / safe + 4,
    )
    hue = hue * 60
    shares = {
        "black": (high < 0.22).mean(),
        "white": ((high > 0.75) & (saturation < 0.15)).mean(),
    }
    for name, (first, last, least_saturation, least_value) in COLOURS.items():
        inside = (hue >= first) & (hue <= last) if first < last else (hue >= first) | (hue <= last)
        shares[name] = (inside & (saturation >= least_saturation) & (high >= least_value)).mean()
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] >= PLAIN else ""


def coloured(picture: np.ndarray, things: Sequence[Thing]) -> list[Thing]:
    """The same things, each with its plain colour."""
    return [
        Thing(thing.name, thing.single, thing.mask, plain_colour(picture[thing.mask]) if thing.single else "")
        for thing in things
    ]
