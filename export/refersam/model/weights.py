"""Reads weights: of this project, of the published ReferSAM code, or of SAM."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from refersam.model import ReferSAM

SAM_PREFIXES = {
    "image_encoder.": "vl_adapter.vis_model.",
    "prompt_encoder.": "sam_prompt_encoder.",
    "mask_decoder.": "sam_mask_decoder.",
}
"""Where the parts of a SAM checkpoint live in ReferSAM."""


class CheckpointError(ValueError):
    """A file that cannot be read, or weights that do not fit. The message lists everything that is wrong."""


class Inert:
    """Takes the place of an object that a trainer saved beside the weights and that nothing here reads.

    The object's own class is neither imported nor run, and its content is dropped.
    """

    name: ClassVar[str]

    def __new__(cls, *_: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __repr__(self) -> str:
        return f"<{self.name}, not read>"


def _no_items(*_: object) -> dict[object, object]:
    return {}


def _no_list(*_: object) -> list[object]:
    return []


_PATHS = "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath"
_NODES = "Any Boolean Bytes Enum Float Integer Interpolation Path String"

INERT = {
    "argparse": "Namespace",
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,  # Python 3.13
    "datetime": "date datetime time timedelta timezone",
    "builtins": "bool bytes dict float int list slice str tuple",
    "typing": "Any",
    "torch.torch_version": "TorchVersion",
    # Measured scores, the state of a random generator. NumPy 2 has renamed `core`.
    "numpy": "dtype ndarray bool bool_ float16 float32 float64 int32 int64 uint8",
    "numpy.core.multiarray": "scalar _reconstruct",
    "numpy._core.multiarray": "scalar _reconstruct",
    # What Hydra's users save as the configuration of a run.
    "omegaconf.base": "ContainerMetadata Metadata",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.nodes": " ".join(f"{kind}Node" for kind in _NODES.split()),
}
"""Classes by module that trainers save beside the weights. Their objects become Inert."""

STAND_INS = [
    *(
        (type("Inert", (Inert,), {"name": f"{module}.{name}"}), f"{module}.{name}")
        for module, names in INERT.items()
        for name in names.split()
    ),
    (_no_items, "collections.defaultdict"),
    (_no_list, "collections.deque"),
]


def read(path: str | Path) -> Any:
    """What torch.save wrote into a file: tensors on the CPU, plain containers, and Inert objects.

    No class that the file names is run. Raises CheckpointError for a damaged file, and for a file that
    names a class that is neither one of PyTorch's own nor in INERT.
    """
    try:
        with torch.serialization.safe_globals(STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is None:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        raise CheckpointError(
            f"{path} holds {named[1]}, which is not loaded because it may run code. If you trust the file,"
            " save its weights alone, where it was made:"
            " torch.save({'model': torch.load(FILE, weights_only=False)['model']}, 'weights.pth')"
        ) from error
    except (RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"{path} is damaged or was not written by torch.save; get the file again: {error}"
        ) from error


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """State dict of a file, on the CPU; see `state_dict`."""
    return state_dict(read(path), path)


def state_dict(saved: Any, path: str | Path) -> dict[str, Tensor]:
    """State dict within what `read` gave for a file.

    The weights may be the file's whole content or its entry `model` or `state_dict`; a leading `module.`
    of the keys (DistributedDataParallel) and old `position_ids` buffers are dropped. Raises CheckpointError
    when the file holds no state dict.
    """
    for entry in ("model", "state_dict"):
        if isinstance(saved, Mapping) and isinstance(saved.get(entry), Mapping):
            saved = saved[entry]
            break
    if not isinstance(saved, Mapping) or not all(isinstance(value, Tensor) for value in saved.values()):
        raise CheckpointError(f"{path} holds no state dict, neither itself nor as 'model' or 'state_dict'")
    state = {key.removeprefix("module."): value for key, value in saved.items()}
    return {key: value for key, value in state.items() if not key.endswith(".embeddings.position_ids")}


def fill(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Fills the whole model, or raises CheckpointError and leaves it as it was; `path` is for the message."""
    _check(path, model.state_dict(), state)
    model.load_state_dict(state)


def load_checkpoint(model: ReferSAM, path: str | Path) -> None:
    """Fills the whole model from a file, or raises CheckpointError and leaves it as it was."""
    fill(model, read_state_dict(path), path)


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
