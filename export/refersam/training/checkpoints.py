"""The files of a run. All are replaced atomically: a kill leaves the old one or the new one.

`state.pt` is the whole state of a variant's run. Of several variants the state before it stays too, in
`state.old.pt`, because they resume at one step and a kill may come when only some have saved. `model.pt`
holds the averaged weights in the form that `refersam.export` and `refersam.evaluate` read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

STATE, OLD_STATE, MODEL = "state.pt", "state.old.pt", "model.pt"

HEADS = ("cell8.", "cell16.", "words.", "grounding.")
"""Heads that stood beside the model in states of the first version, which knew drawn scenes alone."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Writes a file in place of the one that is there."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def save_run(folder: Path, state: dict[str, Any], model: dict[str, Any], keep_old: bool) -> None:
    """Writes the state and the model of a run; the state that was there stays as OLD_STATE if `keep_old`."""
    path = folder / STATE
    if keep_old and path.exists():
        path.replace(folder / OLD_STATE)
    save(path, state)
    save(folder / MODEL, model)


def find_states(folder: Path, phases: Sequence[str]) -> dict[tuple[int, int], Path]:
    """The states in a folder by (index of the phase, step). Raises ValueError for an unknown phase."""
    found = {}
    for path in (folder / STATE, folder / OLD_STATE):
        if path.exists():
            saved = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
            if saved["phase"] not in phases:
                raise ValueError(f"{path} is of the phase {saved['phase']!r}; the config has {list(phases)}")
            found[phases.index(saved["phase"]), saved["step"]] = path
    return found


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """A state as `save_run` wrote it; heads of the first version's states get the names they have now."""
    saved = torch.load(path, map_location=device, weights_only=True)
    saved["objective"] = {
        f"auxiliary.{key}" if key.startswith(HEADS) else key: value
        for key, value in saved["objective"].items()
    }
    return saved
