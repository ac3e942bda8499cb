"""The loop that all runs go through: batches in, a model out; started again, it goes on where it stopped.

A run goes through the phases of its config. Several configs are trained together: each process has the text
encoder of one of them, and all processes share the image side and average its gradients. The
files of a run are in `checkpoints`; `log.csv` gets a line every LOG_EVERY steps.
"""

from __future__ import annotations

import csv
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from refersam import tokenizer
from refersam.data.batches import Batch, Batches
from refersam.data.sample import Dataset
from refersam.model import ReferSAM
from refersam.model.initial import enliven
from refersam.model.weights import load_checkpoint, load_sam
from refersam.training.checkpoints import find_states, load_state, save_run
from refersam.training.config import TrainConfig
from refersam.training.distributed import Team
from refersam.training.objective import Auxiliary, Objective, Weights

LOG_EVERY = 20
SAVE_SECONDS = 300

Heads = Callable[[Dataset, ReferSAM, Weights], Auxiliary | None]
"""Makes the auxiliary terms of a data set, or None for one that has none."""


def optimizer_for(objective: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW without decay on tables, norms, biases and tokens."""
    decayed, free = [], []
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            table = "embed" in name or "prompts" in name or "tokens" in name or "rel_pos" in name
            (free if parameter.ndim < 2 or table else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, fused=True)


class Run:
    """The state of one variant's training in one process.

    `heads` makes the auxiliary terms; with `sam`, a checkpoint of SAM, the rest of the model starts at the
    published values. Raises ValueError for a config and a data set that do not fit one another.
    """

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        device: torch.device,
        dataset: Dataset,
        heads: Heads | None = None,
        sam: Path | None = None,
        variants: int = 1,
        log_every: int = LOG_EVERY,
        save_seconds: float = SAVE_SECONDS,
    ) -> None:
        self.config, self.out, self.device, self.dataset = config, out, device, dataset
        self.log_every, self.save_seconds = log_every, save_seconds
        self.team = Team(variants)
        torch.manual_seed(config.seed)
        model = ReferSAM(config.model)
        if sam:
            # The adapter keeps its published start, which does not disturb a pretrained image encoder.
            load_sam(model, sam)
        else:
            enliven(model)
        model.set_sampler("grid_sample")
        auxiliary = heads(dataset, model, config.weights) if heads else None
        for phase in config.phases:
            if not phase.masks and auxiliary is None:
                raise ValueError(
                    f"phase {phase.name!r} has masks = false: it trains on auxiliary labels alone, and the"
                    " data set has none"
                )
        # Channels last trains the prefix of the demo models 1.25 times as fast on a core (37 images/s -> 47).
        self.objective = Objective(model, config.weights, config.criterion, auxiliary).to(
            device, memory_format=torch.channels_last
        )
        text_side = self.objective.text_side
        named = [(name, p) for name, p in self.objective.named_parameters() if p.requires_grad]
        self.text_side = [p for name, p in named if name.startswith(text_side)]
        self.image_side = [p for name, p in named if not name.startswith(text_side)]
        self.optimizer = optimizer_for(self.objective, config)
        self.phase, self.step, self.samples = config.phases[0].name, 0, 0
        self.encode = functools.partial(tokenizer.load(config.tokenizer).encode, max_tokens=config.max_tokens)
        self.agree()

    @torch.no_grad()
    def agree(self) -> None:
        """Gives all processes the first one's image side, and starts the average of the weights anew."""
        self.team.agree(self.objective)
        self.average = {k: v.detach().clone() for k, v in self.objective.model.state_dict().items()}

    def state(self) -> dict[str, Any]:
        return {
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "random": torch.get_rng_state(),
            "phase": self.phase,
            "step": self.step,
            "samples": self.samples,
        }

    def save(self) -> None:
        if self.team.saves:
            config = self.config.model.to_dict()
            model = {"model": self.average, "config": config, "meta": self.config.meta()}
            save_run(self.out, self.state(), model, keep_old=self.team.variants > 1)

    def resume(self) -> bool:
        """Takes up the last state in the output folders that all processes have; False when there is none.

        A kill may have come when some variants had saved a step and others had not.
        """
        found = find_states(self.out, [phase.name for phase in self.config.phases])
        shared, everyone = self.team.shared(found)
        if any(everyone) and not shared:
            raise ValueError(f"the states in {self.out.parent} are of different steps: {everyone}")
        if not shared:
            return False
        saved = load_state(found[max(shared)], self.device)
        try:
            self.objective.load_state_dict(saved["objective"])
            self.optimizer.load_state_dict(saved["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"{found[max(shared)]} is of another model or data set than this run; name another --out to"
                f" start anew: {error}"
            ) from error
        self.average = saved["average"]
        torch.set_rng_state(saved["random"].cpu())
        self.phase, self.step, self.samples = saved["phase"], saved["step"], saved["samples"]
        return True

    def start_from(self, path: Path) -> None:
        """Takes over the weights of a checkpoint of the same model. The heads of auxiliary terms, which no
        checkpoint has, start at 0, where they do not disturb what the model knows.
        """
        load_checkpoint(self.objective.model, path)
        with torch.no_grad():
            for name, parameter in self.objective.named_parameters():
                if not name.startswith("model."):
                    parameter.zero_()
        self.agree()

    def update_average(self) -> None:
        # The start of a run is forgotten faster than the decay alone would: (1 + n) / (10 + n).
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        own = self.objective.model.state_dict()
        floating = [k for k, v in own.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.average[k] for k in floating], [own[k] for k in floating], 1 - decay)

    def train_phase(self, index: int) -> None:
        """Trains until the phase has seen its samples."""
        config, phase, team = self.config, self.config.phases[index], self.team
        if self.phase != phase.name:
            self.phase, self.step, self.samples = phase.name, 0, 0
        a_step = phase.pictures * config.phrases * team.world
        steps = math.ceil(phase.samples / a_step)
        batches = Batches(
            self.dataset,
            self.encode,
            side=phase.side or config.image_size,
            resize=config.resize,
            pictures=phase.pictures,
            phrases=config.phrases,
            # Each phase starts with its own permutation of the data set.
            seed=config.seed * len(config.phases) + index,
            rank=team.rank,
            world=team.world,
        )
        self.objective.train()
        saved_at = time.monotonic()
        progress = tqdm(
            total=steps * a_step,
            initial=self.samples,
            unit="phrase",
            desc=phase.name,
            disable=team.rank > 0,
            mininterval=5,
            smoothing=0.05,
        )
        while self.step < steps:
            done = self.step / steps
            for group in self.optimizer.param_groups:
                group["lr"] = phase.rate_at(self.step, steps)
            batch = batches.batch(self.step, easy=done < phase.easy).to(self.device)
            losses, norm = self.learn(batch, phase.masks, phase.auxiliary_at(done))
            self.step += 1
            self.samples += a_step
            self.update_average()
            progress.update(a_step)
            if self.step % self.log_every == 0:
                self.log(losses, norm, progress)
            late = time.monotonic() - saved_at > self.save_seconds
            if self.step < steps and team.first_says(late, self.device):
                self.save()
                saved_at = time.monotonic()
        progress.close()
        self.save()

    def learn(self, batch: Batch, masks: bool, factor: float) -> tuple[dict[str, Tensor], float]:
        """One step of the optimizer: the losses before it, and the norm of the image side's gradient."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            losses = self.objective(batch, masks, factor)
        self.optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        self.team.average_gradients(self.image_side, self.text_side)
        # A gradient that is not finite ends the run before it reaches the weights and the checkpoint. The
        # sides are clipped apart, so that the image side stays the same in all processes.
        norms = [
            nn.utils.clip_grad_norm_(side, self.config.clip, error_if_nonfinite=True)
            for side in (self.image_side, self.text_side)
        ]
        self.optimizer.step()
        return losses, float(norms[0])

    def log(self, losses: dict[str, Tensor], norm: float, progress: tqdm) -> None:
        if not self.team.saves:
            return
        values = {k: round(float(v.detach()), 4) for k, v in losses.items()}
        progress.set_postfix(values, refresh=False)
        path = self.out / "log.csv"
        fields = ["time", "phase", "step", "samples", "rate", "norm", *self.objective.terms]
        new = not path.exists()
        if not new:
            # A log that is continued keeps the order of its columns.
            with path.open(newline="") as file:
                fields = next(csv.reader(file))
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fields)
            if new:
                writer.writeheader()
            rate = self.optimizer.param_groups[0]["lr"]
            writer.writerow(
                {
                    "time": round(time.time(), 1),
                    "phase": self.phase,
                    "step": self.step,
                    "samples": self.samples,
                    "rate": f"{rate:.3g}",
                    "norm": round(norm, 3),
                }
                | values
            )

    def run(self) -> None:
        """Trains what is left of the phases."""
        names = [phase.name for phase in self.config.phases]
        for index in range(names.index(self.phase), len(names)):
            self.train_phase(index)
