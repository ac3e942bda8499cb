"""Teaches words and candidate boxes alone which of the boxes a phrase means, before any map is looked at.

It reads the detector's scores and boxes from the cache and nothing else. A step of 192 phrases takes half a
second on one core; training with maps takes two seconds for 48.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refersam.model.candidates import overlaps
from refersam.model.photo import PhotoSAM
from refersam.training.joins import BoxPictures
from refersam.training.photo_batches import answer, ask
from refersam.training.resumable import ResumableRun
from refersam.training.text_cache import TextCache

PARTS = ("lang", "lang_norm", "context", "candidates", "reasoner", "choice")
"""The parts of the interactor that are trained."""
CHOOSER = "chooser.pt"
ONE_OF = 0.3
"""Weight of `one_of_loss` beside `choice_loss`."""


def judged(own: Tensor, meant: Tensor) -> tuple[Tensor, Tensor]:
    """Candidates [K, 5] and boxes of what is meant [n, 4] -> bool [K] twice: right and wrong candidates.

    A candidate is right from IoU 0.5 with any of the boxes, wrong below 0.4, and neither in between or where
    it has no heat.
    """
    best = overlaps(own[None, :, :4], meant[None])[0].amax(1) if len(meant) else torch.zeros(len(own))
    there = own[:, 4] > 1e-3
    return there & (best >= 0.5), there & (best < 0.4)


def choice_loss(choice: Tensor, found: Tensor, boxes: list[Tensor]) -> Tensor:
    """BCE of each target candidate by itself.

    Choice logits [B, K], candidates [B, ≥ K, ≥ 5] with the target's first, boxes of what is meant, B times
    [n, 4] -> the mean over the phrases.
    """
    losses = []
    for logits, own, meant in zip(choice, found, boxes, strict=True):
        right, wrong = judged(own[: len(logits)], meant)
        counted = right | wrong
        if counted.any():
            losses.append(F.binary_cross_entropy_with_logits(logits[counted], right.float()[counted]))
    return torch.stack(losses).mean() if losses else 0 * choice.sum()


def one_of_loss(choice: Tensor, found: Tensor, boxes: list[Tensor]) -> Tensor:
    """Cross-entropy between the candidates of phrases that mean one thing: the right ones against all."""
    losses = []
    for logits, own, meant in zip(choice, found, boxes, strict=True):
        right, wrong = judged(own[: len(logits)], meant)
        if len(meant) == 1 and right.any() and wrong.any():
            losses.append(logits[right | wrong].logsumexp(0) - logits[right].logsumexp(0))
    return torch.stack(losses).mean() if losses else 0 * choice.sum()


class Chooser:
    """The loss of a step's phrases about frames of boxes. The frames are a function of (seed, step)."""

    def __init__(
        self,
        model: PhotoSAM,
        text: TextCache,
        pictures: BoxPictures,
        count: int,
        phrases: int,
        absent: int,
        seed: int,
    ) -> None:
        self.model, self.text, self.pictures = model, text, pictures
        self.count, self.phrases, self.absent, self.seed = count, phrases, absent, seed

    def loss_at(self, step: int) -> Tensor:
        rng = np.random.default_rng([self.seed, 61, step])
        frames = [self.pictures.draw(rng) for _ in range(self.count)]
        phrases, meant = [], []
        for frame in frames:
            for asked in ask(frame, frame.things, self.phrases, self.absent, rng):
                phrases.append(asked.phrase)
                meant.append(answer(asked, frame.things)[1])
        scores = torch.from_numpy(np.stack([frame.scores for frame in frames]))
        boxes = torch.from_numpy(np.stack([frame.boxes for frame in frames]))
        found, choice = self.choose(phrases, scores, boxes)
        return choice_loss(choice, found, meant) + ONE_OF * one_of_loss(choice, found, meant)

    def choose(self, phrases: list[str], scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Candidates [B·P, K, 5] and choice logits of the target's [B·P, targets], P phrases per picture."""
        lang, names, mask = self.text(phrases)
        pictures, repeat = len(scores), len(phrases) // len(scores)
        roles = names.reshape(pictures, repeat * names.shape[1], -1)
        # The classifier's maps do not matter to the candidates.
        heat, _ = self.model.class_heat(roles, scores, scores.new_zeros(pictures, 1000, 1))
        heat = heat.reshape(len(phrases), names.shape[1], -1)
        _, _, found, choice = self.model.interactor.reason(
            lang, mask, heat, boxes.repeat_interleave(repeat, 0), None
        )
        return found, choice[:, : self.model.config.interactor.targets, 0]


class ChooserRun(ResumableRun):
    """The training of the chooser, saved in the folder `out`."""

    label, warmup, weight_decay = "chooser", 40, 0.02

    def __init__(
        self, chooser: Chooser, out: Path, steps: int, rate: float, save_seconds: float = 120.0
    ) -> None:
        self.chooser = chooser
        parts = nn.ModuleDict({name: getattr(chooser.model.interactor, name) for name in PARTS})
        super().__init__(chooser.model, parts, out / CHOOSER, steps, rate, save_seconds)

    def loss_at(self, step: int) -> Tensor:
        return self.chooser.loss_at(step)
