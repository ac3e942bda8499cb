"""The report of a photo variant: scores by set and kind, the mirror test, and the baseline beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from refersam import tokenizer
from refersam.data.photos import Photos
from refersam.data.transforms import square, upsample
from refersam.evaluation import predictors
from refersam.evaluation.photo_baseline import Baseline
from refersam.evaluation.photos import Answer, score
from refersam.evaluation.predictors import Inputs, Predictor
from refersam.model import pretrained
from refersam.model.photo import PhotoSAM
from refersam.model.photo_config import photo_preset

Ask = Callable[[np.ndarray, list[str]], np.ndarray]
"""Picture [H, W, 3] and phrases -> masks, bool [P, H, W]."""

SWAPPED = {"left": "right", "right": "left", "leftmost": "rightmost", "rightmost": "leftmost"}
MIRRORED = 0.8
"""IoU from which on the mirrored question counts as answered by the mirrored mask."""


def asking(predict: Predictor, inputs: Inputs) -> Ask:
    """A predictor as a function of pictures of any size."""
    encode = tokenizer.load(inputs.tokenizer).encode

    def ask(picture: np.ndarray, phrases: list[str]) -> np.ndarray:
        pixels = square(picture, inputs.image_size, inputs.resize)
        ids, mask = encode(phrases, inputs.max_tokens)
        logits = predict(pixels[None], ids, mask)
        return np.stack([upsample(row, *picture.shape[:2], inputs.resize) >= 0 for row in logits])

    return ask


def of_checkpoint(path: Path) -> Ask:
    return asking(*predictors.of_checkpoint(path, torch.device("cpu")))


def of_repository(repository: Path, variant: str) -> Ask:
    return asking(*predictors.of_repository(repository, variant))


def report(ask: Ask, photos: Photos, count: int = 0, parts: Path | None = None) -> str:
    """Tables for the first `count` photographs of each set, 0 for all; with `parts`, the baseline's too."""
    labels = [photograph.set for photograph in photos.photographs]
    samples = [i for i, label in enumerate(labels) if not count or labels[:i].count(label) < count]
    text = f"{score(answer_of(ask), photos, samples).table()}\n\n{mirror(ask, photos, samples)}"
    if parts:
        model = PhotoSAM(photo_preset("bert"))
        pretrained.fill(model, parts)
        text += "\n\nbaseline: NanoDet picks the boxes by name and rule, SAM cuts them out\n\n"
        text += score(answer_of_baseline(Baseline(model)), photos, samples).table()
    return text


def answer_of(ask: Ask) -> Answer:
    return lambda _, picture, phrases: ask(picture, phrases)


def answer_of_baseline(baseline: Baseline) -> Answer:
    def answer(_: int, picture: np.ndarray, phrases: list[str]) -> np.ndarray:
        features = baseline.features(picture)
        return np.stack([baseline.answer(features, picture.shape[:2], phrase) for phrase in phrases])

    return answer


def swapped(phrase: str) -> str:
    """The phrase with left and right exchanged."""
    return " ".join(SWAPPED.get(word, word) for word in phrase.split())


def mirror(ask: Ask, photos: Photos, samples: list[int]) -> str:
    """The share of left and right phrases whose mask is mirrored when picture and word are."""
    same = total = 0
    for index in samples:
        sample = photos[index]
        phrases = [q.phrase for q in sample.questions if q.kind != "none" and swapped(q.phrase) != q.phrase]
        if not phrases:
            continue
        straight = ask(sample.picture, phrases)
        turned = ask(np.ascontiguousarray(sample.picture[:, ::-1]), [swapped(p) for p in phrases])
        for one, two in zip(straight, turned[:, :, ::-1], strict=True):
            union = (one | two).sum()
            same += bool(union) and (one & two).sum() / union >= MIRRORED
            total += 1
    share = f"{100 * same / total:.1f} %" if total else "–"
    return f"mirrored picture and swapped word, mask mirrored (IoU ≥ {MIRRORED}): {share} of {total}"
