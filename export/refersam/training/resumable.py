"""A short training of parts of a model, which goes on where it was saved."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from refersam.training.checkpoints import save

FLOOR = 0.05
"""The learning rate of the last step, in units of the greatest."""


class ResumableRun(ABC):
    """The state of a training of `parts` of `model`: weights, optimizer and step, saved together in `path`.

    A run that is made with an existing `path` continues from there, and `resumed` says so.
    """

    label: str
    """What the log calls the run."""
    warmup: int
    """Steps in which the learning rate rises."""
    weight_decay: float

    def __init__(
        self, model: nn.Module, parts: nn.ModuleDict, path: Path, steps: int, rate: float, save_seconds: float
    ) -> None:
        self.model, self.parts, self.path = model, parts, path
        self.steps, self.rate, self.save_seconds = steps, rate, save_seconds
        self.optimizer = torch.optim.AdamW(
            parts.parameters(), rate, betas=(0.9, 0.98), weight_decay=self.weight_decay
        )
        self.step = 0
        self.resumed = path.exists()
        if self.resumed:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            parts.load_state_dict(saved["weights"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step = saved["step"]

    @abstractmethod
    def loss_at(self, step: int) -> Tensor:
        """The loss of a step's phrases, a function of the seed and the step."""

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "weights": self.parts.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        save(self.path, state)

    def run(self, log: Callable[[str], None] = print, stop: int | None = None) -> None:
        """Trains what is left of the steps, or until step `stop`; saves."""
        self.model.train()
        saved_at, smooth = time.monotonic(), None
        while self.step < min(self.steps, stop or self.steps):
            warm = min(1.0, (self.step + 1) / self.warmup)
            cosine = FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * self.step / self.steps))
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate * warm * cosine
            loss = self.loss_at(self.step)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.parts.parameters(), 1.0, error_if_nonfinite=True)
            self.optimizer.step()
            self.step += 1
            value = float(loss.detach())
            smooth = value if smooth is None else 0.97 * smooth + 0.03 * value
            if self.step % 25 == 0:
                log(f"{self.label} {self.step} of {self.steps}: {smooth:.4f}")
            if time.monotonic() - saved_at > self.save_seconds:
                self.save()
                saved_at = time.monotonic()
        self.save()
