"""Chooses the two cuts of a photo variant on a split: of the mask's logits, and of the presence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from refersam import tokenizer
from refersam.data.photos import Photos
from refersam.data.transforms import normalise, square, upsample
from refersam.model.photo import PhotoSAM
from refersam.serving.checkpoint import Checkpoint

MASK_CUTS = tuple(float(cut) for cut in np.arange(-2.0, 2.01, 0.25))
LEAST = 0.9
"""Share of absent phrases that must be left empty, and of the others that must not, if both can be had."""


@dataclass(frozen=True)
class Measured:
    """The phrases of a split: set, presence logit, IoU at each of MASK_CUTS (NaN if it means nothing)."""

    sets: list[str]
    presence: np.ndarray  # [N]
    ious: np.ndarray  # [N, cuts]

    @property
    def present(self) -> np.ndarray:
        return ~np.isnan(self.ious[:, 0])


@dataclass(frozen=True)
class Cuts:
    mask: float
    presence: float
    empty: float
    """Share of the absent phrases that these cuts leave empty."""
    answered: float
    """Share of the others that they do not."""


@torch.inference_mode()
def measure(checkpoint: Checkpoint, photos: Photos) -> Measured:
    """Asks every question of a split, before any cut."""
    model = checkpoint.model.eval()
    if not isinstance(model, PhotoSAM):
        raise ValueError("only a photo variant has cuts to choose")
    encode = tokenizer.load(checkpoint.tokenizer).encode
    sets: list[str] = []
    presence: list[float] = []
    ious: list[list[float]] = []
    for index in range(len(photos)):
        sample = photos[index]
        pixels = torch.from_numpy(square(sample.picture, checkpoint.image_size, checkpoint.resize))[None]
        picture = model.image_prefix(normalise(pixels))
        phrases = [question.phrase for question in sample.questions]
        ids, mask = (torch.from_numpy(array) for array in encode(phrases, checkpoint.max_tokens))
        rows = type(picture)(*(value.expand(len(phrases), *value.shape[1:]) for value in picture))
        lang, names = model.text(ids, mask)
        output = model.answer(rows, lang, names, mask)
        presence += output.presence[:, 0].tolist()
        sets += [photos.photographs[index].set] * len(phrases)
        for question, logits in zip(sample.questions, output.mask_logits.numpy(), strict=True):
            truth = question.answer()
            if not truth.any():
                ious.append([float("nan")] * len(MASK_CUTS))
                continue
            large = upsample(logits, *truth.shape, checkpoint.resize)
            masks = [large >= cut for cut in MASK_CUTS]
            ious.append([float((mask & truth).sum() / (mask | truth).sum()) for mask in masks])
    return Measured(sets, np.array(presence), np.array(ious))


def choose(measured: Measured) -> Cuts:
    """The mask cut with the greatest mIoU; the presence cut with the greatest sum of both shares.

    Sets weigh the same, however many pictures each has. Presence cuts with both shares above LEAST go first.
    """
    sets, present = np.array(measured.sets), measured.present
    weights = np.zeros(len(sets))
    for label in sorted(set(measured.sets)):
        for kind in (present, ~present):
            rows = (sets == label) & kind
            weights[rows] = 1 / max(1, rows.sum())
    known = weights * present
    best = int(np.argmax(known[present] @ measured.ious[present]))

    def share(rows: np.ndarray, true: np.ndarray) -> float:
        total = weights[rows].sum()
        return float((weights * true)[rows].sum() / total) if total else 1.0

    found = []
    for cut in np.unique(measured.presence):
        answered = share(present, measured.presence >= cut)
        empty = share(~present, measured.presence < cut)
        found.append((min(answered, empty) >= LEAST, answered + empty, float(cut), empty, answered))
    _, _, cut, empty, answered = max(found)
    return Cuts(MASK_CUTS[best], cut, empty, answered)
