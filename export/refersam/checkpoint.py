"""Reads weights: of this project, of the published ReferSAM code, or of SAM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from refersam.model import ReferSAM

SAM_PREFIXES = {
    "image_encoder.": "vl_adapter.vis_model.",
    "prompt_encoder.": "sam_prompt_encoder.",
    "mask_decoder.": "sam_mask_decoder.",
}
"""Where the parts of a SAM checkpoint live in ReferSAM."""


class CheckpointError(ValueError):
    """The weights in a file are not those of the model. The message lists every key that differs."""


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """State dict of a file, on the CPU.

    The weights may be the file's whole content or its entry `model` or `state_dict`; a leading `module.`
    of the keys (DistributedDataParallel) and old `position_ids` buffers are dropped. Nothing but tensors
    and plain containers is unpickled. Raises CheckpointError when the file holds no state dict.
    """
    saved = torch.load(path, map_location="cpu", weights_only=True)
    for entry in ("model", "state_dict"):
        if isinstance(saved, Mapping) and isinstance(saved.get(entry), Mapping):
            saved = saved[entry]
            break
    if not isinstance(saved, Mapping) or not all(isinstance(value, Tensor) for value in saved.values()):
        raise CheckpointError(f"{path} holds no state dict, neither itself nor as 'model' or 'state_dict'")
    state = {key.removeprefix("module."): value for key, value in saved.items()}
    return {key: value for key, value in state.items() if not key.endswith(".embeddings.position_ids")}


def load_checkpoint(model: ReferSAM, path: str | Path) -> None:
    """Fills the whole model from a file, or raises CheckpointError and leaves it as it was."""
    state = read_state_dict(path)
    _check(path, model.state_dict(), state)
    model.load_state_dict(state)


def load_sam(model: ReferSAM, path: str | Path) -> None:
    """Fills image encoder, prompt encoder and mask decoder from a SAM checkpoint of the same size.

    Raises CheckpointError, and leaves the model as it was, unless the file holds exactly those three.
    """
    state = {_sam_key(key): value for key, value in read_state_dict(path).items()}
    own = model.state_dict()
    _check(path, {key: own[key] for key in own if key.startswith(tuple(SAM_PREFIXES.values()))}, state)
    model.load_state_dict(state, strict=False)


def _sam_key(key: str) -> str:
    for prefix, ours in SAM_PREFIXES.items():
        if key.startswith(prefix):
            return ours + key.removeprefix(prefix)
    return key


def _check(path: str | Path, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    misshapen = [
        f"{key} is {list(given[key].shape)}, not {list(expected[key].shape)}"
        for key in sorted(expected.keys() & given.keys())
        if given[key].shape != expected[key].shape
    ]
    problems = {
        "missing": sorted(expected.keys() - given.keys()),
        "extra": sorted(given.keys() - expected.keys()),
        "misshapen": misshapen,
    }
    if any(problems.values()):
        lists = [_list(kind, entries) for kind, entries in problems.items() if entries]
        raise CheckpointError(f"{path} does not fit the model\n" + "\n".join(lists))


def _list(kind: str, entries: Iterable[str]) -> str:
    return f"{kind}:\n" + "\n".join(f"  {entry}" for entry in entries)
