"""Trains a photo variant on cached features: the parts around the frozen networks, then the decoder too."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refersam.model.photo import PhotoSAM
from refersam.training.checkpoints import MODEL, STATE, save
from refersam.training.choosing import Chooser, choice_loss
from refersam.training.photo_batches import PhotoBatch, PhotoBatches
from refersam.training.text_cache import TextCache

FROZEN = ("encoders.", "sam_prompt_encoder.", "text_encoder.", "name_reader.")
"""Beginnings of the names of what is never trained here."""
DECODER = ("sam_mask_decoder.", "prompt_codes.", "coarse_share", "sam_prompt_encoder.mask_downscaling.")
"""Beginnings of the names of what the phase with the decoder trains besides."""

TERMS = ("total", "coarse", "dice", "choice", "presence", "mask", "mask_dice")


@dataclass(frozen=True)
class PhotoPhase:
    """One phase of a run: a warm-up, then a cosine down to `floor` of the rate."""

    name: str
    steps: int
    rate: float
    decoder: int = 0
    """Phrases of a step, at most, that go through the decoder; 0 leaves the decoder out."""
    decoder_rate: float = 0.1
    """Of the decoder, as a share of `rate`."""
    warmup: int = 40
    floor: float = 0.03

    def rate_at(self, step: int) -> float:
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return self.rate * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def dice(probability: Tensor, target: Tensor) -> Tensor:
    """Of each mask, [N, h, w] -> [N]; the smoothing is a thousandth of the map."""
    smooth = target[0].numel() / 1000
    overlap = 2 * (probability * target).sum((1, 2)) + smooth
    return 1 - overlap / (probability.sum((1, 2)) + target.sum((1, 2)) + smooth)


class PhotoRun:
    """The state of a run. Started again with the same folder, it goes on where it was saved."""

    def __init__(
        self,
        model: PhotoSAM,
        batches: PhotoBatches,
        text: TextCache,
        phases: list[PhotoPhase],
        out: Path,
        meta: dict[str, Any],
        chooser: Chooser | None = None,
        save_seconds: float = 240.0,
        log_every: int = 10,
        bf16: bool = True,
    ) -> None:
        self.model, self.batches, self.phases, self.out, self.meta = model, batches, phases, out, meta
        self.save_seconds, self.log_every, self.bf16 = save_seconds, log_every, bf16
        self.text, self.chooser = text, chooser
        head, decoder = [], []
        for name, parameter in model.named_parameters():
            if name.startswith(DECODER):
                parameter.requires_grad_(True)
                decoder.append(parameter)
            elif name.startswith(FROZEN):
                parameter.requires_grad_(False)
            else:
                head.append(parameter)
        self.trained, self.head, self.decoder = [*head, *decoder], head, decoder
        groups = []
        for part, parameters in (("head", head), ("decoder", decoder)):
            for decay, kept in ((0.05, True), (0.0, False)):
                chosen = [p for p in parameters if (p.ndim > 1) == kept]
                groups.append({"params": chosen, "weight_decay": decay, "part": part})
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))
        self.phase, self.step, self.seen = 0, 0, 0
        self.average = {name: value.detach().clone() for name, value in self._own().items()}

    def _own(self) -> dict[str, Tensor]:
        """The entries of the state dict that training changes."""
        trained = {id(parameter) for parameter in self.trained}
        return {name: p for name, p in self.model.named_parameters() if id(p) in trained}

    def resume(self) -> bool:
        path = self.out / STATE
        if not path.exists():
            return False
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if [asdict(phase) for phase in self.phases][: saved["phase"]] != saved["phases"][: saved["phase"]]:
            raise ValueError(f"{path} is of other phases than this run; name another folder to start anew")
        own = self._own()
        if saved["weights"].keys() != own.keys():
            raise ValueError(f"{path} is of another model than this run; name another folder to start anew")
        with torch.no_grad():
            for name, value in saved["weights"].items():
                own[name].copy_(value)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.average = saved["average"]
        self.phase, self.step, self.seen = saved["phase"], saved["step"], saved["seen"]
        return True

    def save(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        save(
            self.out / STATE,
            {
                "weights": {name: value.detach() for name, value in self._own().items()},
                "optimizer": self.optimizer.state_dict(),
                "average": self.average,
                "phases": [asdict(phase) for phase in self.phases],
                "phase": self.phase,
                "step": self.step,
                "seen": self.seen,
            },
        )
        state = {**self.model.state_dict(), **self.average}
        save(self.out / MODEL, {"model": state, "config": self.model.config.to_dict(), "meta": self.meta})

    def learn(self, batch: PhotoBatch, phase: PhotoPhase) -> dict[str, float]:
        lang, names, mask = self.text(batch.phrases)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            picture = self.model.from_features(batch.features, batch.colour)
            repeat = len(batch.phrases) // len(batch.colour)
            # The phrases of a picture read its class maps together: a repeated map would be 2.8 MB each.
            roles = names.reshape(len(batch.colour), -1, names.shape[-1])
            heat, weak = self.model.class_heat(roles, picture.scores, picture.classes)
            heat, weak = (each.reshape(*names.shape[:2], -1) for each in (heat, weak))
            tokens, fine, embedding, boxes = (
                each.repeat_interleave(repeat, 0)
                for each in (picture.tokens, picture.fine, picture.embedding, picture.boxes)
            )
            visual, small, found, maps = self.model.interactor(tokens, lang, mask, heat, weak, boxes)
            coarse, learned, presence, choice, box = self.model.prompter(
                visual, small, mask, found, maps, fine
            )
        losses = self.head_losses(batch, coarse.float(), presence.float(), choice.float(), found.float())
        if self.chooser:
            # Few photographs show several of a kind, so the choice is practised on frames of boxes besides.
            losses["choice"] = losses["choice"] + self.chooser.loss_at(self.seen)
        total = 4 * losses["coarse"] + losses["dice"] + 0.5 * losses["choice"] + 0.5 * losses["presence"]
        if phase.decoder:
            rows = torch.nonzero(batch.present)[:, 0]
            rows = rows[torch.randperm(len(rows))[: phase.decoder]]
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                sparse, mask_prompt, quarter = self.model.prompts(coarse[rows], learned[rows], box[rows])
                logits = self.model.decode(embedding[rows], sparse.float(), mask_prompt, quarter)
            logits, target = logits.float(), batch.masks[rows]
            losses["mask"] = F.binary_cross_entropy_with_logits(logits, target)
            losses["mask_dice"] = dice(logits.sigmoid(), target).mean()
            total = total + 4 * losses["mask"] + losses["mask_dice"]
        for group in self.optimizer.param_groups:
            share = phase.decoder_rate if group["part"] == "decoder" else 1.0
            group["lr"] = phase.rate_at(self.step) * share
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        # Apart, because the decoder's gradients are a thousand times the head's until its prompts are good.
        norm = nn.utils.clip_grad_norm_(self.head, 1.0, error_if_nonfinite=True)
        nn.utils.clip_grad_norm_(self.decoder, 1.0, error_if_nonfinite=True)
        self.optimizer.step()
        decay = min(0.998, (1 + self.seen) / (10 + self.seen))
        own = self._own()
        with torch.no_grad():
            for name, value in self.average.items():
                value.lerp_(own[name], 1 - decay)
        return {
            name: float(value.detach()) for name, value in {"total": total, "norm": norm, **losses}.items()
        }

    def head_losses(
        self, batch: PhotoBatch, coarse: Tensor, presence: Tensor, choice: Tensor, found: Tensor
    ) -> dict[str, Tensor]:
        target = F.avg_pool2d(batch.masks[:, None], 2)[:, 0]
        present = batch.present
        overlap = dice(coarse.sigmoid(), target)[present]
        return {
            "coarse": F.binary_cross_entropy_with_logits(coarse, target),
            "dice": overlap.mean() if len(overlap) else 0 * coarse.sum(),
            "choice": choice_loss(choice, found, batch.boxes),
            "presence": F.binary_cross_entropy_with_logits(presence[:, 0], present.float()),
        }

    def run(self, report: Callable[[PhotoRun], None] | None = None, every: int = 200) -> None:
        """Trains what is left of the phases; calls `report` every `every` steps, with averaged weights."""
        self.model.train()
        saved_at, smooth, began = time.monotonic(), {}, time.monotonic()
        while self.phase < len(self.phases):
            phase = self.phases[self.phase]
            while self.step < phase.steps:
                torch.manual_seed(self.seen)
                losses = self.learn(self.batches.batch(self.seen), phase)
                self.step += 1
                self.seen += 1
                for name, value in losses.items():
                    smooth[name] = 0.95 * smooth.get(name, value) + 0.05 * value
                if self.seen % self.log_every == 0:
                    self.log(phase.name, smooth, time.monotonic() - began)
                    began = time.monotonic()
                if time.monotonic() - saved_at > self.save_seconds:
                    self.save()
                    saved_at = time.monotonic()
                if report and self.seen % every == 0:
                    self.with_average(report)
            self.phase, self.step = self.phase + 1, 0
        self.save()
        if report:
            self.with_average(report)

    def with_average(self, report: Callable[[PhotoRun], None]) -> None:
        own = self._own()
        kept = {name: value.detach().clone() for name, value in own.items()}
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(self.average[name])
            self.model.eval()
            report(self)
            self.model.train()
            for name, value in own.items():
                value.copy_(kept[name])

    def log(self, phase: str, losses: dict[str, float], seconds: float) -> None:
        path = self.out / "log.csv"
        self.out.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, ["phase", "seen", "seconds", "norm", *TERMS])
            if new:
                writer.writeheader()
            values = {name: round(value, 4) for name, value in losses.items()}
            writer.writerow({"phase": phase, "seen": self.seen, "seconds": round(seconds, 1)} | values)
