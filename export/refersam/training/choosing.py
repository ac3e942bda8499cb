"""Teaches words and candidate boxes alone which of the boxes a phrase means, before any map is looked at.

It reads the detector's scores and boxes from the cache and nothing else. A step of 192 phrases takes about a
second on one core; training with maps takes two seconds for 48.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from refersam.model.photo import PhotoSAM
from refersam.training.photo_batches import PhotoBatches, answer, ask, drawn_things, mirrored
from refersam.training.photos import TextCache, choice_loss
from refersam.training.resumable import ResumableRun

PARTS = ("lang", "lang_norm", "context", "candidates", "reasoner", "choice")
"""The parts of the interactor that are trained."""
CHOOSER = "chooser.pt"


class ChooserRun(ResumableRun):
    """The training of the chooser, saved in the folder `out`."""

    label, warmup, weight_decay = "chooser", 40, 0.02

    def __init__(
        self,
        model: PhotoSAM,
        text: TextCache,
        batches: PhotoBatches,
        out: Path,
        steps: int,
        rate: float,
        save_seconds: float = 120.0,
    ) -> None:
        self.model: PhotoSAM
        self.text, self.batches = text, batches
        parts = nn.ModuleDict({name: getattr(model.interactor, name) for name in PARTS})
        super().__init__(model, parts, out / CHOOSER, steps, rate, save_seconds)

    def loss_at(self, step: int) -> Tensor:
        batches = self.batches
        rng = np.random.default_rng([batches.seed, 61, step])
        chosen = rng.choice(batches.pool, batches.pictures, replace=len(batches.pool) < batches.pictures)
        phrases, meant, scores, boxes = [], [], [], []
        for index in chosen:
            scene = batches.scenes[index]
            things, turned = drawn_things(scene, rng)
            own = {
                name: torch.from_numpy(batches.cache.arrays[name][index].astype(np.float32))
                for name in ("scores", "boxes")
            }
            if turned:
                own = {name: mirrored(name, value) for name, value in own.items()}
            for asked in ask(scene, things, batches.phrases, batches.absent, rng):
                phrases.append(asked.phrase)
                meant.append(answer(asked, things)[1])
            scores.append(own["scores"])
            boxes.append(own["boxes"])
        found, choice = self.choose(phrases, torch.stack(scores), torch.stack(boxes))
        return choice_loss(choice, found, meant)

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
