"""Writes hydra.pkl, the configuration of a run as Hydra's users save it. It needs the package omegaconf."""

import pickle
from pathlib import Path

from omegaconf import OmegaConf

CONFIG = {"a": 1, "b": [1, 2.5, None, "x"], "c": {"p": True, "path": "${a}"}}

if __name__ == "__main__":
    pickled = pickle.dumps({"c": OmegaConf.create(CONFIG)}, protocol=2)
    Path(__file__).with_suffix(".pkl").write_bytes(pickled)
