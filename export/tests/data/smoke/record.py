"""Writes losses.csv anew: what a run of smoke.toml on the pool beside this file logs.

    .venv/bin/python export/tests/data/smoke/record.py

The file beside this one was written by the code of commit 6183011. Write it anew only when a change is meant
to change what a run learns.
"""

import csv
import tempfile
from pathlib import Path

import torch

from refersam.data import catalogue
from refersam.training import demo
from refersam.training.config import TrainConfig
from refersam.training.loop import Run

SMOKE = Path(__file__).parent
COLUMNS = ("phase", "step", "prefix", "text", "mask", "coarse", "grounding", "total")


def losses(folder: Path) -> list[dict[str, str]]:
    """Every step's line of the log of a run, which writes into `folder`."""
    torch.set_num_threads(1)
    config = TrainConfig.read(SMOKE / "smoke.toml")
    dataset = catalogue.load(f"scenes:{SMOKE / 'pool'}", "train", config.largest_side)
    Run(config, folder, torch.device("cpu"), dataset, demo.heads_for, log_every=1).run()
    with (folder / "log.csv").open() as file:
        return [{name: line[name] for name in COLUMNS} for line in csv.DictReader(file)]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, (SMOKE / "losses.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(losses(Path(folder)))
