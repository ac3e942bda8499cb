"""Teaches words and candidate boxes alone which of the boxes a phrase means, before any map is looked at.

It reads the detector's scores and boxes from the cache and nothing else. A step of 192 phrases takes about a
second on one core; training with maps takes two seconds for 48.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from refersam.model.photo import PhotoSAM
from refersam.training.checkpoints import save
from refersam.training.photo_batches import PhotoBatches, answer, ask, drawn_things, mirrored
from refersam.training.photos import TextCache, choice_loss

PARTS = ("lang", "lang_norm", "context", "candidates", "reasoner", "choice")
"""The parts of the interactor that are trained."""
CHOOSER = "chooser.pt"
WARMUP, FLOOR = 40, 0.05


class ChooserRun:
    """The state of the training; started again with the same folder, it goes on where it was saved."""

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
        self.model, self.text, self.batches, self.out = model, text, batches, out
        self.steps, self.rate, self.save_seconds = steps, rate, save_seconds
        self.parts = nn.ModuleDict({name: getattr(model.interactor, name) for name in PARTS})
        self.optimizer = torch.optim.AdamW(
            self.parts.parameters(), rate, betas=(0.9, 0.98), weight_decay=0.02
        )
        self.step = 0
        path = out / CHOOSER
        if path.exists():
            saved = torch.load(path, map_location="cpu", weights_only=True)
            self.parts.load_state_dict(saved["weights"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step = saved["step"]

    def save(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        state = {
            "weights": self.parts.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        save(self.out / CHOOSER, state)

    def run(self, log: Callable[[str], None] = print, stop: int | None = None) -> None:
        """Trains what is left of the steps, or until step `stop`; saves."""
        self.model.train()
        saved_at, smooth = time.monotonic(), None
        while self.step < min(self.steps, stop or self.steps):
            warm = min(1.0, (self.step + 1) / WARMUP)
            cosine = FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * self.step / self.steps))
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate * warm * cosine
            loss = self.loss(self.step)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.parts.parameters(), 1.0, error_if_nonfinite=True)
            self.optimizer.step()
            self.step += 1
            value = float(loss.detach())
            smooth = value if smooth is None else 0.97 * smooth + 0.03 * value
            if self.step % 25 == 0:
                log(f"chooser {self.step} of {self.steps}: {smooth:.4f}")
            if time.monotonic() - saved_at > self.save_seconds:
                self.save()
                saved_at = time.monotonic()
        self.save()

    def loss(self, step: int) -> Tensor:
        """The loss of a step's phrases, a function of the seed and the step."""
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
