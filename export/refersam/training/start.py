"""Puts a run together from its parts: configs, a data set, processes; trains, and scores what came out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from refersam.data import catalogue
from refersam.evaluation.predictors import of_checkpoint
from refersam.evaluation.reports import table
from refersam.evaluation.score import score
from refersam.training import demo
from refersam.training.checkpoints import MODEL
from refersam.training.config import read_configs
from refersam.training.loop import Run


@dataclass(frozen=True)
class Start:
    """What a run is started with.

    Attributes:
        configs: files, one per variant.
        data: a data set, as `catalogue.load` takes it; its split `train` is trained on.
        out: gets a folder for each variant.
        device: `cpu` or `cuda`.
        start_from: folder with VARIANT/model.pt, or None.
        sam: SAM checkpoint to start the image side from, or None.
        val_samples: pictures of the split `val` that are asked about at the end; 0 for none.
    """

    configs: Sequence[Path]
    data: str
    out: Path
    device: str
    start_from: Path | None = None
    sam: Path | None = None
    val_samples: int = 0


@dataclass(frozen=True)
class Ready:
    """A run that only has to be trained."""

    run: Run
    what: Start

    def train(self) -> None:
        """Trains until the phases are done, and prints the scores of the split `val`."""
        run, what = self.run, self.what
        try:
            run.run()
            if run.team.saves and what.val_samples:
                predict, inputs = of_checkpoint(run.out / MODEL, run.device)
                held_out = catalogue.load(what.data, "val", inputs.image_size)
                board = score(predict, inputs, held_out, what.val_samples)
                print(f"{run.config.variant}\n{table(board)}")
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()


def prepare(what: Start) -> Ready:
    """Makes a run, or takes it up where it stopped.

    Raises ValueError, TypeError or OSError, before anything is trained, if that cannot be.
    """
    configs = read_configs(what.configs)
    first = {c.variant: what.start_from / c.variant / MODEL for c in configs if what.start_from}
    for path in first.values():
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
    device = torch.device(what.device)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
    config = configs[dist.get_rank() % len(configs) if dist.is_initialized() else 0]
    dataset = catalogue.load(what.data, "train", config.largest_side)
    out = what.out / config.variant
    out.mkdir(parents=True, exist_ok=True)
    run = Run(config, out, device, dataset, demo.heads_for, what.sam, len(configs))
    if run.resume():
        print(f"{config.variant}: resumed {run.phase} at step {run.step}", flush=True)
    elif first:
        run.start_from(first[config.variant])
    return Ready(run, what)
