"""Trains variants from config files; started again, it goes on where it stopped.

    python -m refersam.train CONFIG --pool var/pool --out var/train
    torchrun --nproc-per-node 2 -m refersam.train BERT_CONFIG CLIP_CONFIG …    # a process a variant, or more

A run goes through the phases of its config. Several configs are trained together: each process has the text
encoder of one of them, and all processes share the image side, whose gradients are averaged over all.

`OUT/VARIANT/state.pt` is the whole state of a variant's run, replaced atomically; of several variants the one
before it stays too, in `state.old.pt`, for they resume at one step. `OUT/VARIANT/model.pt` holds the averaged
weights in the form that `refersam.export` and `refersam.evaluate` read; `OUT/VARIANT/log.csv` gets a line
every LOG_EVERY steps.
"""

import argparse
import csv
import dataclasses
import functools
import math
import os
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from refersam import tokenizer
from refersam.checkpoint import load_checkpoint, load_sam
from refersam.data import pool
from refersam.data.batches import Batches
from refersam.evaluate import evaluate, of_checkpoint
from refersam.model import ReferSAM
from refersam.model.config import ReferSAMConfig
from refersam.objectives import Objective, Weights

LOG_EVERY = 20
SAVE_SECONDS = 300
STATE, OLD_STATE = "state.pt", "state.old.pt"
# Parameters of an objective that read words: a variant's own. All others are the image side.
TEXT_SIDE = ("model.text_encoder.", "words.")


@dataclass(frozen=True)
class Phase:
    """One cosine: the rate rises linearly for `warmup` steps to `rate` and falls to `rate * floor`."""

    name: str
    samples: int  # phrases, over all processes
    scenes: int  # a step and process
    rate: float
    masks: bool = True  # False trains the image prefix and the text encoder on their own labels only
    side: int = 0  # of the pictures, a multiple of 32; 0 is the side that is served
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
    phases: tuple[Phase, ...]
    label: str = ""
    phrases: int = 4  # a scene
    criterion: str = "dense"  # or "points", the published one
    weights: Weights = field(default_factory=Weights)
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip: float = 1.0  # norm of the gradient of the image side, and of the text side
    ema: float = 0.999
    seed: int = 0

    def __post_init__(self) -> None:
        names = [phase.name for phase in self.phases]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"phases need different names, not {names}")

    @classmethod
    def read(cls, path: Path) -> "TrainConfig":
        values = tomllib.loads(path.read_text())
        values["model"] = ReferSAMConfig.from_dict(values["model"])
        values["phases"] = tuple(Phase(**phase) for phase in values["phases"])
        values["weights"] = Weights(**values.get("weights", {}))
        return cls(**values)

    def without_words(self) -> "TrainConfig":
        """The same for all variants that can be trained together: all but what reads words."""
        text = dataclasses.replace(self.model.text, kind="bert", layers=1, heads=1, ffn=1, vocab=1)
        model = dataclasses.replace(self.model, text=text)
        return dataclasses.replace(self, variant="", label="", tokenizer="", model=model)

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


def average_gradients(parameters: Sequence[nn.Parameter], group: dist.ProcessGroup | None) -> None:
    """Replaces the gradients by their means over a group of processes, which must all have the same ones."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat, group=group)
    flat /= dist.get_world_size(group)
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


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
    """The state of one variant's training in one process.

    With `variants` > 1, process r of all trains variant r % variants; the first `variants` processes save.
    """

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        device: torch.device,
        pool_dir: Path,
        sam: Path | None = None,
        variants: int = 1,
    ) -> None:
        self.config, self.out, self.device, self.pool_dir = config, out, device, pool_dir
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        if self.world % variants:
            raise ValueError(
                f"{variants} variants need {variants} processes, or a multiple of that, not {self.world}:"
                f" torchrun --nproc-per-node {variants} -m refersam.train …"
            )
        self.variants, self.saves = variants, self.rank < variants
        self.own_group = None
        for first in range(variants if self.world > 1 else 0):
            ranks = list(range(first, self.world, variants))
            group = dist.new_group(ranks)
            if self.rank in ranks:
                self.own_group = group
        torch.manual_seed(config.seed)
        model = ReferSAM(config.model)
        if sam:
            # The adapter keeps its published start, which does not disturb a pretrained image encoder.
            load_sam(model, sam)
        else:
            initialise(model)
        model.set_sampler("grid_sample")
        # Channels last trains the prefix of the demo models 1.25 times as fast on a core (37 images/s -> 47).
        self.objective = Objective(model, config.weights, config.criterion).to(
            device, memory_format=torch.channels_last
        )
        named = [(name, p) for name, p in self.objective.named_parameters() if p.requires_grad]
        self.text_side = [p for name, p in named if name.startswith(TEXT_SIDE)]
        self.image_side = [p for name, p in named if not name.startswith(TEXT_SIDE)]
        self.optimizer = optimizer_for(self.objective, config)
        self.phase, self.step, self.samples = config.phases[0].name, 0, 0
        self.encode = functools.partial(tokenizer.load(config.tokenizer).encode, max_tokens=config.max_tokens)
        self.agree()

    @torch.no_grad()
    def agree(self) -> None:
        """Gives all processes the first one's image side, and starts the average of the weights anew."""
        if self.world > 1:
            for key, value in self.objective.state_dict().items():
                own = key.startswith(TEXT_SIDE)
                group = self.own_group if own else None
                sent = value.contiguous()
                dist.broadcast(sent, dist.get_global_rank(group, 0) if own else 0, group)
                value.copy_(sent)
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
        if self.saves:
            path = self.out / STATE
            if self.variants > 1 and path.exists():
                path.replace(self.out / OLD_STATE)
            save(path, self.state())
            config = self.config.model.to_dict()
            save(self.out / "model.pt", {"model": self.average, "config": config, "meta": self.config.meta()})

    def resume(self) -> bool:
        """Takes up the last state in the output folders that all processes have; False when there is none.

        A kill may have come when some variants had saved a step and others had not.
        """
        names = [phase.name for phase in self.config.phases]
        found = {}
        for path in (self.out / STATE, self.out / OLD_STATE):
            if path.exists():
                saved = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
                found[names.index(saved["phase"]), saved["step"]] = path
        shared = set(found)
        if self.world > 1:
            everyone: list[list[tuple[int, int]]] = [[] for _ in range(self.world)]
            dist.all_gather_object(everyone, list(found))
            shared = shared.intersection(*everyone)
            if any(everyone) and not shared:
                raise ValueError(f"the states in {self.out.parent} are of different steps: {everyone}")
        if not shared:
            return False
        saved = torch.load(found[max(shared)], map_location=self.device, weights_only=True)
        self.objective.load_state_dict(saved["objective"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.average = saved["average"]
        torch.set_rng_state(saved["random"].cpu())
        self.phase, self.step, self.samples = saved["phase"], saved["step"], saved["samples"]
        return True

    def start_from(self, path: Path) -> None:
        """Takes over the weights of a checkpoint of the same model. The heads of the auxiliary labels, which
        no checkpoint has, start at 0, where they do not disturb what the model knows.
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
        config, phase = self.config, self.config.phases[index]
        if self.phase != phase.name:
            self.phase, self.step, self.samples = phase.name, 0, 0
        a_step = phase.scenes * config.phrases * self.world
        steps = math.ceil(phase.samples / a_step)
        scenes = pool.load(self.pool_dir, phase.side or config.image_size)
        # Each phase starts with its own permutation of the pool.
        seed = config.seed * len(config.phases) + index
        batches = Batches(scenes, self.encode, phase.scenes, config.phrases, seed, self.rank, self.world)
        self.objective.train()
        bf16 = self.device.type == "cuda"
        saved_at = time.monotonic()
        progress = tqdm(
            total=steps * a_step,
            initial=self.samples,
            unit="phrase",
            desc=phase.name,
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
                losses = self.objective(batch, phase.masks, auxiliary_at(phase, done))
            self.optimizer.zero_grad(set_to_none=True)
            losses["total"].backward()
            if self.world > 1:
                average_gradients(self.image_side, None)
                average_gradients(self.text_side, self.own_group)
            # A gradient that is not finite ends the run before it reaches the weights and the checkpoint. The
            # sides are clipped apart, so that the image side stays the same in all processes.
            norms = [
                nn.utils.clip_grad_norm_(side, config.clip, error_if_nonfinite=True)
                for side in (self.image_side, self.text_side)
            ]
            self.optimizer.step()
            self.step += 1
            self.samples += a_step
            self.update_average()
            progress.update(a_step)
            if self.step % LOG_EVERY == 0:
                self.log(losses, float(norms[0]), progress)
            if self.step < steps and self.first_says(time.monotonic() - saved_at > SAVE_SECONDS):
                self.save()
                saved_at = time.monotonic()
        progress.close()
        self.save()

    def first_says(self, yes: bool) -> bool:
        """What the first process says, in all of them."""
        if self.world == 1:
            return yes
        said = torch.tensor(yes, device=self.device)
        dist.broadcast(said, 0)
        return bool(said)

    def log(self, losses: dict[str, Tensor], norm: float, progress: tqdm) -> None:
        if not self.saves:
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


def read_configs(paths: Sequence[Path]) -> list[TrainConfig]:
    """Raises ValueError for configs that cannot be trained together."""
    configs = [TrainConfig.read(path) for path in paths]
    if len({config.variant for config in configs}) < len(configs):
        raise ValueError("the configs are of one variant")
    for path, config in zip(paths, configs, strict=True):
        if config.without_words() != configs[0].without_words():
            raise ValueError(
                f"{path} and {paths[0]} differ in more than variant, label, tokenizer and text encoder"
            )
    return configs


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m refersam.train", description="Train variants; run again to resume."
    )
    parser.add_argument("configs", type=Path, nargs="+", metavar="CONFIG")
    parser.add_argument("--pool", type=Path, required=True, help="folder made by refersam.data.pool")
    parser.add_argument("--out", type=Path, required=True, help="gets a folder for each variant")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda")
    )
    starts_with = parser.add_mutually_exclusive_group()
    starts_with.add_argument(
        "--start-from", type=Path, metavar="DIR", help="start from the weights in DIR/VARIANT/model.pt"
    )
    starts_with.add_argument(
        "--sam", type=Path, help="SAM checkpoint of the same size to start the image side from"
    )
    parser.add_argument(
        "--val-scenes", type=int, default=100, help="scenes scored at the end (default %(default)s)"
    )
    args = parser.parse_args(argv)
    try:
        configs = read_configs(args.configs)
    except (OSError, TypeError, ValueError) as failure:
        parser.error(str(failure))
    starts = {c.variant: args.start_from / c.variant / "model.pt" for c in configs if args.start_from}
    for path in starts.values():
        if not path.exists():
            parser.error(f"{path} does not exist")

    device = torch.device(args.device)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("nccl" if args.device == "cuda" else "gloo")
        if args.device == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
    config = configs[dist.get_rank() % len(configs) if dist.is_initialized() else 0]
    out = args.out / config.variant
    out.mkdir(parents=True, exist_ok=True)
    try:
        run = Run(config, out, device, args.pool, args.sam, len(configs))
    except (OSError, ValueError) as failure:
        parser.error(str(failure))
    if run.resume():
        print(f"{config.variant}: resumed {run.phase} at step {run.step}", flush=True)
    elif starts:
        run.start_from(starts[config.variant])
    run.run()
    if run.saves and args.val_scenes:
        predict, meta = of_checkpoint(out / "model.pt", device)
        board = evaluate(predict, run.encode, meta["image_size"], "val", args.val_scenes)
        print(f"{config.variant}\n{board.table()}")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
