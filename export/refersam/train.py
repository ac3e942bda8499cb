"""Trains a variant from a config file; started again, it goes on where it stopped.

    python -m refersam.train export/configs/demo_bert_first.toml --pool var/pool --out var/train/first
    torchrun --nproc-per-node 2 -m refersam.train …            # several processes or GPUs

Two phases. The first trains the image prefix and the text encoder on labels of their own (which thing is at
each cell, which thing is asked for). The second trains everything on masks. `OUT/state.pt` is the whole state
of the run, replaced atomically; `OUT/model.pt` holds the averaged weights in the form that `refersam.export`
and `refersam.evaluate` read; `OUT/log.csv` gets a line every LOG_EVERY steps.
"""

import argparse
import csv
import functools
import math
import os
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from refersam import tokenizer
from refersam.checkpoint import load_sam
from refersam.data import pool
from refersam.data.batches import Batches
from refersam.evaluate import evaluate, of_checkpoint
from refersam.model import ReferSAM
from refersam.model.config import ReferSAMConfig
from refersam.objectives import Objective, Weights

LOG_EVERY = 20
SAVE_SECONDS = 300
# Parameters of an objective that read words.
TEXT_SIDE = ("model.text_encoder.", "words.")


@dataclass(frozen=True)
class Phase:
    """One cosine: the rate rises linearly for `warmup` steps to `rate` and falls to `rate * floor`."""

    samples: int  # phrases, over all processes
    scenes: int  # a step and process
    rate: float
    warmup: int = 200
    floor: float = 0.02
    # Share of the phase in which a scene's easy phrases (name, plural, none) come first.
    easy: float = 0.0
    # Share of the phase after which the auxiliary terms are switched off, linearly from half of it on.
    auxiliary: float = 1.0


@dataclass(frozen=True)
class TrainConfig:
    """A run. Read from TOML; unknown keys are errors."""

    variant: str
    tokenizer: str
    image_size: int
    max_tokens: int
    model: ReferSAMConfig
    prefix: Phase
    joint: Phase
    label: str = ""
    phrases: int = 4  # a scene
    criterion: str = "dense"  # or "points", the published one
    weights: Weights = field(default_factory=Weights)
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0

    @classmethod
    def read(cls, path: Path) -> "TrainConfig":
        values = tomllib.loads(path.read_text())
        values["model"] = ReferSAMConfig.from_dict(values["model"])
        values["prefix"], values["joint"] = Phase(**values["prefix"]), Phase(**values["joint"])
        values["weights"] = Weights(**values.get("weights", {}))
        return cls(**values)

    def meta(self) -> dict[str, Any]:
        """What a server must know of a checkpoint besides the sizes of the model."""
        names = ("variant", "label", "tokenizer", "image_size", "max_tokens")
        return {name: getattr(self, name) for name in names}


def initialise(model: ReferSAM) -> None:
    """Starts a small model livelier than the published values, which suit a pretrained SAM.

    Matrices get 0.7 / sqrt(fan in) instead of 0.02, position tables 0.02 instead of 0, and the injectors'
    gamma 0.1 instead of 1e-6, which lets the stages matter to each other from the first step. Words start at
    0, so one that training never shows says nothing, and a vocabulary of which few are shown packs to little.
    """
    for name, parameter in model.named_parameters():
        if "sampling_offsets" in name or "attention_weights" in name:
            continue
        if name.endswith("weight") and parameter.ndim == 2 and "embedding" not in name:
            if not any(part in name for part in ("prompts", "prompt_pos", "tokens", "embed.")):
                nn.init.normal_(parameter, std=0.7 / math.sqrt(parameter.shape[1]))
        elif name.endswith(("word_embeddings.weight", "token_embedding.weight")):
            nn.init.zeros_(parameter)
        elif name.endswith("pos_embed"):
            nn.init.normal_(parameter, std=0.02)
        elif name.endswith("injector.gamma"):
            nn.init.constant_(parameter, 0.1)


def rate_at(phase: Phase, step: int, steps: int) -> float:
    if step < phase.warmup:
        return phase.rate * (step + 1) / phase.warmup
    progress = (step - phase.warmup) / max(1, steps - phase.warmup)
    return phase.rate * (phase.floor + (1 - phase.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def auxiliary_at(phase: Phase, progress: float) -> float:
    if phase.auxiliary >= 1:
        return 1.0
    half = phase.auxiliary / 2
    return min(1.0, max(0.0, (phase.auxiliary - progress) / half))


def optimizer_for(objective: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW without decay on tables, norms, biases and tokens."""
    decayed, free = [], []
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            table = "embed" in name or "prompts" in name or "tokens" in name or "rel_pos" in name
            (free if parameter.ndim < 2 or table else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, fused=True)


def save(path: Path, state: dict[str, Any]) -> None:
    """Replaces `path` atomically: a kill leaves the old file or the new one."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class Run:
    """The state of one training run."""

    def __init__(
        self, config: TrainConfig, out: Path, device: torch.device, pool_dir: Path, sam: Path | None = None
    ) -> None:
        self.config, self.out, self.device = config, out, device
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        torch.manual_seed(config.seed)
        model = ReferSAM(config.model)
        initialise(model)
        if sam:
            load_sam(model, sam)
        model.set_sampler("grid_sample")
        # Channels last trains the prefix of the demo models 1.25 times as fast on a core (37 images/s -> 47).
        self.objective = Objective(model, config.weights, config.criterion).to(
            device, memory_format=torch.channels_last
        )
        self.optimizer = optimizer_for(self.objective, config)
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.phase, self.step, self.samples = "prefix", 0, 0
        self.encode = functools.partial(tokenizer.load(config.tokenizer).encode, max_tokens=config.max_tokens)
        self.pool = pool.load(pool_dir, config.image_size)

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
        if self.rank == 0:
            save(self.out / "state.pt", self.state())
            config = self.config.model.to_dict()
            save(self.out / "model.pt", {"model": self.average, "config": config, "meta": self.config.meta()})

    def resume(self) -> bool:
        """Takes up the state in the output folder; False when there is none."""
        path = self.out / "state.pt"
        if not path.exists():
            return False
        saved = torch.load(path, map_location=self.device, weights_only=True)
        self.objective.load_state_dict(saved["objective"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.average = saved["average"]
        torch.set_rng_state(saved["random"].cpu())
        self.phase, self.step, self.samples = saved["phase"], saved["step"], saved["samples"]
        return True

    def start_from(self, path: Path, text_path: Path | None) -> None:
        """Takes over all but the text encoder from the run in `path`, and that from `text_path` if given."""

        def read(file: Path) -> dict[str, Tensor]:
            return torch.load(file, map_location=self.device, weights_only=True)["objective"]

        text = read(text_path) if text_path else self.objective.state_dict()
        rest = {key: value for key, value in read(path).items() if not key.startswith(TEXT_SIDE)}
        self.objective.load_state_dict(rest | {k: v for k, v in text.items() if k.startswith(TEXT_SIDE)})
        self.average = {k: v.detach().clone() for k, v in self.objective.model.state_dict().items()}

    def update_average(self) -> None:
        # The start of a run is forgotten faster than the decay alone would: (1 + n) / (10 + n).
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        own = self.objective.model.state_dict()
        floating = [k for k, v in own.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.average[k] for k in floating], [own[k] for k in floating], 1 - decay)

    def train_phase(self, name: str, phase: Phase) -> None:
        """Trains until the phase has seen its samples."""
        config = self.config
        if self.phase != name:
            self.phase, self.step, self.samples = name, 0, 0
        a_step = phase.scenes * config.phrases * self.world
        steps = math.ceil(phase.samples / a_step)
        # Each phase starts with its own permutation of the pool.
        seed = config.seed * 2 + (name == "joint")
        batches = Batches(self.pool, self.encode, phase.scenes, config.phrases, seed, self.rank, self.world)
        forward: nn.Module = self.objective
        if self.world > 1:
            forward = DistributedDataParallel(self.objective, find_unused_parameters=True)
        self.objective.train()
        parameters = [p for p in self.objective.parameters() if p.requires_grad]
        bf16 = self.device.type == "cuda"
        saved_at = time.monotonic()
        progress = tqdm(
            total=steps * a_step,
            initial=self.samples,
            unit="phrase",
            desc=name,
            disable=self.rank > 0,
            mininterval=5,
            smoothing=0.05,
        )
        while self.step < steps:
            done = self.step / steps
            for group in self.optimizer.param_groups:
                group["lr"] = rate_at(phase, self.step, steps)
            batch = batches.batch(self.step, easy=done < phase.easy).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                losses = forward(batch, name == "joint", auxiliary_at(phase, done))
            self.optimizer.zero_grad(set_to_none=True)
            losses["total"].backward()
            # A gradient that is not finite ends the run before it reaches the weights and the checkpoint.
            norm = nn.utils.clip_grad_norm_(parameters, config.clip, error_if_nonfinite=True)
            self.optimizer.step()
            self.step += 1
            self.samples += a_step
            self.update_average()
            progress.update(a_step)
            if self.step % LOG_EVERY == 0:
                self.log(name, losses, float(norm), progress)
            if time.monotonic() - saved_at > SAVE_SECONDS:
                self.save()
                saved_at = time.monotonic()
        progress.close()
        self.save()

    def log(self, phase: str, losses: dict[str, Tensor], norm: float, progress: tqdm) -> None:
        if self.rank:
            return
        values = {k: round(float(v.detach()), 4) for k, v in losses.items()}
        progress.set_postfix(values, refresh=False)
        fields = [
            "time",
            "phase",
            "step",
            "samples",
            "rate",
            "norm",
            "total",
            "prefix",
            "text",
            "mask",
            "coarse",
            "grounding",
        ]
        path = self.out / "log.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fields)
            if new:
                writer.writeheader()
            rate = self.optimizer.param_groups[0]["lr"]
            writer.writerow(
                {
                    "time": round(time.time(), 1),
                    "phase": phase,
                    "step": self.step,
                    "samples": self.samples,
                    "rate": f"{rate:.3g}",
                    "norm": round(norm, 3),
                }
                | values
            )

    def run(self) -> None:
        """Trains what is left of both phases."""
        if self.phase == "prefix":
            self.train_phase("prefix", self.config.prefix)
        self.train_phase("joint", self.config.joint)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a variant; run again to resume.")
    parser.add_argument("config", type=Path)
    parser.add_argument("--pool", type=Path, required=True, help="folder made by refersam.data.pool")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda")
    )
    parser.add_argument(
        "--start-from", type=Path, help="state.pt of another variant to take the image side from"
    )
    parser.add_argument("--text-from", type=Path, help="state.pt to take the text encoder from")
    parser.add_argument(
        "--sam", type=Path, help="SAM checkpoint of the same size to start the image side from"
    )
    parser.add_argument(
        "--val-scenes", type=int, default=100, help="scenes scored at the end (default %(default)s)"
    )
    args = parser.parse_args()
    for path in (args.start_from, args.text_from):
        if path and not path.exists():
            parser.error(f"{path} does not exist: train that variant first")
    if args.text_from and not args.start_from:
        parser.error("--text-from needs --start-from")

    device = torch.device(args.device)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("nccl" if args.device == "cuda" else "gloo")
        if args.device == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
    args.out.mkdir(parents=True, exist_ok=True)
    config = TrainConfig.read(args.config)
    run = Run(config, args.out, device, args.pool, args.sam)
    if run.resume():
        print(f"resumed {run.phase} at step {run.step}", flush=True)
    elif args.start_from:
        run.start_from(args.start_from, args.text_from)
    run.run()
    if run.rank == 0 and args.val_scenes:
        predict, meta = of_checkpoint(args.out / "model.pt", device)
        print(evaluate(predict, run.encode, meta["image_size"], "val", args.val_scenes).table())
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
