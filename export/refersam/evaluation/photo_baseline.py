"""What a photo variant is compared with: a detector picks boxes by name and rule, SAM cuts them out.

It is no model of this project: rules that were written for the grammar of `data.photos` read the phrase, and
every part is pretrained and untouched.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from refersam.data.photos import names
from refersam.data.transforms import LONGEST_SIDE_PAD, normalise, square, upsample
from refersam.model.candidates import overlaps
from refersam.model.grid import Grid
from refersam.model.names import aliases, coco_names
from refersam.model.photo import PhotoSAM
from refersam.model.photo_encoders import PhotoFeatures

CERTAIN = 0.35
"""Score from which on a box counts."""
CLOSE = 0.5
"""Boxes count that reach this share of the best score of the name."""
OVERLAP = 0.5
MOST = 8
"""Boxes of a phrase, at most."""


@dataclass(frozen=True)
class Rule:
    """What a phrase asks for, by its words."""

    classes: tuple[str, ...]
    reference: tuple[str, ...] = ()
    pick: str = ""
    """left, right, top, bottom, middle, big, small, a relation (`of-left`, …, near); "" for the surest."""
    nth: int = 0
    every: bool = False
    spared: bool = False
    """All but the one that `pick` says."""


WORDS = {word: classes for word, classes in aliases() if classes}
WORDS |= {names.plural(word): classes for word, classes in WORDS.items()}
NAMED = re.compile(r"\b(" + "|".join(sorted(map(re.escape, WORDS), key=len, reverse=True)) + r")\b")
PICKS = (
    ("left", r"\b(left|leftmost)\b"),
    ("right", r"\b(right|rightmost)\b"),
    ("top", r"\b(top|upper|highest)\b"),
    ("bottom", r"\b(bottom|lower|lowest)\b"),
    ("middle", r"\b(middle|center|between)\b"),
    ("big", r"\b(big|bigger|biggest|large|larger|largest)\b"),
    ("small", r"\b(small|smaller|smallest|little|littlest)\b"),
)
BETWEEN = (
    ("of-left", r"\bleft of\b"),
    ("of-right", r"\bright of\b"),
    ("of-top", r"\b(above|over)\b"),
    ("of-bottom", r"\b(below|under)\b"),
    ("near", r"\b(next to|beside|near|by)\b"),
)
EVERY = re.compile(r"\b(all|every|both|two|three|four|five|six|people|sheep)\b")


def read(phrase: str) -> Rule | None:
    """The rule of a phrase, None when it names nothing that the detector knows."""
    phrase = phrase.lower()
    for pick, pattern in BETWEEN:
        found = re.search(pattern, phrase)
        if found and NAMED.search(phrase, found.end()):
            one, two = NAMED.search(phrase[: found.start()]), NAMED.search(phrase, found.end())
            return Rule(WORDS[one[1]], WORDS[two[1]], pick) if one and two else None
    named = NAMED.search(phrase)
    if not named:
        return None
    word, classes = named[1], WORDS[named[1]]
    ordinal = next((i for i, each in enumerate(names.ORDINALS) if re.search(rf"\b{each}\b", phrase)), None)
    pick = next((pick for pick, pattern in PICKS if re.search(pattern, phrase)), "")
    if ordinal is not None:
        return Rule(classes, pick="left" if "left" in phrase else "right", nth=ordinal)
    if "not" in phrase.split() or "except" in phrase:
        other = NAMED.search(phrase, named.end())
        if other:
            rest = tuple(each for each in classes if each not in WORDS[other[1]])
            return Rule(rest)
        return Rule(classes, pick=pick, every=True, spared=True)
    several = bool(EVERY.search(phrase)) or (word not in dict(aliases()) and "of the" not in phrase)
    return Rule(classes, pick="" if several else pick, every=several)


def choose(rule: Rule, scores: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Boxes [n, 4] that a rule picks of a detector's scores [80, N], as probabilities, and boxes [N, 4]."""
    found = _boxes(rule.classes, scores, boxes)
    if not len(found):
        return found
    x, y = (found[:, 0] + found[:, 2]) / 2, (found[:, 1] + found[:, 3]) / 2
    if rule.reference:
        reference = _boxes(rule.reference, scores, boxes)
        if not len(reference):
            return reference
        rx, ry = (reference[0, 0] + reference[0, 2]) / 2, (reference[0, 1] + reference[0, 3]) / 2
        far = np.hypot(x - rx, y - ry)
        fits = {"of-left": x < rx, "of-right": x > rx, "of-top": y < ry, "of-bottom": y > ry}
        far = np.where(fits.get(rule.pick, np.ones(len(found), bool)), far, far + 10)
        return found[[int(far.argmin())]]
    sides = found[:, 2:] - found[:, :2]
    area = sides[:, 0] * sides[:, 1]
    keys = {"left": x, "right": -x, "top": y, "bottom": -y, "big": -area, "small": area}
    keys["middle"] = np.abs(x - np.median(x))
    order = np.argsort(keys[rule.pick]) if rule.pick else np.arange(len(found))
    if rule.spared:
        return found[order[1:]]
    if rule.every:
        return found
    return found[[order[min(rule.nth, len(order) - 1)]]]


def _boxes(classes: tuple[str, ...], scores: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The boxes of classes, the surest first, without those that overlap a surer one."""
    known = coco_names()
    score = scores[[known.index(each) for each in classes]].max(0)
    order = np.argsort(-score)
    order = order[score[order] >= max(CERTAIN, CLOSE * score[order[0]])][:200]
    kept: list[int] = []
    for cell in order:
        pair = torch.from_numpy(boxes[[*kept, cell]])[None]
        if not (overlaps(pair, pair)[0, :-1, -1] > OVERLAP).any():
            kept.append(int(cell))
    return boxes[kept[:MOST]]


class Baseline:
    """Answers phrases about a picture; `model` gives the frozen networks and SAM's decoder as it came."""

    def __init__(self, model: PhotoSAM, side: int = 512) -> None:
        self.model, self.side = model.eval(), side

    @torch.inference_mode()
    def features(self, picture: np.ndarray) -> PhotoFeatures:
        pixels = torch.from_numpy(square(picture, self.side, LONGEST_SIDE_PAD))[None]
        return self.model.encoders(normalise(pixels))

    @torch.inference_mode()
    def answer(self, features: PhotoFeatures, size: tuple[int, int], phrase: str) -> np.ndarray:
        """bool [H, W]"""
        mask = np.zeros(size, bool)
        rule = read(phrase)
        if rule is None:
            return mask
        scores = features.scores[0].sigmoid().numpy()
        for box in choose(rule, scores, features.boxes[0].t().numpy()):
            logits = self._cut(features.embedding, torch.from_numpy(box).clamp(0, 1))
            mask |= upsample(logits.numpy(), *size, LONGEST_SIDE_PAD) >= 0
        return mask

    def _cut(self, embedding: Tensor, box: Tensor) -> Tensor:
        """SAM's first hypothesis for a box, [H/4, W/4]."""
        encoder, decoder = self.model.sam_prompt_encoder, self.model.sam_mask_decoder
        corners = 2 * box.reshape(2, 2) - 1
        angle = 2 * math.pi * (corners @ encoder.pe_layer.positional_encoding_gaussian_matrix)
        code = torch.cat([angle.sin(), angle.cos()], -1)
        kinds = torch.cat([encoder.point_embeddings[2].weight, encoder.point_embeddings[3].weight])
        grid = Grid(*embedding.shape[-2:])
        dense = encoder.no_mask_embed.weight[0][None, :, None, None].expand_as(embedding)
        return decoder(embedding, encoder.pe_layer(grid), (code + kinds)[None], dense)[0, 0]
